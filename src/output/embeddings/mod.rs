//! Embeddings on their way to a file and back.
//!
//! One file a format, each with the layout it writes at its head: [`tsv`], [`jsonl`], [`npy`],
//! [`npz`], [`h5`], [`safetensors`], [`parquet`], [`arrow`]. All formats have in common:
//!
//! - [`EmbeddingWriter`] takes [`EmbeddingRecord`]s in order, [`EmbeddingReader`] gives them back in that order.
//!   Reading a file and writing its records with the same [`Schema`] gives the same bytes.
//! - The same records and schema give the same bytes: no clock, no hash order, no host name.
//! - Memory does not grow with the values written. Formats that look values up by id (npz, h5,
//!   safetensors) keep the ids and a few numbers for each: about 0.3 KB per protein, in h5 3 KB.
//! - A file appears under its name only when it is complete ([`Destination`]).
//! - The schema travels in the file, or beside it as `FILE.json` for tsv, jsonl and npy.
//!
//! [`inspect`] sums up what a file holds.

use std::collections::HashSet;
use std::io;

use crate::number::NumberType;
use serde::{Deserialize, Serialize};
pub mod arrow;
mod destination;
mod error;
mod format;
pub mod h5;
pub mod inspect;
pub mod jsonl;
pub mod npy;
pub mod npz;
mod numbers;
pub mod parquet;
mod reader;
mod record_batch;
pub mod safetensors;
pub mod tsv;
mod writer;

use super::manifest::Manifest;
pub use destination::remove_unfinished;
pub use error::EmbeddingError;
pub use format::EmbeddingFormat;
pub use reader::EmbeddingReader;
pub use writer::EmbeddingWriter;

/// One output of the run: a layer pooled in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// `per_residue`, `mean`, …; with several layers `layer_12/mean`. Not `id`, `length` or
    /// `position`: tables have columns of those names.
    pub name: String,
    /// Values per row.
    pub width: usize,
    /// One row per protein or one row per residue.
    pub rows: RowKind,
}

impl Column {
    /// The number of rows that a protein of `length` residues has in this column.
    pub fn rows_of(&self, length: usize) -> usize {
        match self.rows {
            RowKind::PerSequence => 1,
            RowKind::PerResidue => length,
            RowKind::PerPair => length * length,
        }
    }

    /// Shape of the array that a protein of `length` residues has: `(width)`, `(length, width)`, or of pairs `(length, length)`.
    pub fn shape(&self, length: usize) -> Vec<usize> {
        match self.rows {
            RowKind::PerSequence => vec![self.width],
            RowKind::PerResidue => vec![length, self.width],
            RowKind::PerPair if self.width == 1 => vec![length, length],
            RowKind::PerPair => vec![length, length, self.width],
        }
    }
}

/// How many rows a protein has in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// Exactly one.
    PerSequence,
    /// Exactly as many as the protein has residues.
    PerResidue,
    /// One for each ordered pair of residues, the first residue's one after the other: contact maps. In npz, h5 and safetensors.
    PerPair,
}

/// The columns of a file and how they were made.
///
/// Its JSON form (`{"columns": …, "dtype": …, "metadata": …}`) is what stands in a file's metadata
/// under the key `ankh3`, or in `FILE.json` beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// In the order of each record's `values`.
    pub columns: Vec<Column>,
    /// Number type in the file.
    pub dtype: NumberType,
    /// How the embeddings were made.
    pub metadata: Manifest,
}

/// The metadata key under which a file carries its [`Schema`].
const SCHEMA_KEY: &str = "ankh3";

impl Schema {
    /// The schema on one line of JSON.
    fn to_json(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// What identifies a run before it begins, as one line of JSON: the key of its journal.
    ///
    /// # Errors
    /// None that can happen: every value is JSON already.
    pub fn journal_key(&self) -> io::Result<String> {
        let begun = Schema {
            metadata: Manifest {
                settings_sha256: None,
                ..self.metadata.before_records()
            },
            ..self.clone()
        };
        begun.to_json()
    }

    /// The schema before the first record: the manifest has neither the digest of the input nor the number of records.
    fn before_records(&self) -> Self {
        Schema {
            metadata: self.metadata.before_records(),
            ..self.clone()
        }
    }

    /// A schema whose JSON is as long as that of the complete file can be.
    fn longest(&self) -> Self {
        Schema {
            metadata: self.metadata.longest(),
            ..self.clone()
        }
    }

    /// Reads what [`Self::to_json`] wrote; keys it does not know are left alone.
    fn from_json(text: &str) -> io::Result<Self> {
        serde_json::from_str(text).map_err(|error| {
            error::invalid_data(format!(
                "its `{SCHEMA_KEY}` metadata is not a schema: {error}"
            ))
        })
    }

    /// About how many bytes a file of that many proteins and residues has.
    pub fn estimated_size(&self, format: EmbeddingFormat, proteins: u64, residues: u64) -> u64 {
        let rows = |column: &Column| match column.rows {
            RowKind::PerSequence => proteins,
            RowKind::PerResidue => residues,
            // Of proteins that are all as long as their mean: too few, as longer ones count more.
            RowKind::PerPair => residues * (residues / proteins.max(1)),
        };
        let values = self
            .columns
            .iter()
            .map(|c| rows(c) * c.width as u64)
            .sum::<u64>();
        let bytes_a_value = match (format, self.dtype) {
            // The shortest digits that give the number back, and a separator.
            (EmbeddingFormat::Tsv | EmbeddingFormat::Jsonl, NumberType::F32) => 12,
            (EmbeddingFormat::Tsv | EmbeddingFormat::Jsonl, _) => 11,
            (_, dtype) => dtype.size() as u64,
        };
        values * bytes_a_value
    }

    /// True when all columns are pooled: then no column has as many rows as the protein has residues.
    fn only_pooled(&self) -> bool {
        self.columns
            .iter()
            .all(|column| column.rows == RowKind::PerSequence)
    }

    /// Refuses column sets that no format could write.
    fn check(&self) -> io::Result<()> {
        let mut seen = HashSet::new();
        if self.columns.is_empty() {
            return Err(error::invalid_input("there is no column to write".into()));
        }
        for Column { name, width, .. } in &self.columns {
            if name.is_empty() || matches!(name.as_str(), "id" | "length" | "position") {
                return Err(error::invalid_input(format!(
                    "a column cannot be called {name:?}"
                )));
            }
            if *width == 0 {
                return Err(error::invalid_input(format!(
                    "column {name:?} has no values"
                )));
            }
            if !seen.insert(name) {
                return Err(error::invalid_input(format!(
                    "two columns are called {name:?}"
                )));
            }
        }
        Ok(())
    }

    /// Refuses a record whose blocks are not of this schema's shapes.
    fn check_record(&self, record: &EmbeddingRecord) -> io::Result<()> {
        if record.id.is_empty() {
            return Err(error::invalid_data("the id is empty".into()));
        }
        if record.length == 0 {
            return Err(error::invalid_data("the protein has no residues".into()));
        }
        if record.values.len() != self.columns.len() {
            return Err(error::invalid_data(format!(
                "{} blocks of values for {} columns",
                record.values.len(),
                self.columns.len()
            )));
        }
        for (column, values) in self.columns.iter().zip(&record.values) {
            let shape = column.shape(record.length);
            if values.len() != shape.iter().product::<usize>() {
                return Err(error::invalid_data(format!(
                    "column {:?} has {} values, which is not the shape {shape:?}",
                    column.name,
                    values.len()
                )));
            }
        }
        Ok(())
    }
}

/// One protein's embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingRecord {
    /// Unique in the file, never empty.
    pub id: String,
    /// Residues in the protein, at least one.
    pub length: usize,
    /// One row-major `(rows, width)` block per column.
    pub values: Vec<Vec<f32>>,
}
