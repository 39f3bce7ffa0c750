//! Chains of known structure, read from files; and the contacts of a structure for a given
//! sequence.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::input::structure::{Atoms, Chain, read_chains};
use crate::probe::native::{Coordinates, KnownChain, Native, virtual_cb};
use crate::probe::structure_alignment::AlignedStructure;
use crate::sequence::{Origin, Record, Rules, clean};

/// The least share of resolved residues that must equal those of the sequence.
const LEAST_IDENTITY: f64 = 0.9;

/// Reads all protein chains of the files, or the first `limit`; ids must differ.
pub(super) fn read(paths: &[PathBuf], limit: Option<usize>) -> Result<Vec<KnownChain>> {
    let mut all: Vec<KnownChain> = Vec::new();
    let mut ids = std::collections::HashSet::new();
    for path in paths {
        for (number, chain) in read_chains(path)?.into_iter().enumerate() {
            let chain = known_chain(path, number, chain)?;
            ensure!(
                ids.insert(chain.id.clone()),
                "{}: another chain is called {} too; rename one",
                chain.name,
                chain.id
            );
            all.push(chain);
        }
    }
    if let Some(limit) = limit {
        all.truncate(limit);
    }
    Ok(all)
}

fn known_chain(path: &Path, number: usize, chain: Chain) -> Result<KnownChain> {
    let name = format!("{}: chain {} ({})", path.display(), number + 1, chain.id);
    let coordinates = coordinates(&chain);
    let record = Record {
        id: chain.id.clone(),
        raw_id: None,
        description: String::new(),
        text: chain.residues,
        origin: Origin {
            file: path.display().to_string().into(),
            record: number as u64 + 1,
            line: number as u64 + 1,
        },
    };
    let (sequence, _) = clean(record, &Rules::default())?;
    ensure!(
        sequence.residues.len() == coordinates.len(),
        "{name}: {} residues, but {} positions; the sequence must hold letters only",
        sequence.residues.len(),
        coordinates.len()
    );
    Ok(KnownChain {
        id: chain.id,
        name,
        residues: sequence.residues,
        native: Native::new(coordinates),
    })
}

/// The representative atom of each residue: C-beta, of glycine C-alpha; where the side chain is
/// missing a virtual C-beta, else C-alpha.
fn coordinates(chain: &Chain) -> Vec<Coordinates> {
    let representative = |letter: u8, atoms: &Atoms| match *atoms {
        Atoms { cb: Some(cb), .. } if letter != b'G' || atoms.ca.is_none() => Some(cb),
        Atoms { ca, .. } if letter == b'G' => ca,
        Atoms {
            n: Some(n),
            ca: Some(ca),
            c: Some(c),
            ..
        } => Some(virtual_cb(n, ca, c)),
        Atoms { ca, .. } => ca,
    };
    let residues = chain.residues.iter().zip(&chain.atoms);
    residues
        .map(|(letter, atoms)| representative(*letter, atoms))
        .collect()
}

/// The contacts of a structure file for `residues`: of the chain called `chain`, or of the one that
/// fits best. Differences between the structure and the sequence are logged.
///
/// # Errors
/// A chain that is not there, or one of another protein.
pub(crate) fn aligned(
    path: &Path,
    chain: Option<&str>,
    id: &str,
    residues: &[u8],
) -> Result<Native> {
    let chains = read_named(path, chain)?;
    let fits = chains.iter().map(|chain| {
        let fit = AlignedStructure::new(residues, &chain.residues, coordinates(chain));
        (fit, chain)
    });
    let best = fits.max_by(|(a, _), (b, _)| a.identity.total_cmp(&b.identity));
    let (fit, chain) = best.with_context(|| format!("{}: no protein chain", path.display()))?;
    if fit.identity < LEAST_IDENTITY {
        bail!(
            "{}: its chain {} has {:.0} % of its residues in common with {id}; a structure of the same protein has at least {:.0} % (choose another structure, or another chain with --chain)",
            path.display(),
            chain.id,
            100.0 * fit.identity,
            100.0 * LEAST_IDENTITY
        );
    }
    if fit.differing > 0 {
        tracing::warn!(
            "{}: chain {} differs from {id} in {} of {} resolved residues; contacts are mapped to the sequence by alignment",
            path.display(),
            chain.id,
            fit.differing,
            fit.resolved
        );
    }
    Ok(Native::new(fit.coordinates))
}

/// The chains of a file; only the one called `name`, where a name is given.
fn read_named(path: &Path, name: Option<&str>) -> Result<Vec<Chain>> {
    let mut chains = read_chains(path)?;
    if let Some(name) = name {
        let names: Vec<String> = chains.iter().map(|chain| chain.name.clone()).collect();
        chains.retain(|chain| chain.name == name || chain.id == name);
        ensure!(
            !chains.is_empty(),
            "{}: no protein chain {name}; there are {}",
            path.display(),
            names.join(", ")
        );
    }
    Ok(chains)
}
