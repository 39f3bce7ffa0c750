//! Errors of merging.

use std::io;
use std::path::{Path, PathBuf};

use crate::output::embeddings::EmbeddingError;
use crate::sequence::digest::InputDigest;
use crate::shown::shown;

/// Why files could not be merged.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum MergeError {
    /// No file was given.
    #[error("there are no files to merge")]
    NoInput,
    /// Two files were not made in the same way.
    #[error(
        "{} and {} cannot be merged: {} is {} in the first, {} in the second",
        first.display(), second.display(), shown(field), shown(left), shown(right)
    )]
    Mismatch {
        first: PathBuf,
        second: PathBuf,
        /// The key of the manifest, or another word for what differs.
        field: String,
        /// The value in `first`, as JSON.
        left: String,
        /// The value in `second`, as JSON.
        right: String,
    },
    /// Two files were made by kernels that do not give the same bytes.
    #[error(
        "{} and {} cannot be merged: their kernels, {} and {}, do not give the same numbers in {}; make all files on the same kind of device, \
         on CPUs with ANKH3_CPU_ISA=NAME set to an instruction set that all of the machines have (`ankh3 doctor` names it)",
        first.display(), second.display(), shown(left), shown(right), shown(numbers)
    )]
    Kernels {
        first: PathBuf,
        second: PathBuf,
        left: String,
        right: String,
        /// Number types of the run.
        numbers: String,
    },
    /// Two shards were made from different inputs.
    #[error(
        "{} and {} cannot be merged: they were made from different inputs, the first from {}, the second from {}",
        first.display(), second.display(), in_words(left), in_words(right)
    )]
    Inputs {
        first: PathBuf,
        second: PathBuf,
        left: Box<InputDigest>,
        right: Box<InputDigest>,
    },
    /// The `shard` of a file is not `i/n` with 1 ≤ i ≤ n.
    #[error("{}: its shard {} is not of the form i/n with 1 ≤ i ≤ n", path.display(), shown(value))]
    InvalidShard {
        path: PathBuf,
        /// The shard of the file, as JSON.
        value: String,
    },
    /// A shard is not among the files.
    #[error("shard {} is missing; give all {of} files of the run", missing.join(", "))]
    MissingShards {
        /// The missing shards, as `i/n`.
        missing: Vec<String>,
        /// Number of shards of the run.
        of: usize,
    },
    /// Two files are the same shard.
    #[error("{} and {} are both shard {shard}", first.display(), second.display())]
    DuplicateShard {
        first: PathBuf,
        second: PathBuf,
        /// The shard, as `i/n`.
        shard: String,
    },
    /// A shard has fewer sequences than the other shards.
    #[error(
        "{} ends after {sequences} records, but {} has more: one of the two is not complete; run that shard again (or with \
         --resume)",
        short.display(), long.display()
    )]
    Incomplete {
        /// The file that has ended.
        short: PathBuf,
        /// Number of sequences in `short`.
        sequences: u64,
        /// A file with more sequences.
        long: PathBuf,
    },
    /// Two sequences have the same id.
    #[error("{}: the id `{}` is already in {}", path.display(), shown(id), before.display())]
    DuplicateId {
        /// The later file with the id.
        path: PathBuf,
        id: String,
        /// The first file with the id.
        before: PathBuf,
    },
    /// The manifest of a shard lacks the number of rows of each sequence.
    #[error("{}.json does not have the number of rows of each sequence (rows_per_sequence), without which shards cannot be merged; make the shard again", path.display())]
    NoRows { path: PathBuf },
    /// A line that is not a row of the file's format.
    #[error("{}: `{}` is not a row of this kind of file; the file was changed after it was written", path.display(), shown(row))]
    NotARow { path: PathBuf, row: String },
    /// A text file that ends in the middle of a row.
    #[error("{}: the last line has no line break, so the file is truncated; make it again", path.display())]
    CutOff { path: PathBuf },
    /// A text file has more or fewer rows than its manifest says.
    #[error("{}: the file has {found} rows, but {written} according to {}.json; the two do not belong together, make the file again", path.display(), path.display())]
    Count {
        path: PathBuf,
        /// Rows in the file.
        found: u64,
        /// Rows according to the manifest.
        written: u64,
    },
    /// A text file or its manifest could not be read.
    #[error("{}: {source}", path.display())]
    ReadText { path: PathBuf, source: io::Error },
    /// An embedding file could not be read.
    #[error(transparent)]
    ReadEmbeddings(#[from] EmbeddingError),
    /// The merged file could not be written.
    #[error("could not write the merged file: {0}")]
    Write(#[from] io::Error),
}

impl MergeError {
    /// The error for two files that differ in `field`.
    pub(super) fn mismatch(
        first: &Path,
        second: &Path,
        field: &str,
        left: String,
        right: String,
    ) -> Self {
        MergeError::Mismatch {
            first: first.to_owned(),
            second: second.to_owned(),
            field: field.to_owned(),
            left,
            right,
        }
    }
}

fn in_words(input: &InputDigest) -> String {
    let InputDigest {
        sha256,
        records,
        residues,
    } = input;
    let start: String = sha256.chars().take(12).collect();
    let start = shown(&start);
    format!("{records} sequences of {residues} residues (sha256 {start}…)")
}
