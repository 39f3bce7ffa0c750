//! What the manifest of a FASTA file or table says of its layout, so that the files of shards can be put together again.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::output::shards::SHARD;
use crate::output::table::TableFormat;

/// The manifest's key of [`TextFormat`].
pub(super) const FORMAT: &str = "format";
/// The manifest's key of [`RowCounts`], of shards only.
pub(super) const ROWS: &str = "rows_per_sequence";

/// What the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextFormat {
    /// FASTA records.
    Fasta,
    /// Lines of tab-separated cells after a header.
    Tsv,
    /// Lines of comma-separated cells after a header.
    Csv,
    /// JSON objects, one a line.
    Jsonl,
    /// Contact lists in CASP's RR format, one block of lines per protein.
    Rr,
}

impl From<TableFormat> for TextFormat {
    fn from(format: TableFormat) -> Self {
        match format {
            TableFormat::Tsv => TextFormat::Tsv,
            TableFormat::Csv => TextFormat::Csv,
            TableFormat::Jsonl => TextFormat::Jsonl,
        }
    }
}

/// How many rows each sequence has, in order: runs of equal numbers, `[rows, sequences]` each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowCounts(Vec<(u64, u64)>);

impl RowCounts {
    /// Appends a sequence.
    pub fn push(&mut self, rows: u64) {
        match self.0.last_mut() {
            Some((last, sequences)) if *last == rows => *sequences += 1,
            _ => self.0.push((rows, 1)),
        }
    }

    /// Sequences in all.
    pub fn sequences(&self) -> u64 {
        self.0.iter().map(|(_, sequences)| sequences).sum()
    }

    /// The numbers, one a sequence.
    pub fn iter(&self) -> impl Iterator<Item = u64> + use<> {
        let runs = self.0.clone().into_iter();
        runs.flat_map(|(rows, sequences)| (0..sequences).map(move |_| rows))
    }
}

/// The layout of a file that is being written.
#[derive(Clone, Debug)]
pub struct Layout {
    format: TextFormat,
    rows: RowCounts,
    open: u64,
}

impl Layout {
    /// Nothing is written yet.
    pub fn new(format: TextFormat) -> Self {
        Layout {
            format,
            rows: RowCounts::default(),
            open: 0,
        }
    }

    /// Rows of the present sequence were written.
    pub fn add(&mut self, rows: u64) {
        self.open += rows;
    }

    /// The present sequence has no further rows; also to be called of sequences that have none at all.
    pub fn close_sequence(&mut self) {
        self.rows.push(std::mem::take(&mut self.open));
    }

    /// Adds the format, and of a shard the rows of each sequence, to how a file was made.
    pub fn describe(&self, manifest: &mut Map<String, Value>) {
        manifest.insert(FORMAT.to_owned(), json!(self.format));
        if manifest.contains_key(SHARD) {
            manifest.insert(ROWS.to_owned(), json!(self.rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shards_tell_their_rows() {
        let mut layout = Layout::new(TextFormat::Tsv);
        for rows in [19, 19, 0, 38] {
            layout.add(rows);
            layout.close_sequence();
        }
        let mut whole = Map::new();
        layout.describe(&mut whole);
        assert_eq!(Value::Object(whole), json!({"format": "tsv"}));
        let mut shard = Map::new();
        shard.insert(SHARD.to_owned(), json!("1/2"));
        layout.describe(&mut shard);
        assert_eq!(shard[ROWS], json!([[19, 2], [0, 1], [38, 1]]));
        let counts: RowCounts = serde_json::from_value(shard[ROWS].clone()).unwrap();
        assert_eq!(counts.iter().collect::<Vec<_>>(), [19, 19, 0, 38]);
        assert_eq!(counts.sequences(), 4);
    }
}
