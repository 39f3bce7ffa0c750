//! A run's result files as one HTML page that needs nothing else: tables, histograms, contact maps, and how each file was made.
//!
//! [`read::source`] recognises a file by what is in it, [`page::render`] writes the page. The same files give the same bytes: no clock, no host name.
//! Charts are SVG inside the page; there is no script, so that the page opens anywhere and can be archived.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use crate::input::fasta::InputError;
use crate::output::embeddings::EmbeddingError;
use crate::output::embeddings::inspect::EmbeddingSummary;

mod chart;
pub mod contacts;
mod map;
pub mod numbers;
pub mod page;
pub mod read;
pub mod sequences;
pub mod table;
pub mod training;

pub use contacts::ContactList;
pub use sequences::Written;
pub use table::PlainTable;
pub use training::Training;

/// Why a page cannot be made.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A file that cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that is not what the file's first lines promised.
    #[error("{}, line {line}: {what}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing that a report can show.
    #[error(
        "{}: not a result that a report can show; it reads embeddings, FASTA, tables of scores, sites and contacts (tsv, jsonl), contacts (CASP RR), \
         a training run's log.jsonl, recipes (toml) and the .json files beside results",
        .0.display()
    )]
    Unknown(PathBuf),
    /// A damaged embedding file.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingError),
    /// Damaged FASTA.
    #[error(transparent)]
    Fasta(#[from] InputError),
    /// The drawing library's words.
    #[error("drawing: {0}")]
    Drawing(String),
}

impl ReportError {
    fn line(path: &Path, line: u64, what: impl Into<String>) -> Self {
        ReportError::Line {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

/// One file of a run.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name as given.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Of the whole file, in hexadecimal.
    pub sha256: String,
    /// How it was made: its metadata, or the `.json` beside it.
    pub provenance: Option<Value>,
    /// What is in it.
    pub content: Content,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// Embeddings: what [`inspect`](super::embeddings::inspect) tells, and each protein's id and length.
    Embeddings(Box<EmbeddingSummary>, Vec<(String, usize)>),
    /// FASTA, with the numbers of its headers where `ankh3 complete` wrote it.
    Sequences(Vec<Written>),
    /// Contacts, an entry a protein.
    Contacts(Vec<ContactList>),
    /// A table of scores, sites or anything else.
    Table(PlainTable),
    /// The log of a training run.
    Training(Training),
    /// A recipe, as written.
    Recipe(String),
    /// A `.json` file that lies beside no file of the report.
    Manifest,
}

impl Content {
    /// What the page calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Content::Embeddings(..) => "embeddings",
            Content::Sequences(_) => "sequences",
            Content::Contacts(_) => "contacts",
            Content::Table(_) => "table",
            Content::Training(_) => "training log",
            Content::Recipe(_) => "recipe",
            Content::Manifest => "provenance",
        }
    }
}

/// How much of it is shown; what is left out is said on the page.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of a table.
    pub rows: usize,
    /// Contact maps.
    pub maps: usize,
}
