//! A head on disk: a directory of `head.json` (what it is) and `head.safetensors` (its weights; none for attention).

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sha2::{Digest, Sha256};

use crate::checkpoint::ModelLocation;
use crate::io::stdio::{Content, Output};
use crate::probe::description::{Description, FORMAT, Method};
use crate::probe::parameters::Parameters;
use crate::sequence::digest::hex;

const DESCRIPTION: &str = "head.json";
const WEIGHTS: &str = "head.safetensors";

/// A head as it was read.
pub(crate) struct Stored {
    pub(crate) description: Description,
    /// The bytes of the weights; empty for attention.
    pub(crate) weights: Vec<u8>,
}

impl Stored {
    /// Hash of everything that influences a prediction.
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
    description: &Description,
    parameters: Option<&Parameters>,
) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    if let Some(parameters) = parameters {
        let values = parameters.values()?;
        let bytes: Vec<Vec<u8>> = values
            .iter()
            .map(|(_, _, values)| {
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect()
            })
            .collect();
        let views = values
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), bytes)| {
                Ok((
                    name.as_str(),
                    TensorView::new(Dtype::F32, shape.clone(), bytes)?,
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        write(&dir.join(WEIGHTS), &safetensors::serialize(views, None)?)?;
    }
    let mut text = serde_json::to_string_pretty(description)?;
    text.push('\n');
    write(&dir.join(DESCRIPTION), text.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = || {
        let mut output = Output::create(path, Content::Binary)?;
        output.write_all(bytes)?;
        output.finish()
    };
    written().with_context(|| format!("writing {}", path.display()))
}

/// Reads a head.
pub(crate) fn load(place: &ModelLocation) -> Result<Stored> {
    let path = place.path(DESCRIPTION);
    let text = place.read(DESCRIPTION)?.with_context(|| {
        format!(
            "{}: no head there; `ankh3 probe train` and `ankh3 contacts fit` make one",
            path.display()
        )
    })?;
    let description: Description =
        serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?;
    ensure!(
        description.format == FORMAT,
        "{}: a head of format {:?}; this version reads {FORMAT:?}",
        path.display(),
        description.format
    );
    let weights = match description.method {
        Method::Head { .. } => place
            .read(WEIGHTS)?
            .with_context(|| format!("{} is missing", place.path(WEIGHTS).display()))?
            .into_owned(),
        Method::Attention { .. } => Vec::new(),
    };
    Ok(Stored {
        description,
        weights,
    })
}
