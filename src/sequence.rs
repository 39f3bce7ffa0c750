//! Protein sequences: what a record is, which letters are residues, and what becomes of odd ones.
//!
//! A [`Record`] is what a file says, a [`Sequence`] is what the tokenizer may see. [`clean`] leads from the one to the
//! other by a single table and counts what it changed; [`Ids`] keeps ids unique; [`Limit`] says what becomes of a long one.
//!
//! ```
//! use ankh3::sequence::{Origin, Record, Rules, clean};
//!
//! let origin = Origin { file: "a.fasta".into(), record: 1, line: 1 };
//! let record = Record {
//!     id: "P12345".to_owned(),
//!     raw_id: None,
//!     description: String::new(),
//!     text: b"mk-jv*".to_vec(),
//!     origin,
//! };
//! let (sequence, changes) = clean(record, &Rules::default())?;
//! assert_eq!(sequence.residues, b"MKXV");
//! assert_eq!((changes.gaps, changes.replaced, changes.stops), (1, 1, 1));
//! # Ok::<(), ankh3::sequence::SequenceError>(())
//! ```

mod alphabet;
pub mod digest;
mod ids;
mod length;
mod mask;

use std::sync::Arc;

use thiserror::Error;

pub use alphabet::{Changes, Rules, clean, looks_like_nucleotides};
pub use ids::{Duplicates, Ids};
pub use length::{Chunk, Fit, Limit, LimitError, Over, chunks};
pub use mask::{MASK, Masks};

/// Where a record came from, for messages: `proteins.fasta: record 3 (P12345), line 17`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// File name as the user gave it; `stdin` for standard input.
    pub file: Arc<str>,
    /// 1-based number of the record in its file.
    pub record: u64,
    /// 1-based line of the record's header.
    pub line: u64,
}

/// One FASTA record as it was read: the header split at the first blank, the text with line ends and blanks removed, nothing else changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// First word of the header; bytes that are no UTF-8 read as U+FFFD. Empty after a bare `>`.
    pub id: String,
    /// The bytes of the id where `id` could not keep them: two ids that differ only in such bytes stay two.
    pub raw_id: Option<Vec<u8>>,
    /// The rest of the header, possibly empty.
    pub description: String,
    /// Letters as written: any case, gaps, stops, masks.
    pub text: Vec<u8>,
    /// Where it was read.
    pub origin: Origin,
}

/// A protein ready for the tokenizer: upper-case letters only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Unique within a run (see [`Duplicates`]).
    pub id: String,
    /// The rest of the header, possibly empty.
    pub description: String,
    /// Upper-case residues, one byte each: the 20 standard ones and `X B U Z O` (and whatever [`Rules`] lets through).
    pub residues: Vec<u8>,
    /// Where it was read.
    pub origin: Origin,
}

/// One record that cannot be used; the records after it still can.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: record {} ({}), line {}: {problem}", .origin.file, .origin.record, shown(.id), .origin.line)]
pub struct SequenceError {
    /// The record's id, possibly empty.
    pub id: String,
    /// Where it was read.
    pub origin: Origin,
    /// What was wrong.
    pub problem: Problem,
}

/// What can be wrong with one record. Positions are 1-based and count the characters of the sequence without its blanks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Nothing is left after gaps, digits and stops are gone.
    #[error("no residues; give the record its sequence or remove it")]
    Empty,
    /// A bare `>`.
    #[error("no id after '>'; name the record, or let --duplicates suffix make up a name")]
    NoId,
    /// A control character in the id would break every output that is keyed by it.
    #[error("control character U+{code:04X} in the id; rename the record")]
    ControlInId {
        /// The character's code point.
        code: u32,
    },
    /// The id was used before in this run.
    #[error(
        "its id was used before; rename it, or choose --duplicates suffix (numbers the later ones) \
         or --duplicates first (keeps the first)"
    )]
    DuplicateId,
    /// `*` before the last residue: two proteins, or a wrong reading frame.
    #[error("stop '*' inside the sequence at position {position}; split or correct the record")]
    InnerStop {
        /// 1-based.
        position: usize,
    },
    /// A character outside the table.
    #[error(
        "{character} at position {position} is no residue; correct it, or write X for an unknown residue"
    )]
    OddCharacter {
        /// The character as a message shows it: `'@'`, `'é'`, `byte 0xE9`.
        character: String,
        /// 1-based.
        position: usize,
    },
    /// A word in brackets that is no mask, where masks are read.
    #[error(
        "`{word}` at position {position} is no mask; write ?, _, #, <mask>, [MASK] or <extra_id_N>"
    )]
    MaskWord {
        /// The word, cut where it is too long for one.
        word: String,
        /// 1-based; a mask before it counts as one.
        position: usize,
    },
    /// Longer than the limit, and the limit is an error or a skip.
    #[error(
        "{length} residues, more than --max-length {max_length}; raise the limit, or choose \
         another --over"
    )]
    TooLong {
        /// Residues of the sequence.
        length: usize,
        /// Residues allowed.
        max_length: usize,
    },
    /// So large that it cannot be a protein; it was not kept in memory.
    #[error("more than {limit} characters in one record; is this a FASTA file of proteins?")]
    Oversize {
        /// Characters allowed.
        limit: usize,
    },
}

fn shown(id: &str) -> &str {
    if id.is_empty() { "no id" } else { id }
}
