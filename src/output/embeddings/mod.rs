//! Embeddings on their way to a file and back.
//!
//! One file a format, each with the layout it writes at its head: [`tsv`], [`jsonl`], [`npy`],
//! [`npz`], [`h5`], [`safetensors`], [`parquet`], [`arrow`]. What they share:
//!
//! - [`Writer`] takes [`EmbeddingRecord`]s in order, [`Reader`] gives them back in that order.
//!   Reading a file and writing its records with the same [`Schema`] gives the same bytes.
//! - The same records and schema give the same bytes: no clock, no hash order, no host name.
//! - Memory does not grow with the values written. Formats that look values up by id (npz, h5,
//!   safetensors) keep the ids and a few numbers for each: about 0.3 KB a protein, in h5 3 KB.
//! - A file appears under its name only when it is complete ([`Destination`]).
//! - The schema travels in the file, or beside it as `FILE.json` for tsv, jsonl and npy.
//!
//! [`merge`] joins the files of several runs, [`inspect`] tells what a file holds.

use std::collections::HashSet;
use std::io;

use crate::number::NumberType;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub mod arrow;
mod destination;
mod error;
mod format;
pub mod h5;
pub mod inspect;
pub mod jsonl;
pub mod merge;
pub mod npy;
pub mod npz;
mod numbers;
pub mod parquet;
mod reader;
mod record_batch;
pub mod safetensors;
pub mod tsv;
mod writer;

pub use destination::{Destination, remove_unfinished};
pub use error::EmbeddingError;
pub use format::Format;
pub use reader::Reader;
pub use writer::Writer;

/// One output of the run: a layer pooled in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// `per_residue`, `mean`, …; with several layers `layer_12/mean`. Not `id`, `length` or
    /// `position`: tables have columns of those names.
    pub name: String,
    /// Values a row.
    pub width: usize,
    /// One row a protein or one row a residue.
    pub rows: Rows,
}

impl Column {
    /// Rows that a protein of `length` residues has in this column.
    pub fn rows_of(&self, length: usize) -> usize {
        match self.rows {
            Rows::PerSequence => 1,
            Rows::PerResidue => length,
            Rows::PerPair => length * length,
        }
    }

    /// Shape of the array that a protein of `length` residues has: `(width)`, `(length, width)`, or of pairs `(length, length)`.
    pub fn shape(&self, length: usize) -> Vec<usize> {
        match self.rows {
            Rows::PerSequence => vec![self.width],
            Rows::PerResidue => vec![length, self.width],
            Rows::PerPair if self.width == 1 => vec![length, length],
            Rows::PerPair => vec![length, length, self.width],
        }
    }
}

/// How many rows a protein has in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// Exactly one.
    PerSequence,
    /// Exactly as many as the protein has residues.
    PerResidue,
    /// One for each ordered pair of residues, the first residue's one after the other: contact maps. In npz, h5 and safetensors.
    PerPair,
}

/// What a file holds: its columns and how they were made.
///
/// Its JSON form (`{"columns": …, "dtype": …, "metadata": …}`) is what stands in a file's metadata
/// under the key `ankh3`, or in `FILE.json` beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// In the order of each record's `values`.
    pub columns: Vec<Column>,
    /// Number type in the file.
    pub dtype: NumberType,
    /// Provenance: model, revision, prefix, layers, pooling, dtype, device, version, …. Its order
    /// is kept. `shard` (`"i/n"`, 1-based) marks one part of a run; see [`merge`].
    pub metadata: Map<String, Value>,
}

/// The metadata key under which a file carries its [`Schema`].
const SCHEMA_KEY: &str = "ankh3";

impl Schema {
    /// The schema on one line of JSON.
    fn to_json(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)?)
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
    pub fn estimated_size(&self, format: Format, proteins: u64, residues: u64) -> u64 {
        let rows = |column: &Column| match column.rows {
            Rows::PerSequence => proteins,
            Rows::PerResidue => residues,
            // Of proteins that are all as long as their mean: too few, as longer ones count more.
            Rows::PerPair => residues * (residues / proteins.max(1)),
        };
        let values = self
            .columns
            .iter()
            .map(|c| rows(c) * c.width as u64)
            .sum::<u64>();
        let bytes_a_value = match (format, self.dtype) {
            // The shortest digits that give the number back, and a separator.
            (Format::Tsv | Format::Jsonl, NumberType::F32) => 12,
            (Format::Tsv | Format::Jsonl, _) => 11,
            (_, dtype) => dtype.size() as u64,
        };
        values * bytes_a_value
    }

    /// True when no column's rows tell how long a protein is.
    fn only_pooled(&self) -> bool {
        self.columns
            .iter()
            .all(|column| column.rows == Rows::PerSequence)
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
    /// One row-major `(rows, width)` block a column.
    pub values: Vec<Vec<f32>>,
}
