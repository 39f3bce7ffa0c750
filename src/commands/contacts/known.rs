//! Chains of known structure, as sequences with contacts; and a structure laid onto another sequence.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bio::alignment::AlignmentOperation;
use bio::alignment::pairwise::Aligner;
use bio::scores::blosum62;

use crate::input::structure::{Atoms, Chain, read_chains};
use crate::probe::native::{Native, Place, virtual_cb};
use crate::sequence::{Origin, Record, Rules, clean};

/// The least share of resolved residues that must be those of the sequence.
const LEAST_IDENTITY: f64 = 0.9;

/// A protein of known structure.
pub(super) struct Known {
    pub(super) id: String,
    /// For messages.
    pub(super) place: String,
    pub(super) residues: Vec<u8>,
    pub(super) native: Native,
}

/// All protein chains of the files; ids must differ.
pub(super) fn read(paths: &[PathBuf], limit: Option<usize>) -> Result<Vec<Known>> {
    let mut all: Vec<Known> = Vec::new();
    let mut ids = std::collections::HashSet::new();
    for path in paths {
        for (number, chain) in read_chains(path)?.into_iter().enumerate() {
            let known = known(path, number, chain)?;
            ensure!(
                ids.insert(known.id.clone()),
                "{}: another chain is called {} too; rename one",
                known.place,
                known.id
            );
            all.push(known);
        }
    }
    if let Some(limit) = limit {
        all.truncate(limit);
    }
    Ok(all)
}

fn known(path: &Path, number: usize, chain: Chain) -> Result<Known> {
    let place = format!("{}: chain {} ({})", path.display(), number + 1, chain.id);
    let places: Vec<Place> = places(&chain);
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
        sequence.residues.len() == places.len(),
        "{place}: {} residues, but {} places; the sequence must hold letters only",
        sequence.residues.len(),
        places.len()
    );
    Ok(Known {
        id: chain.id,
        place,
        residues: sequence.residues,
        native: Native::new(places),
    })
}

/// The representative place of each residue: C-beta, of glycine C-alpha; a virtual C-beta where the side chain is missing, else C-alpha.
fn places(chain: &Chain) -> Vec<Place> {
    let place = |letter: u8, atoms: &Atoms| match *atoms {
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
    chain
        .residues
        .iter()
        .zip(&chain.atoms)
        .map(|(letter, atoms)| place(*letter, atoms))
        .collect()
}

/// The structure of a file laid onto `residues`: the chain called `name`, or the one that fits best. Says in the log where they disagree.
///
/// # Errors
/// No such chain; one that is another protein.
pub(crate) fn aligned(
    path: &Path,
    name: Option<&str>,
    id: &str,
    residues: &[u8],
) -> Result<Native> {
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
    let fits = chains.iter().map(|chain| (laid(residues, chain), chain));
    let best = fits.max_by(|(a, _), (b, _)| a.identity.total_cmp(&b.identity));
    let (fit, chain) = best.with_context(|| format!("{}: no protein chain", path.display()))?;
    let percent = 100.0 * fit.identity;
    if fit.identity < LEAST_IDENTITY {
        bail!(
            "{}: its chain {} has {percent:.0} % of its residues in common with {id}; a structure of the same protein has at least {:.0} % (choose another one, or --chain)",
            path.display(),
            chain.id,
            100.0 * LEAST_IDENTITY
        );
    }
    if fit.differing > 0 {
        tracing::warn!(
            "{}: chain {} differs from {id} in {} of {} resolved residues; its contacts are laid onto the sequence by alignment",
            path.display(),
            chain.id,
            fit.differing,
            fit.resolved
        );
    }
    Ok(Native::new(fit.places))
}

/// A chain on a sequence.
struct Laid {
    places: Vec<Place>,
    /// Of the resolved residues, the share that is the sequence's own.
    identity: f64,
    differing: usize,
    resolved: usize,
}

/// By global alignment with affine gaps; residues that were not seen cost nothing.
fn laid(residues: &[u8], chain: &Chain) -> Laid {
    let own = places(chain);
    // Only what was seen is aligned: what is missing is a gap, wherever the sequence has it.
    let seen: Vec<usize> = (0..own.len()).filter(|at| own[*at].is_some()).collect();
    let letters: Vec<u8> = seen.iter().map(|at| chain.residues[*at]).collect();
    let mut places = vec![None; residues.len()];
    let mut same = 0;
    if chain.residues.len() == residues.len()
        && seen.iter().all(|at| chain.residues[*at] == residues[*at])
    {
        places = own;
        same = seen.len();
    } else {
        let mut aligner = Aligner::with_capacity(residues.len(), letters.len(), -11, -1, blosum62);
        let alignment = aligner.global(residues, &letters);
        let (mut i, mut j) = (0, 0);
        for operation in &alignment.operations {
            match operation {
                AlignmentOperation::Match | AlignmentOperation::Subst => {
                    same += usize::from(residues[i] == letters[j]);
                    places[i] = own[seen[j]];
                    (i, j) = (i + 1, j + 1);
                }
                AlignmentOperation::Ins => i += 1,
                AlignmentOperation::Del => j += 1,
                AlignmentOperation::Xclip(count) => i += count,
                AlignmentOperation::Yclip(count) => j += count,
            }
        }
    }
    let resolved = seen.len();
    Laid {
        places,
        identity: same as f64 / resolved.max(1) as f64,
        differing: resolved - same,
        resolved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(residues: &[u8]) -> Chain {
        let atoms = |(at, letter): (usize, &u8)| Atoms {
            cb: (*letter != b'X').then_some([at as f32, 0.0, 0.0]),
            ..Atoms::default()
        };
        Chain {
            id: "a_A".to_owned(),
            name: "A".to_owned(),
            residues: residues.to_vec(),
            atoms: residues.iter().enumerate().map(atoms).collect(),
        }
    }

    #[test]
    fn the_same_sequence_is_laid_as_it_is() {
        let fit = laid(b"MKTAYIAKQR", &chain(b"MKTXXIAKQR"));
        assert_eq!((fit.identity, fit.differing, fit.resolved), (1.0, 0, 8));
        assert_eq!(fit.places[5], Some([5.0, 0.0, 0.0]));
        assert_eq!(fit.places[3], None);
    }

    #[test]
    fn ends_gaps_and_a_mutation_are_aligned() {
        // A tag in the sequence, an unseen loop, and K for R.
        let sequence = b"GSHMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ";
        let fit = laid(sequence, &chain(b"MKTAYIAKQKQISFVKSHXXXXLEERLGLIEVQ"));
        assert_eq!((fit.differing, fit.resolved), (1, 29));
        assert_eq!(fit.places[..3], [None, None, None]);
        assert_eq!(fit.places[3], Some([0.0, 0.0, 0.0]));
        assert_eq!(fit.places[35], Some([32.0, 0.0, 0.0]));
        assert_eq!(fit.places.iter().flatten().count(), 29);
    }

    #[test]
    fn another_protein_is_no_fit() {
        assert!(laid(b"MKTAYIAKQRQISFVKSH", &chain(b"WWPLDNNEVCGWPDLNEV")).identity < 0.5);
    }
}
