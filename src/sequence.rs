//! Protein sequences: what a record is, which letters are residues, and what becomes of odd ones.

use std::sync::Arc;

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
    /// First word of the header.
    pub id: String,
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
    /// Unique within a run (see `--duplicates`).
    pub id: String,
    /// The rest of the header, possibly empty.
    pub description: String,
    /// Upper-case residues, one byte each: the 20 standard ones and `X B U Z O`.
    pub residues: Vec<u8>,
    /// Where it was read.
    pub origin: Origin,
}
