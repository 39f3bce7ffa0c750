//! Long sequences: the limits `--max-length` and `--over`, and overlapping chunks.
//!
//! A chunk begins every `max_length - overlap` residues and is `max_length` residues long; the last
//! chunk may be shorter. The overlap is at most half a chunk, so a residue lies in one or two
//! chunks. The two rows of a residue in two chunks are averaged:
//!
//! ```text
//! sequence  0 ........................ 22        max_length 10, overlap 4
//! chunk 0   [0 ....... 10)
//! chunk 1         [6 ....... 16)
//! chunk 2               [12 ...... 22)
//! weight    1 1 1 1 1 1 ½ ½ ½ ½ 1 1 ½ ½ ½ ½ 1 1 1 1 1 1
//! ```

use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The treatment of a sequence that is longer than the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "over")]
pub enum Over {
    /// The sequence is an error.
    #[default]
    Error,
    /// The sequence is left out, logged and counted.
    Skip,
    /// The residues beyond the limit are cut off and counted.
    Truncate,
    /// The sequence is cut into overlapping chunks, whose results are joined again.
    Chunk {
        /// Residues that neighbouring chunks share, at most half of the limit.
        overlap: usize,
    },
}

/// The length limit of sequences, and the treatment of longer ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// Largest number of residues; `None` for any length.
    max_length: Option<usize>,
    #[serde(flatten)]
    over: Over,
}

/// Why a limit is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// A limit of 0, which no sequence meets.
    #[error("--max-length 0 leaves nothing; give at least 1")]
    Zero,
    /// An overlap of more than half a chunk.
    #[error("--overlap {overlap} is more than half of --max-length {max_length}; give at most {}", .max_length / 2)]
    Overlap {
        /// Residues that neighbouring chunks share.
        overlap: usize,
        /// Residues per chunk.
        max_length: usize,
    },
}

/// The result of comparing a sequence with the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The whole sequence is used (under `chunk` in several pieces).
    Whole,
    /// Only the first residues are used.
    First(usize),
    /// The sequence is not used; the value is the limit.
    TooLong(usize),
}

impl Limit {
    /// No limit: sequences may have any length.
    pub const NONE: Limit = Limit {
        max_length: None,
        over: Over::Error,
    };

    /// A limit of `max_length` residues; `over` is the treatment of longer sequences.
    ///
    /// # Errors
    /// A limit of 0, or an overlap of more than half of it.
    pub fn new(max_length: usize, over: Over) -> Result<Self, LimitError> {
        match over {
            _ if max_length == 0 => Err(LimitError::Zero),
            Over::Chunk { overlap } if overlap > max_length / 2 => Err(LimitError::Overlap {
                overlap,
                max_length,
            }),
            _ => Ok(Limit {
                max_length: Some(max_length),
                over,
            }),
        }
    }

    /// The limit, if there is one.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// True if sequences may have any length.
    pub fn is_none(&self) -> bool {
        self.max_length.is_none()
    }

    /// The treatment of longer sequences.
    pub fn over(&self) -> Over {
        self.over
    }

    /// Compares a sequence of `length` residues with the limit.
    pub fn fit(&self, length: usize) -> Fit {
        match (self.max_length, self.over) {
            (Some(max), Over::Error | Over::Skip) if length > max => Fit::TooLong(max),
            (Some(max), Over::Truncate) if length > max => Fit::First(max),
            _ => Fit::Whole,
        }
    }

    /// The pieces in which a sequence of `length` residues is computed; more than one only under
    /// `chunk`.
    pub fn chunks(&self, length: usize) -> Vec<Chunk> {
        match (self.max_length, self.over) {
            (Some(max_length), Over::Chunk { overlap }) => chunks(length, max_length, overlap),
            _ => chunks(length, length.max(1), 0),
        }
    }
}

/// One piece of a long sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The residues of the chunk, counted from 0 in the whole sequence.
    pub range: Range<usize>,
    /// Number of residues shared with the chunk before.
    pub shared_before: usize,
    /// Number of residues shared with the chunk after.
    pub shared_after: usize,
}

impl Chunk {
    /// The weight in the joined result of this chunk's row for residue `offset` (counted from 0 in
    /// the chunk): ½ for a residue that is shared with a neighbour, else 1. Over all chunks the
    /// weights of a residue sum to exactly 1.
    pub fn weight(&self, offset: usize) -> f32 {
        let shared = offset < self.shared_before || offset + self.shared_after >= self.range.len();
        if shared { 0.5 } else { 1.0 }
    }
}

/// Cuts `length` residues into chunks of at most `max_length` that share `overlap` residues with
/// each neighbour; they cover every residue.
///
/// Needs `max_length >= 1` and `overlap <= max_length / 2`, which [`Limit::new`] ensures. A length
/// of 0 gives no chunks.
pub fn chunks(length: usize, max_length: usize, overlap: usize) -> Vec<Chunk> {
    let stride = max_length - overlap;
    let mut chunks = Vec::with_capacity(length / stride + 1);
    let mut start = 0;
    while start < length {
        let end = (start + max_length).min(length);
        chunks.push(Chunk {
            range: start..end,
            shared_before: if start == 0 { 0 } else { overlap },
            shared_after: if end == length { 0 } else { overlap },
        });
        start = if end == length {
            length
        } else {
            start + stride
        };
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_as_drawn() {
        type Row = (usize, usize, usize, &'static [(usize, usize)]);
        let table: [Row; 9] = [
            (0, 10, 4, &[]),
            (1, 10, 4, &[(0, 1)]),
            (10, 10, 4, &[(0, 10)]),
            (11, 10, 4, &[(0, 10), (6, 11)]),
            (16, 10, 4, &[(0, 10), (6, 16)]),
            (22, 10, 4, &[(0, 10), (6, 16), (12, 22)]),
            (25, 10, 0, &[(0, 10), (10, 20), (20, 25)]),
            (3, 1, 0, &[(0, 1), (1, 2), (2, 3)]),
            (21, 10, 5, &[(0, 10), (5, 15), (10, 20), (15, 21)]),
        ];
        for (length, max_length, overlap, want) in table {
            let chunks = chunks(length, max_length, overlap).into_iter();
            let got: Vec<_> = chunks
                .map(|chunk| (chunk.range.start, chunk.range.end))
                .collect();
            assert_eq!(got, want, "{length} {max_length} {overlap}");
        }
    }

    #[test]
    fn weights_of_every_residue_sum_to_one() {
        for length in 1..60 {
            for max_length in 1..20 {
                for overlap in 0..=max_length / 2 {
                    let mut sums = vec![0.0; length];
                    for chunk in chunks(length, max_length, overlap) {
                        assert!(chunk.range.len() <= max_length);
                        for (offset, residue) in chunk.range.clone().enumerate() {
                            sums[residue] += chunk.weight(offset);
                        }
                    }
                    assert_eq!(sums, vec![1.0; length], "{length} {max_length} {overlap}");
                }
            }
        }
    }

    #[test]
    fn lengths_are_compared_with_limits() {
        let limit = |over| Limit::new(10, over).unwrap();
        let chunk = Over::Chunk { overlap: 5 };
        for over in [Over::Error, Over::Skip, Over::Truncate, chunk] {
            assert_eq!(limit(over).fit(10), Fit::Whole);
        }
        assert_eq!(Limit::NONE.fit(35_213), Fit::Whole);
        assert_eq!(limit(Over::Error).fit(11), Fit::TooLong(10));
        assert_eq!(limit(Over::Skip).fit(11), Fit::TooLong(10));
        assert_eq!(limit(Over::Truncate).fit(11), Fit::First(10));
        assert_eq!(limit(chunk).fit(11), Fit::Whole);
        assert_eq!(limit(chunk).chunks(11).len(), 2);
        assert_eq!(limit(Over::Truncate).chunks(11).len(), 1);
        assert_eq!(Limit::NONE.chunks(35_213).len(), 1);
        assert_eq!(Limit::new(0, Over::Error), Err(LimitError::Zero));
        let json = serde_json::to_string(&limit(chunk)).unwrap();
        assert_eq!(json, r#"{"max_length":10,"over":"chunk","overlap":5}"#);
        let wide = Limit::new(10, Over::Chunk { overlap: 6 });
        assert_eq!(
            wide,
            Err(LimitError::Overlap {
                overlap: 6,
                max_length: 10
            })
        );
    }
}
