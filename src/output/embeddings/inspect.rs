//! A summary of an embedding file: columns, lengths, ranges of values, manifest.

use std::path::Path;

use serde::Serialize;

use crate::number::NumberType;
use crate::output::manifest::Manifest;

use super::{Column, EmbeddingError, EmbeddingFormat, EmbeddingReader, EmbeddingRecord, Schema};

/// A summary of one embedding file.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingSummary {
    /// Format of the file.
    pub format: EmbeddingFormat,
    /// Number of proteins.
    pub records: u64,
    /// Residues of all proteins.
    pub residues: u64,
    /// Residues of the shortest and the longest protein; `None` for an empty file.
    pub lengths: Option<(usize, usize)>,
    /// One entry per column, in order.
    pub columns: Vec<ColumnSummary>,
    /// Number type in the file.
    pub dtype: NumberType,
    /// How the embeddings were made.
    pub metadata: Manifest,
}

/// The values of one column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnSummary {
    /// Name, width and kind of the column.
    pub column: Column,
    /// Rows of all proteins.
    pub rows: u64,
    /// Smallest finite value; `None` if there is no finite value.
    pub min: Option<f32>,
    /// Largest finite value, likewise.
    pub max: Option<f32>,
    /// Mean of the finite values.
    pub mean: Option<f64>,
    /// Number of values that are NaN or infinite; other than 0 only for a damaged file.
    pub non_finite: u64,
}

/// Reads and summarises the file `path`.
pub fn inspect(path: &Path) -> Result<EmbeddingSummary, EmbeddingError> {
    observe(path, |_| ())
}

/// As [`inspect`], and calls `look` with every record.
pub fn observe(
    path: &Path,
    mut look: impl FnMut(&EmbeddingRecord),
) -> Result<EmbeddingSummary, EmbeddingError> {
    let reader = EmbeddingReader::open(path)?;
    let Schema {
        columns,
        dtype,
        metadata,
    } = reader.schema().clone();
    let format = reader.format();
    let mut tallies: Vec<Tally> = columns.iter().map(|_| Tally::default()).collect();
    let (mut records, mut residues, mut lengths) = (0, 0, None);
    for record in reader {
        let record = record?;
        look(&record);
        let EmbeddingRecord { length, values, .. } = record;
        records += 1;
        residues += length as u64;
        let (shortest, longest) = lengths.unwrap_or((length, length));
        lengths = Some((length.min(shortest), length.max(longest)));
        for (tally, values) in tallies.iter_mut().zip(&values) {
            tally.add(values);
        }
    }
    let columns = columns
        .into_iter()
        .zip(tallies)
        .map(|(column, tally)| tally.of(column));
    let columns = columns.collect();
    Ok(EmbeddingSummary {
        format,
        records,
        residues,
        lengths,
        columns,
        dtype,
        metadata,
    })
}

#[derive(Default)]
struct Tally {
    finite: u64,
    non_finite: u64,
    sum: f64,
    range: Option<(f32, f32)>,
}

impl Tally {
    fn add(&mut self, values: &[f32]) {
        for &value in values {
            if !value.is_finite() {
                self.non_finite += 1;
                continue;
            }
            let (min, max) = self.range.unwrap_or((value, value));
            self.range = Some((min.min(value), max.max(value)));
            self.finite += 1;
            self.sum += f64::from(value);
        }
    }

    fn of(self, column: Column) -> ColumnSummary {
        ColumnSummary {
            rows: (self.finite + self.non_finite) / column.width as u64,
            column,
            min: self.range.map(|(min, _)| min),
            max: self.range.map(|(_, max)| max),
            mean: (self.finite > 0).then(|| self.sum / self.finite as f64),
            non_finite: self.non_finite,
        }
    }
}
