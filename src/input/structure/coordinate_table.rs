//! Tables of coordinates: JSON lines with one chain each.

use serde::Deserialize;

use super::text::{Fault, Text};
use super::{Atoms, Chain};
use crate::shown::shown;

#[derive(Deserialize)]
struct TableLine {
    id: String,
    seq: String,
    xyz: Vec<Option<[f32; 3]>>,
}

/// The chains with at least one location.
pub(super) fn chains(mut text: Text) -> Result<Vec<Chain>, Fault> {
    let mut chains = Vec::new();
    loop {
        if !text.line.trim_ascii().is_empty() {
            chains.push(chain(&text)?);
        }
        if !text.advance()? {
            break;
        }
    }
    chains.retain(|chain| chain.atoms.iter().any(|atoms| !atoms.is_empty()));
    Ok(chains)
}

fn chain(text: &Text) -> Result<Chain, Fault> {
    let number = text.number();
    let TableLine { id, seq, xyz } = serde_json::from_slice(&text.line)
        .map_err(|error| Fault::at(number, error.column(), error.to_string()))?;
    let count = format!("{} residues, but {} locations", seq.len(), xyz.len());
    let wrong = if seq.len() != xyz.len() {
        Some(count)
    } else if xyz
        .iter()
        .flatten()
        .flatten()
        .any(|value| !value.is_finite())
    {
        Some("a coordinate is not finite".to_owned())
    } else {
        None
    };
    if let Some(what) = wrong {
        return Err(Fault::line(number, format!("`{}`: {what}", shown(&id))));
    }
    let atoms = |cb| Atoms {
        cb,
        ..Atoms::default()
    };
    Ok(Chain {
        id,
        name: String::new(),
        residues: seq.to_ascii_uppercase().into_bytes(),
        atoms: xyz.into_iter().map(atoms).collect(),
    })
}
