//! Why files could not be merged.

use std::io;
use std::path::PathBuf;

use super::super::EmbeddingError;

/// Why files could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Nothing to merge.
    #[error("there are no files to merge")]
    NoInput,
    /// Two files were not made in the same way.
    #[error(
        "{} and {} cannot be merged: {field} is {left} in the first, {right} in the second",
        first.display(), second.display()
    )]
    Mismatch {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// `columns`, `dtype` or the key of the metadata.
        field: String,
        /// Its value in `first`, as JSON.
        left: String,
        /// Its value in `second`, as JSON.
        right: String,
    },
    /// A file's `shard` is not `i/n` with 1 ≤ i ≤ n.
    #[error("{}: its shard {value} is not of the form i/n with 1 ≤ i ≤ n", path.display())]
    BadShard {
        /// The file.
        path: PathBuf,
        /// What it says, as JSON.
        value: String,
    },
    /// A shard is not among the files.
    #[error("shard {} is missing; give all {of} files of the run", missing.join(", "))]
    MissingShards {
        /// Those that are missing, as `i/n`.
        missing: Vec<String>,
        /// Shards in the run.
        of: usize,
    },
    /// Two files are the same shard.
    #[error("{} and {} are both shard {shard}", first.display(), second.display())]
    DuplicateShard {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// `i/n`.
        shard: String,
    },
    /// A shard has fewer records than the others promise.
    #[error(
        "{} ends after {records} records, but {} goes on: one of the two is not complete; rerun it \
         (or its --resume)",
        short.display(), long.display()
    )]
    Incomplete {
        /// The file that ended.
        short: PathBuf,
        /// Its records.
        records: u64,
        /// A file with a record that should not be there.
        long: PathBuf,
    },
    /// An id came twice.
    #[error("{}: the id {id:?} came before, in {}", path.display(), before.display())]
    DuplicateId {
        /// The file in which it came again.
        path: PathBuf,
        /// The id.
        id: String,
        /// The first of the files that have it.
        before: PathBuf,
    },
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] EmbeddingError),
    /// The merged file could not be written.
    #[error("could not write the merged file: {0}")]
    Write(#[from] io::Error),
}
