//! The residues of a protein that are masked together.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::ScoreQuery;
use crate::inference::residues::STANDARD;

/// The number of residues of a protein that are masked at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Masking {
    /// One residue: as many copies as residues.
    Single,
    /// A random fraction: about `1 / fraction` copies, where each residue is masked in exactly one
    /// copy.
    Fraction {
        /// In (0, 1].
        fraction: f64,
        /// The seed, which decides together with the protein's id which residues are masked
        /// together.
        seed: u64,
    },
}

/// Positions of standard residues, from 0.
pub fn standard_positions(residues: &[u8]) -> Vec<usize> {
    let standard = |(_, residue): &(usize, &u8)| STANDARD.contains(residue);
    let found = residues.iter().enumerate().filter(standard);
    found.map(|(position, _)| position).collect()
}

impl Masking {
    /// The masked positions of every copy that the query needs.
    pub(super) fn copies(self, query: &ScoreQuery<'_>, most: usize) -> Vec<Vec<usize>> {
        match self {
            Masking::Single => query.positions.iter().map(|&at| vec![at]).collect(),
            Masking::Fraction { fraction, seed } => {
                let all = standard_positions(query.residues);
                let mut groups = groups(all, fraction, most, stream(seed, query.id));
                groups.retain(|group| {
                    group
                        .iter()
                        .any(|at| query.positions.binary_search(at).is_ok())
                });
                groups
            }
        }
    }
}

/// The number of copies for a protein of `scored` standard residues.
pub fn num_copies(masking: Masking, scored: usize, most: usize) -> usize {
    match masking {
        Masking::Single => scored,
        Masking::Fraction { fraction, .. } => scored.div_ceil(group_size(scored, fraction, most)),
    }
}

fn group_size(scored: usize, fraction: f64, most: usize) -> usize {
    ((scored as f64 * fraction).round() as usize).clamp(1, most)
}

/// Divides `positions` at random into groups of nearly equal size, each of at most `fraction` of
/// all and at most `most`.
fn groups(
    mut positions: Vec<usize>,
    fraction: f64,
    most: usize,
    mut random: ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let count = positions
        .len()
        .div_ceil(group_size(positions.len(), fraction, most));
    positions.shuffle(&mut random);
    let mut groups = vec![Vec::new(); count];
    for (dealt, position) in positions.into_iter().enumerate() {
        groups[dealt % count].push(position);
    }
    for group in &mut groups {
        group.sort_unstable();
    }
    groups
}

/// A random stream that depends on the seed and the protein's id alone.
fn stream(seed: u64, id: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(b"ankh3 score masking");
    hash.update(seed.to_le_bytes());
    hash.update(id);
    ChaCha8Rng::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_residue_is_masked_exactly_once() {
        let table = [
            (0, 0.15, 225, 0),
            (1, 0.15, 225, 1),
            (7, 0.15, 225, 7),
            (100, 0.15, 225, 7),
            (100, 0.15, 4, 25),
            (100, 1.0, 225, 1),
            (100, 1e-9, 225, 100),
        ];
        for (scored, fraction, most, copies) in table {
            let groups = groups((0..scored).collect(), fraction, most, stream(1, "a"));
            assert_eq!(groups.len(), copies, "{scored} {fraction} {most}");
            let masking = Masking::Fraction { fraction, seed: 1 };
            assert_eq!(num_copies(masking, scored, most), copies);
            assert!(
                groups
                    .iter()
                    .all(|group| group.is_sorted() && group.len() <= most)
            );
            let sizes = groups.iter().map(Vec::len);
            assert!(sizes.clone().max() <= sizes.min().map(|size| size + 1));
            let mut all = groups.concat();
            all.sort_unstable();
            assert_eq!(all, (0..scored).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_masks_depend_on_seed_and_id_alone() {
        let masks = |seed, id| groups((0..50).collect(), 0.2, 225, stream(seed, id));
        assert_eq!(masks(1, "a"), masks(1, "a"));
        assert_ne!(masks(1, "a"), masks(2, "a"));
        assert_ne!(masks(1, "a"), masks(1, "b"));
    }

    #[test]
    fn only_the_copies_asked_for_are_made_and_odd_residues_stay() {
        let residues = b"MXKAYVLINSRGPU";
        let positions = [2, 3];
        let job = ScoreQuery {
            id: "a",
            residues,
            positions: &positions,
        };
        assert_eq!(Masking::Single.copies(&job, 9), [[2], [3]]);
        let masking = Masking::Fraction {
            fraction: 0.25,
            seed: 0,
        };
        let copies = masking.copies(&job, 9);
        assert!((1..=2).contains(&copies.len()), "{copies:?}");
        let flat = copies.concat();
        assert!(!flat.contains(&1) && !flat.contains(&13));
    }
}
