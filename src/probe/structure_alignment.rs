//! The coordinates of a structure mapped to another sequence of the same protein, by global
//! alignment with affine gaps.

use bio::alignment::AlignmentOperation;
use bio::alignment::pairwise::Aligner;
use bio::scores::blosum62;

use super::native::Coordinates;

/// The penalty of opening a gap.
const GAP_OPEN: i32 = -11;
/// The penalty of each residue of a gap.
const GAP_EXTEND: i32 = -1;

/// A chain mapped to a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct AlignedStructure {
    /// One per residue of the sequence.
    pub coordinates: Vec<Coordinates>,
    /// The share of resolved residues that are the same in the sequence.
    pub identity: f64,
    /// Resolved residues that differ from the sequence.
    pub differing: usize,
    /// Resolved residues.
    pub resolved: usize,
}

impl AlignedStructure {
    /// Maps a chain (`chain_residues`, one coordinate each) to `sequence`. Only resolved residues
    /// are aligned; unresolved ones are gaps, wherever the sequence has them.
    pub fn new(sequence: &[u8], chain_residues: &[u8], coordinates: Vec<Coordinates>) -> Self {
        let resolved: Vec<usize> = (0..coordinates.len())
            .filter(|at| coordinates[*at].is_some())
            .collect();
        let is_same = chain_residues.len() == sequence.len()
            && resolved
                .iter()
                .all(|at| chain_residues[*at] == sequence[*at]);
        let (mapped, same) = if is_same {
            (coordinates, resolved.len())
        } else {
            align(sequence, chain_residues, &coordinates, &resolved)
        };
        Self {
            coordinates: mapped,
            identity: same as f64 / resolved.len().max(1) as f64,
            differing: resolved.len() - same,
            resolved: resolved.len(),
        }
    }
}

/// The coordinates along `sequence`, and the number of resolved residues that are the same.
fn align(
    sequence: &[u8],
    chain_residues: &[u8],
    coordinates: &[Coordinates],
    resolved: &[usize],
) -> (Vec<Coordinates>, usize) {
    let letters: Vec<u8> = resolved.iter().map(|at| chain_residues[*at]).collect();
    let mut aligner = Aligner::with_capacity(
        sequence.len(),
        letters.len(),
        GAP_OPEN,
        GAP_EXTEND,
        blosum62,
    );
    let alignment = aligner.global(sequence, &letters);
    let (mut mapped, mut same) = (vec![None; sequence.len()], 0);
    let (mut i, mut j) = (0, 0);
    for operation in &alignment.operations {
        match operation {
            AlignmentOperation::Match | AlignmentOperation::Subst => {
                same += usize::from(sequence[i] == letters[j]);
                mapped[i] = coordinates[resolved[j]];
                (i, j) = (i + 1, j + 1);
            }
            AlignmentOperation::Ins => i += 1,
            AlignmentOperation::Del => j += 1,
            AlignmentOperation::Xclip(count) => i += count,
            AlignmentOperation::Yclip(count) => j += count,
        }
    }
    (mapped, same)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain along a line, with unresolved residues where it is `X`.
    fn aligned(sequence: &[u8], chain: &[u8]) -> AlignedStructure {
        let coordinates = |(at, letter): (usize, &u8)| {
            let at = at as f32;
            (*letter != b'X').then_some([at, 0.0, 0.0])
        };
        let coordinates = chain.iter().enumerate().map(coordinates).collect();
        AlignedStructure::new(sequence, chain, coordinates)
    }

    #[test]
    fn the_same_sequence_is_taken_without_alignment() {
        let fit = aligned(b"MKTAYIAKQR", b"MKTXXIAKQR");
        assert_eq!((fit.identity, fit.differing, fit.resolved), (1.0, 0, 8));
        assert_eq!(fit.coordinates[5], Some([5.0, 0.0, 0.0]));
        assert_eq!(fit.coordinates[3], None);
    }

    #[test]
    fn ends_gaps_and_a_mutation_are_aligned() {
        // A tag in the sequence, an unresolved loop, and K for R.
        let sequence = b"GSHMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ";
        let fit = aligned(sequence, b"MKTAYIAKQKQISFVKSHXXXXLEERLGLIEVQ");
        assert_eq!((fit.differing, fit.resolved), (1, 29));
        assert_eq!(fit.coordinates[..3], [None, None, None]);
        assert_eq!(fit.coordinates[3], Some([0.0, 0.0, 0.0]));
        assert_eq!(fit.coordinates[35], Some([32.0, 0.0, 0.0]));
        assert_eq!(fit.coordinates.iter().flatten().count(), 29);
    }

    #[test]
    fn another_protein_does_not_fit() {
        assert!(aligned(b"MKTAYIAKQRQISFVKSH", b"WWPLDNNEVCGWPDLNEV").identity < 0.5);
    }
}
