//! The residues that are masked while others are substituted.
//!
//! A T5 predicts only masked residues, so the observed residues must be masked, several at a time;
//! a masked residue cannot be substituted. Positions are divided into groups; while a group is
//! masked, all other positions are substituted. Then each group is halved, one half is masked while
//! the other is substituted, and so on down to groups of one: every ordered pair of positions
//! occurs exactly once.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// One masked copy and the residues that are substituted in it one after the other; both lists
/// ascend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Positions from 0.
    pub masked: Vec<usize>,
    /// Positions from 0, none of them masked.
    pub substituted: Vec<usize>,
}

/// The rounds of a protein of `length` residues, where at most `fraction` of all and at most `most`
/// residues are masked at once. The rounds depend on the seed and the id alone.
pub fn rounds(id: &str, length: usize, fraction: f64, most: usize, seed: u64) -> Vec<Round> {
    let size = ((length as f64 * fraction).round() as usize).clamp(1, most.max(1));
    let count = length.div_ceil(size);
    let mut positions: Vec<usize> = (0..length).collect();
    positions.shuffle(&mut stream(seed, id));
    let mut rounds = Vec::new();
    for number in 0..count {
        let of = |own: bool| -> Vec<usize> {
            let mut chosen: Vec<usize> = (0..length)
                .filter(|dealt| (dealt % count == number) == own)
                .map(|dealt| positions[dealt])
                .collect();
            chosen.sort_unstable();
            chosen
        };
        let (masked, substituted) = (of(true), of(false));
        halve(&masked, &mut rounds);
        rounds.push(Round {
            masked,
            substituted,
        });
    }
    rounds.retain(|round| !round.substituted.is_empty());
    rounds
}

/// The rounds for pairs within a group: every second residue against the others, so that the halves
/// interleave.
fn halve(group: &[usize], rounds: &mut Vec<Round>) {
    if group.len() < 2 {
        return;
    }
    let half = |odd: usize| -> Vec<usize> { group.iter().skip(odd).step_by(2).copied().collect() };
    let (one, other) = (half(0), half(1));
    for (masked, substituted) in [(&one, &other), (&other, &one)] {
        halve(masked, rounds);
        rounds.push(Round {
            masked: masked.clone(),
            substituted: substituted.clone(),
        });
    }
}

fn stream(seed: u64, id: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(b"ankh3 jacobian masking");
    hash.update(seed.to_le_bytes());
    hash.update(id);
    ChaCha8Rng::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ordered_pair_is_seen_exactly_once() {
        for (length, fraction, most) in [
            (1, 0.15, 225),
            (2, 0.5, 9),
            (23, 0.15, 225),
            (40, 0.5, 4),
            (9, 1.0, 99),
        ] {
            let mut seen = vec![0; length * length];
            for round in rounds("a", length, fraction, most, 1) {
                assert!(round.masked.len() <= most && round.masked.is_sorted());
                for i in &round.substituted {
                    for j in &round.masked {
                        seen[i * length + j] += 1;
                    }
                }
            }
            for i in 0..length {
                for j in 0..length {
                    assert_eq!(
                        seen[i * length + j],
                        usize::from(i != j),
                        "{length} {fraction} {i} {j}"
                    );
                }
            }
        }
    }

    #[test]
    fn groups_depend_on_seed_and_id() {
        let of = |id, seed| rounds(id, 50, 0.15, 225, seed);
        assert_eq!(of("a", 1), of("a", 1));
        assert_ne!(of("a", 1), of("b", 1));
        assert_ne!(of("a", 1), of("a", 2));
    }
}
