//! A deep mutational scan of ProteinGym: its protein (the wild type), its variants and the measured
//! values.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::inference::score::Variant;
use crate::input::sequences::OnBad;
use crate::input::variants::{DmsLine, read_dms};
use crate::sequence::{Origin, Record, Rules, Sequence, clean};

/// One variant as given by the user.
#[derive(Clone, Debug)]
pub(super) struct ListedVariant {
    pub(super) variant: Variant,
    /// The place of the variant, for messages.
    pub(super) place: String,
    /// The measured value, in a deep mutational scan.
    pub(super) measured: Option<f64>,
}

/// One scan.
pub(super) struct DeepMutationalScan {
    /// Named after the file.
    pub(super) protein: Sequence,
    pub(super) listed: Vec<ListedVariant>,
    /// Lines left out.
    pub(super) left_out: u64,
}

/// Reads a scan. The wild type follows from every line, by undoing the substitutions of the mutant;
/// it must be the same for all lines.
pub(super) fn read(path: &Path, on_bad: OnBad) -> Result<DeepMutationalScan> {
    let lines = read_dms(path)?;
    let mut wild_type: Option<Vec<u8>> = None;
    let mut listed = Vec::with_capacity(lines.len());
    let mut left_out = 0;
    for line in lines {
        let read = line.map_err(anyhow::Error::from).and_then(|line| {
            let place = format!("{}, line {}", path.display(), line.line);
            let (variant, protein) =
                variant_of(&line, wild_type.as_deref()).with_context(|| place.clone())?;
            let measured = Some(line.score);
            Ok((
                ListedVariant {
                    variant,
                    place,
                    measured,
                },
                protein,
            ))
        });
        if let Some((variant, protein)) = unless_skipped(read, on_bad, &mut left_out)? {
            wild_type.get_or_insert(protein);
            listed.push(variant);
        }
    }
    let Some(wild_type) = wild_type else {
        bail!("{}: no variant in it", path.display());
    };
    Ok(DeepMutationalScan {
        protein: protein(path, wild_type)?,
        listed,
        left_out,
    })
}

/// What was read of a row; `None` for an invalid row that is left out, listed and counted.
///
/// # Errors
/// An invalid row under [`OnBad::Error`].
pub(super) fn unless_skipped<T>(
    read: Result<T>,
    on_bad: OnBad,
    left_out: &mut u64,
) -> Result<Option<T>> {
    match read {
        Ok(row) => Ok(Some(row)),
        Err(error) if on_bad == OnBad::Skip => {
            tracing::warn!("skipped: {error:#}");
            *left_out += 1;
            Ok(None)
        }
        Err(error) => bail!("{error:#}; correct it, or leave it out with --on-bad skip"),
    }
}

/// The variant of a line, and its wild type.
fn variant_of(line: &DmsLine, known: Option<&[u8]>) -> Result<(Variant, Vec<u8>)> {
    let variant: Variant = line.mutant.parse()?;
    let protein = variant
        .revert(&line.mutated_sequence)
        .context("mutated_sequence and mutant contradict each other")?;
    if known.is_some_and(|known| known != protein) {
        bail!(
            "{}: its wild type differs from that of the lines before; a file must have variants of one protein",
            line.mutant
        );
    }
    Ok((variant, protein))
}

fn protein(path: &Path, residues: Vec<u8>) -> Result<Sequence> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let id = name.split(".csv").next().unwrap_or_default().to_owned();
    let origin = Origin {
        file: path.display().to_string().into(),
        record: 1,
        line: 1,
    };
    let length = residues.len();
    let record = Record {
        id,
        raw_id: None,
        description: String::new(),
        text: residues,
        origin,
    };
    let (sequence, _) = clean(record, &Rules::default())?;
    if sequence.residues.len() != length {
        bail!(
            "{}: mutated_sequence holds gaps, stops or digits; give the plain protein",
            path.display()
        );
    }
    Ok(sequence)
}
