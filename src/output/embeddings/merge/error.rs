//! Why files could not be merged.

use std::io;
use std::path::PathBuf;

use super::super::EmbeddingError;
use crate::output::shards::ShardError;

/// Why files could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Nothing to merge.
    #[error("there are no files to merge")]
    NoInput,
    /// Two files were not made in the same way, or are not all the shards of one run.
    #[error(transparent)]
    Shards(#[from] ShardError),
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
