//! Writing and reading files of embeddings.
//!
//! Each format has a module that begins with its layout: [`tsv`], [`jsonl`], [`npy`], [`npz`],
//! [`h5`], [`safetensors`], [`parquet`], [`arrow`]. All formats have in common:
//!
//! - [`EmbeddingWriter`] takes [`EmbeddingRecord`]s in order, and [`EmbeddingReader`] returns them
//!   in this order. Reading a file and writing its records with the same [`Schema`] gives the same
//!   bytes.
//! - The same records and schema give the same bytes: no clock, no hash order, no host name.
//! - Memory does not grow with the values written. Formats with a directory of ids (npz, h5,
//!   safetensors) keep the ids and a few numbers per protein: about 0.3 KB, in h5 3 KB.
//! - A file appears under its name only when it is complete.
//! - The schema is in the file; for tsv, jsonl and npy it is beside the file as `FILE.json`.
//!
//! [`inspect`] summarises a file.

use std::collections::HashSet;
use std::io;

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::number::NumberType;

pub mod arrow;
mod codec;
mod destination;
mod error;
mod format;
mod guarded;
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

pub use destination::remove_unfinished;
pub use error::EmbeddingError;
pub use format::EmbeddingFormat;
pub use reader::EmbeddingReader;
pub use writer::EmbeddingWriter;

/// A column of embeddings: one layer, pooled in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name: `per_residue`, `mean`, …; with several layers `layer_12/mean`. The names `id`,
    /// `length` and `position` are not allowed, because tables have columns with these names.
    pub name: String,
    /// Values per row.
    pub width: usize,
    /// The number of rows that a protein has.
    pub rows: RowKind,
}

impl Column {
    /// The number of rows that a protein of `length` residues has in this column.
    pub fn rows_of(&self, length: usize) -> usize {
        match self.rows {
            RowKind::PerSequence => 1,
            RowKind::PerResidue => length,
            RowKind::PerPair => length.saturating_mul(length),
        }
    }

    /// Shape of the array of a protein with `length` residues: `(width)`, `(length, width)`, or
    /// `(length, length)` for pairs.
    pub fn shape(&self, length: usize) -> Vec<usize> {
        match self.rows {
            RowKind::PerSequence => vec![self.width],
            RowKind::PerResidue => vec![length, self.width],
            RowKind::PerPair if self.width == 1 => vec![length, length],
            RowKind::PerPair => vec![length, length, self.width],
        }
    }
}

/// The number of rows that a protein has in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// One row per protein.
    PerSequence,
    /// One row per residue.
    PerResidue,
    /// One row per ordered pair of residues, as in contact maps: first all pairs of the first
    /// residue. Only in npz, h5 and safetensors.
    PerPair,
}

/// The columns of a file and how they were made.
///
/// As JSON (`{"columns": …, "dtype": …, "metadata": …}`), the schema is in the metadata of a file
/// under the key `ankh3`, or in `FILE.json` beside the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// The columns, in the order of the `values` of a record.
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

    /// The identity of a run before its first record, as one line of JSON: the key of its journal.
    ///
    /// # Errors
    /// None in practice, because every value is JSON already.
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

    /// The schema before the first record: its manifest has neither the digest of the input nor the
    /// number of records.
    fn before_records(&self) -> Self {
        Schema {
            metadata: self.metadata.before_records(),
            ..self.clone()
        }
    }

    /// A schema whose JSON is at least as long as the JSON of the complete file.
    fn longest(&self) -> Self {
        Schema {
            metadata: self.metadata.longest(),
            ..self.clone()
        }
    }

    /// Reads the JSON of [`Self::to_json`]; unknown keys are kept.
    fn from_json(text: &str) -> io::Result<Self> {
        serde_json::from_str(text).map_err(|error| {
            error::invalid_data(format!(
                "the metadata `{SCHEMA_KEY}` is not a schema: {error}"
            ))
        })
    }

    /// The approximate size in bytes of a file with `proteins` proteins and `residues` residues.
    pub fn estimated_size(&self, format: EmbeddingFormat, proteins: u64, residues: u64) -> u64 {
        let rows = |column: &Column| match column.rows {
            RowKind::PerSequence => proteins,
            RowKind::PerResidue => residues,
            // As if all proteins had the mean length. This is too low, because the long ones have
            // many more pairs.
            RowKind::PerPair => residues * (residues / proteins.max(1)),
        };
        let values = self
            .columns
            .iter()
            .map(|c| rows(c) * c.width as u64)
            .sum::<u64>();
        let bytes_per_value = match (format, self.dtype) {
            // The shortest digits that read back as the same number, and a separator.
            (EmbeddingFormat::Tsv | EmbeddingFormat::Jsonl, NumberType::F32) => 12,
            (EmbeddingFormat::Tsv | EmbeddingFormat::Jsonl, _) => 11,
            (_, dtype) => dtype.size() as u64,
        };
        values * bytes_per_value
    }

    /// True if all columns are pooled, so that no column shows the length of a protein.
    fn only_pooled(&self) -> bool {
        self.columns
            .iter()
            .all(|column| column.rows == RowKind::PerSequence)
    }

    /// Rejects sets of columns that no format can hold.
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

    /// Rejects a record whose values do not have the shapes of this schema.
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

/// The embeddings of one protein.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingRecord {
    /// The id, unique in the file and not empty.
    pub id: String,
    /// Number of residues, at least one.
    pub length: usize,
    /// One row-major `(rows, width)` block per column.
    pub values: Vec<Vec<f32>>,
}
