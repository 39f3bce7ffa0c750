//! A head on disk: a directory of `head.json` (its description) and `head.safetensors` (its
//! weights; none for attention).

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use sha2::{Digest, Sha256};

use crate::checkpoint::ModelLocation;
use crate::io::stdio::{Content, Output, check_output};
use crate::probe::description::{FORMAT, FittedMethod, HeadDescription};
use crate::probe::head::Head;
use crate::probe::weights::HeadWeights;
use crate::sequence::digest::hex;

pub(super) const DESCRIPTION: &str = "head.json";
const WEIGHTS: &str = "head.safetensors";

/// A head read from its directory.
pub(crate) struct StoredHead {
    /// The directory, for messages.
    pub(crate) dir: PathBuf,
    pub(crate) description: HeadDescription,
    /// The bytes of the weights; empty for attention.
    weights: Vec<u8>,
}

impl StoredHead {
    /// Reads a head.
    pub(crate) fn load(place: &ModelLocation) -> Result<Self> {
        let path = place.path(DESCRIPTION);
        let text = place.read(DESCRIPTION)?.with_context(|| {
            format!(
                "{}: no head there; `ankh3 probe train` and `ankh3 contacts fit` make one",
                path.display()
            )
        })?;
        let description: HeadDescription =
            serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?;
        ensure!(
            description.format == FORMAT,
            "{}: a head of format {:?}; this version reads {FORMAT:?}",
            path.display(),
            description.format
        );
        let weights = match description.method {
            FittedMethod::Head { .. } => place
                .read(WEIGHTS)?
                .with_context(|| format!("{} is missing", place.path(WEIGHTS).display()))?
                .into_owned(),
            FittedMethod::Attention { .. } => Vec::new(),
        };
        Ok(Self {
            dir: place.name(),
            description,
            weights,
        })
    }

    /// The network on a device.
    pub(crate) fn head(&self, device: &Device) -> Result<Head> {
        let dir = self.dir.display();
        let FittedMethod::Head { shape, .. } = &self.description.method else {
            bail!("{dir}: a regression over attention has no head");
        };
        let weights = HeadWeights::from_bytes(&self.weights, &shape.specs(0.0), device)
            .with_context(|| dir.to_string())?;
        Ok(Head::new(*shape, &weights)?)
    }

    /// A hash of everything that influences a prediction.
    pub(crate) fn sha256(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(serde_json::to_vec(&self.description)?);
        hash.update(&self.weights);
        Ok(hex(&hash.finalize()))
    }
}

/// Writes a head: the weights first, so that a directory with a description is complete.
pub(crate) fn save(
    dir: &Path,
    description: &HeadDescription,
    weights: Option<&HeadWeights>,
) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    if let Some(weights) = weights {
        write(&dir.join(WEIGHTS), &weights.to_bytes()?)?;
    }
    let mut text = serde_json::to_string_pretty(description)?;
    text.push('\n');
    write(&dir.join(DESCRIPTION), text.as_bytes())
}

/// Checks that [`save`] will be able to write to this directory, before a head is trained for it.
///
/// # Errors
/// A file in the place of the directory, or a directory that cannot be written.
pub(crate) fn check_folder(dir: &Path) -> Result<()> {
    let exists = |folder: &&Path| folder.as_os_str().is_empty() || folder.exists();
    let existing = dir.ancestors().find(exists).unwrap_or(dir);
    ensure!(
        existing.as_os_str().is_empty() || existing.is_dir(),
        "writing {}: {} is not a directory",
        dir.display(),
        existing.display()
    );
    check_output(&existing.join(DESCRIPTION), Content::Binary)
        .with_context(|| format!("writing {}", dir.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = || {
        let mut output = Output::create(path, Content::Binary)?;
        output.write_all(bytes)?;
        output.finish()
    };
    written().with_context(|| format!("writing {}", path.display()))
}
