//! Errors of reading and showing results.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::charts::canvas::DrawingError;
use crate::input::fasta::InputError;
use crate::output::embeddings::EmbeddingError;
use crate::output::merge::MergeError;

/// Why a page or a picture of results cannot be made.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum ReportError {
    /// A file that cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A line that does not fit the first lines of its file.
    #[error("{}, line {line}: {what}", path.display())]
    Line {
        path: PathBuf,
        /// The line's number, from 1.
        line: u64,
        what: String,
    },
    /// A file whose content the report does not know.
    #[error(
        "{}: not a result that a report can show; it reads embeddings, FASTA, tables of scores, sites, contacts and \
         evaluations (tsv, csv, jsonl), contacts (CASP RR), a training run's log.jsonl, recipes (toml) and the .json \
         files beside results",
        .0.display()
    )]
    Unknown(PathBuf),
    /// A damaged embedding file.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingError),
    /// A text file that does not have the rows of its manifest.
    #[error(transparent)]
    Incomplete(Box<MergeError>),
    /// Damaged FASTA.
    #[error(transparent)]
    Fasta(#[from] InputError),
    /// A chart that cannot be drawn.
    #[error(transparent)]
    Drawing(#[from] DrawingError),
}

impl From<MergeError> for ReportError {
    fn from(error: MergeError) -> Self {
        ReportError::Incomplete(Box::new(error))
    }
}

impl ReportError {
    pub(super) fn line(path: &Path, line: u64, what: impl Into<String>) -> Self {
        ReportError::Line {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}
