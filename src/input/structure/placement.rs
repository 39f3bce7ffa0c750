//! Where the observed residues of a chain lie in the sequence that the file gives (SEQRES).
//!
//! The chain is cut where it is broken or where its numbers jump. The pieces are laid on the
//! sequence in their order, without gaps inside, so that as few letters as possible differ; among
//! equal ones, so that as many gaps as possible have the length that the numbers say.

/// Residues that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Residues in it.
    pub(super) length: usize,
    /// Missing residues before it, by the numbers.
    pub(super) gap: usize,
}

/// The cost of a letter that differs.
const DIFFERENT: u32 = 4;
/// The cost of a gap of another length than the numbers say.
const OTHER_GAP: u32 = 1;
/// One residue in this many may differ.
const LARGEST_SHARE: usize = 10;
/// Bounds of the work: comparisons of letters, and pieces times residues.
const COMPARISONS: usize = 2_000_000_000;
const CELLS: usize = 20_000_000;

/// The position in `sequence` at which each piece begins; none where the pieces do not fit.
/// `letters` are those of all pieces.
pub(super) fn place(letters: &[u8], pieces: &[Piece], sequence: &[u8]) -> Option<Vec<usize>> {
    let free = sequence.len().checked_sub(letters.len())? + 1;
    if letters.len().saturating_mul(free) > COMPARISONS || pieces.len() * free > CELLS {
        return None;
    }
    // `shift` is the number of residues that are missing before a piece.
    let mut costs = vec![0u32; free];
    let mut choices: Vec<Vec<u32>> = Vec::new();
    let mut start = 0;
    for piece in pieces {
        let letters = &letters[start..start + piece.length];
        let is_first = start == 0;
        let (mut next, mut choice) = (Vec::with_capacity(free), Vec::with_capacity(free));
        let mut nearest = 0;
        for shift in 0..free {
            if costs[shift] < costs[nearest] {
                nearest = shift;
            }
            let other = (costs[nearest] + u32::from(!is_first) * OTHER_GAP, nearest);
            let expected = shift.checked_sub(piece.gap).map(|from| (costs[from], from));
            let (cost, from) = expected.map_or(other, |expected| expected.min(other));
            let there = &sequence[start + shift..];
            let differing = letters.iter().zip(there).filter(|(a, b)| a != b).count();
            next.push(cost + DIFFERENT * differing as u32);
            choice.push(from as u32);
        }
        costs = next;
        choices.push(choice);
        start += piece.length;
    }
    let mut shift = (0..free).min_by_key(|shift| costs[*shift])?;
    if costs[shift] as usize / DIFFERENT as usize > letters.len() / LARGEST_SHARE {
        return None;
    }
    let mut starts = Vec::with_capacity(pieces.len());
    for (piece, choice) in pieces.iter().zip(&choices).rev() {
        start -= piece.length;
        starts.push(start + shift);
        shift = choice[shift] as usize;
    }
    starts.reverse();
    Some(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(pieces: &[(&str, usize)], sequence: &str) -> Option<Vec<usize>> {
        let letters: String = pieces.iter().map(|(letters, _)| *letters).collect();
        let pieces: Vec<Piece> = pieces
            .iter()
            .map(|(letters, gap)| Piece {
                length: letters.len(),
                gap: *gap,
            })
            .collect();
        place(letters.as_bytes(), &pieces, sequence.as_bytes())
    }

    #[test]
    fn pieces_lie_where_their_letters_are() {
        let sequence = "GSHMKTAYIAKQRQISFVKSHFSRQLEERLG";
        assert_eq!(
            placed(&[("MKTAYIAK", 0), ("SHFSRQ", 9)], sequence),
            Some(vec![3, 19])
        );
        assert_eq!(
            placed(&[("MKTAYIAK", 0), ("SHFSRQ", 0)], sequence),
            Some(vec![3, 19])
        );
        // One of ten differs, then three of ten.
        assert_eq!(placed(&[("MKTAYIAKQW", 0)], sequence), Some(vec![3]));
        assert_eq!(placed(&[("MKTWYWAKQW", 0)], sequence), None);
        assert_eq!(placed(&[("MKTAYIAKQ", 0)], "MKT"), None);
        assert_eq!(placed(&[("MKT", 0)], "MKT"), Some(vec![0]));
    }

    #[test]
    fn numbers_decide_where_letters_do_not() {
        let sequence = "MKGGSGGSGGSGGSWWLPE";
        for (gap, second) in [(0, 4), (3, 7), (6, 10)] {
            let pieces = [("MKGG", 0), ("SGGS", gap), ("WWLPE", 10 - second)];
            assert_eq!(
                placed(&pieces, sequence),
                Some(vec![0, second, 14]),
                "{gap}"
            );
        }
    }
}
