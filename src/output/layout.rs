//! The layout of a text file: its format and the number of rows of each sequence, so that the files
//! of shards can be merged.

use serde::{Deserialize, Serialize};

/// The format of a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextFormat {
    /// FASTA records.
    Fasta,
    /// Lines of tab-separated cells after a header.
    Tsv,
    /// Lines of comma-separated cells after a header.
    Csv,
    /// JSON objects, one per line.
    Jsonl,
    /// Contact lists in CASP's RR format, one block of lines per protein.
    Rr,
}

/// The number of rows of each sequence, in order: runs of equal numbers, each as
/// `[rows, sequences]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowCounts(Vec<(u64, u64)>);

impl RowCounts {
    fn push(&mut self, rows: u64) {
        match self.0.last_mut() {
            Some((last, sequences)) if *last == rows => *sequences += 1,
            _ => self.0.push((rows, 1)),
        }
    }

    /// Rows of all sequences; `None` if the sum overflows, as in a damaged file.
    pub fn total(&self) -> Option<u64> {
        self.0.iter().try_fold(0_u64, |total, (rows, sequences)| {
            total.checked_add(rows.checked_mul(*sequences)?)
        })
    }

    /// The number of rows of each sequence.
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
    total: u64,
    /// Rows of the current sequence, which is not closed yet.
    open: u64,
}

impl Layout {
    /// The layout of a file without rows.
    pub fn new(format: TextFormat) -> Self {
        Layout {
            format,
            rows: RowCounts::default(),
            total: 0,
            open: 0,
        }
    }

    /// Counts rows written for the current sequence.
    pub fn add(&mut self, rows: u64) {
        self.total += rows;
        self.open += rows;
    }

    /// Closes the current sequence. Sequences without rows must be closed, too.
    pub fn close_sequence(&mut self) {
        self.rows.push(std::mem::take(&mut self.open));
    }

    /// The format of the file.
    pub fn format(&self) -> TextFormat {
        self.format
    }

    /// Rows written so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The number of rows of each closed sequence.
    pub fn rows(&self) -> &RowCounts {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_of_rows_are_one_run() {
        let mut layout = Layout::new(TextFormat::Tsv);
        for rows in [19, 19, 0, 38] {
            layout.add(rows);
            layout.close_sequence();
        }
        let json = serde_json::to_value(layout.rows()).unwrap();
        assert_eq!(json, serde_json::json!([[19, 2], [0, 1], [38, 1]]));
        let counts: RowCounts = serde_json::from_value(json).unwrap();
        assert_eq!(counts.iter().collect::<Vec<_>>(), [19, 19, 0, 38]);
        assert_eq!((counts.total(), layout.total()), (Some(76), 76));
    }

    #[test]
    fn counts_that_overflow_do_not_panic() {
        let counts: RowCounts =
            serde_json::from_str(&format!("[[{0}, {0}], [1, 1]]", u64::MAX)).unwrap();
        assert_eq!(counts.total(), None);
    }
}
