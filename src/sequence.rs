//! Protein sequences: records, valid letters and the treatment of other letters, ids, length
//! limits.
//!
//! A [`Record`] is the text of a file; a [`Sequence`] is ready for the tokenizer. [`clean`] turns a
//! record into a sequence by a single table and counts its changes. [`Ids`] makes ids unique;
//! [`Limit`] treats long sequences.
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
mod counted;
pub mod digest;
mod ids;
mod length;
mod mask;

use std::sync::Arc;

use thiserror::Error;

use crate::shown::shown;

pub use alphabet::{Changes, Rules, clean, looks_like_nucleotides};
pub use counted::counted;
pub use ids::{Duplicates, IdPart, Ids};
pub use length::{Chunk, Fit, Limit, LimitError, Over, chunks};
pub use mask::{MASK, Masks};

/// The place of a record in its file, for messages such as
/// `proteins.fasta: record 3 (P12345), line 17`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// File name as given; `stdin` for standard input.
    pub file: Arc<str>,
    /// Number of the record in its file, from 1.
    pub record: u64,
    /// Line of the record's header, from 1.
    pub line: u64,
}

/// One FASTA record as read: the header is split at the first blank, and line ends and blanks are
/// removed from the text; nothing else is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// First word of the header; bytes that are not UTF-8 become U+FFFD. Empty for a header without
    /// an id.
    pub id: String,
    /// The original bytes of an id with bytes that are not UTF-8, so that ids that differ only in
    /// such bytes stay different.
    pub raw_id: Option<Vec<u8>>,
    /// The rest of the header, possibly empty.
    pub description: String,
    /// The letters as written: any case, gaps, stops, masks.
    pub text: Vec<u8>,
    /// The place of the record.
    pub origin: Origin,
}

/// A protein ready for the tokenizer: upper-case letters only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The id, unique within a run (see [`Duplicates`]).
    pub id: String,
    /// The rest of the header, possibly empty.
    pub description: String,
    /// Upper-case residues, one byte per residue: the 20 standard ones, `X B U Z O`, and the bytes
    /// that [`Rules`] keeps.
    pub residues: Vec<u8>,
    /// The place of the record.
    pub origin: Origin,
}

/// An invalid record; the records after it can still be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: record {} ({}), line {}: {problem}", .origin.file, .origin.record, shown_id(.id), .origin.line)]
pub struct SequenceError {
    /// The id of the record, possibly empty.
    pub id: String,
    /// The place of the record.
    pub origin: Origin,
    /// Why the record is invalid.
    pub problem: Problem,
}

/// Why a record is invalid. Positions begin with 1 and count the characters of the sequence without
/// blanks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// The record has no residues after gaps, digits and stops are removed.
    #[error("no residues; add the sequence or remove the record")]
    Empty,
    /// The header has no id after `>`.
    #[error("no id after '>'; give the record an id, or let --duplicates suffix make one")]
    NoId,
    /// The id has a control character, which would break outputs whose keys are ids.
    #[error("control character U+{code:04X} in the id; rename the record")]
    ControlInId {
        /// The character's code point.
        code: u32,
    },
    /// An earlier record of the run has the same id.
    #[error(
        "an earlier record has the same id; rename one of them, or choose --duplicates suffix (numbers the later records) \
         or --duplicates first (keeps the first record)"
    )]
    DuplicateId,
    /// A stop `*` before the last residue: two proteins, or a wrong reading frame.
    #[error("stop '*' inside the sequence at position {position}; split or correct the record")]
    InnerStop {
        /// Position of the stop.
        position: usize,
    },
    /// A character that the table does not have.
    #[error(
        "{character} at position {position} is not a residue; correct it, or write X for an unknown residue"
    )]
    OddCharacter {
        /// The character as a message shows it: `'@'`, `'é'`, `byte 0xE9`.
        character: String,
        /// Position of the character.
        position: usize,
    },
    /// A word in brackets that is not a mask, in an input with masks.
    #[error(
        "`{word}` at position {position} is not a mask; write ?, _, #, <mask>, [MASK] or <extra_id_N>"
    )]
    MaskWord {
        /// The word, of which only the beginning if it is long.
        word: String,
        /// Position of the word; each mask before it counts as one character.
        position: usize,
    },
    /// The sequence is longer than the limit, under `--over error` or `--over skip`.
    #[error(
        "{length} residues, more than --max-length {max_length}; raise the limit, or choose \
         another --over"
    )]
    TooLong {
        /// Residues of the sequence.
        length: usize,
        /// The largest allowed number of residues.
        max_length: usize,
    },
    /// The record is too large for a protein and was not kept in memory.
    #[error("more than {limit} characters in one record; is this a FASTA file of proteins?")]
    Oversize {
        /// The largest allowed number of characters.
        limit: usize,
    },
}

fn shown_id(id: &str) -> String {
    if id.is_empty() {
        "no id".to_owned()
    } else {
        shown(id).to_string()
    }
}
