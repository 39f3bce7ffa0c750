//! Tables: rows of named cells as tab- or comma-separated text with a header line, or as one JSON
//! object per line.
//!
//! Numbers have eight significant digits, more than single precision has; a missing number is `NaN`
//! in text and `null` in JSON. Text with a separator, a line break or a quote is quoted as in CSV.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::layout::{Layout, TextFormat};
use crate::io::stdio::{Content, Output};

/// The text format of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum TableFormat {
    /// Tab-separated, with a header line
    Tsv,
    /// Comma-separated, with a header line
    Csv,
    /// One JSON object per line
    Jsonl,
}

impl TableFormat {
    /// The format of a file's extension: JSON lines for `.jsonl` and `.ndjson`, comma-separated for
    /// `.csv`, else tab-separated.
    pub fn from_extension(path: &Path) -> Self {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("jsonl" | "ndjson") => TableFormat::Jsonl,
            Some("csv") => TableFormat::Csv,
            _ => TableFormat::Tsv,
        }
    }

    /// The character between two cells; JSON lines have none.
    fn separator(self) -> Option<char> {
        match self {
            TableFormat::Tsv => Some('\t'),
            TableFormat::Csv => Some(','),
            TableFormat::Jsonl => None,
        }
    }
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

/// One cell of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Any text.
    Text(&'a str),
    /// One residue.
    Residue(u8),
    /// A whole number.
    Count(usize),
    /// A number, written with eight significant digits.
    Number(f64),
}

impl Cell<'_> {
    fn to_json(self) -> Value {
        match self {
            Cell::Text(text) => json!(text),
            Cell::Residue(residue) => json!(char::from(residue).to_string()),
            Cell::Count(count) => json!(count),
            Cell::Number(number) => json!(rounded(number)),
        }
    }

    fn to_text(self, separator: char) -> String {
        match self {
            Cell::Text(text) if text.contains([separator, '\n', '\r', '"']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Cell::Text(text) => text.to_owned(),
            Cell::Number(number) if number.is_nan() => "NaN".to_owned(),
            Cell::Number(number) if number.is_infinite() => number.to_string(),
            Cell::Residue(residue) => char::from(residue).to_string(),
            Cell::Count(_) | Cell::Number(_) => self.to_json().to_string(),
        }
    }
}

/// `number` with eight significant digits.
fn rounded(number: f64) -> f64 {
    format!("{number:.7e}").parse().unwrap_or(number)
}

/// A table being written.
#[derive(Debug)]
pub struct Table {
    output: Output,
    format: TableFormat,
    columns: Vec<String>,
    layout: Layout,
}

impl Table {
    /// Opens stdout (`-`) or a file, which appears under its name only when finished, and writes
    /// the header of a text format.
    ///
    /// # Errors
    /// An output that cannot be written.
    pub fn create(
        path: &Path,
        format: TableFormat,
        columns: &[impl AsRef<str>],
    ) -> io::Result<Self> {
        let columns: Vec<String> = columns
            .iter()
            .map(|name| name.as_ref().to_owned())
            .collect();
        let mut output = Output::create(path, Content::Text)?;
        if let Some(separator) = format.separator() {
            writeln!(output, "{}", columns.join(&separator.to_string()))?;
        }
        Ok(Self {
            output,
            format,
            columns,
            layout: Layout::new(format.into()),
        })
    }

    /// Writes one row, with one cell per column.
    ///
    /// # Errors
    /// Output that cannot be written.
    pub fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        debug_assert_eq!(cells.len(), self.columns.len());
        let line = if let Some(separator) = self.format.separator() {
            let texts = cells.iter().map(|cell| cell.to_text(separator));
            let texts: Vec<String> = texts.collect();
            texts.join(&separator.to_string())
        } else {
            let named = self.columns.iter().zip(cells);
            let object: Map<String, Value> = named
                .map(|(name, cell)| (name.clone(), cell.to_json()))
                .collect();
            Value::Object(object).to_string()
        };
        self.layout.add(1);
        writeln!(self.output, "{line}")
    }

    /// Closes the sequence of the last rows. If shards of the table will be merged, every sequence
    /// must be closed, also a sequence without rows.
    pub fn close_sequence(&mut self) {
        self.layout.close_sequence();
    }

    /// The format and the number of rows so far, for the manifest.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Completes the table.
    ///
    /// # Errors
    /// Output that cannot be written.
    pub fn finish(self) -> io::Result<()> {
        self.output.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let format = TableFormat::from_extension(&path);
        let mut table =
            Table::create(&path, format, &["id", "position", "residue", "score"]).unwrap();
        let row = |id, number| {
            [
                Cell::Text(id),
                Cell::Count(2),
                Cell::Residue(b'K'),
                Cell::Number(number),
            ]
        };
        table.row(&row("a", -0.1)).unwrap();
        table.row(&row("b\t\"c\"", f64::NAN)).unwrap();
        table.row(&row("d", 1e-30)).unwrap();
        table.finish().unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn text_and_json_have_the_same_content() {
        assert_eq!(
            written("a.tsv"),
            "id\tposition\tresidue\tscore\na\t2\tK\t-0.1\n\"b\t\"\"c\"\"\"\t2\tK\tNaN\nd\t2\tK\t1e-30\n"
        );
        assert_eq!(
            written("a.csv"),
            "id,position,residue,score\na,2,K,-0.1\n\"b\t\"\"c\"\"\",2,K,NaN\nd,2,K,1e-30\n"
        );
        let lines: Vec<Value> = written("a.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["score"], json!(-0.1));
        assert_eq!(
            lines[1],
            json!({"id": "b\t\"c\"", "position": 2, "residue": "K", "score": null})
        );
    }

    #[test]
    fn numbers_keep_eight_digits() {
        let table = [
            (-234.743_835_449_218_75, "-234.74384"),
            (0.985_977_053_642_273, "0.98597705"),
            (0.0, "0.0"),
            (-123_456_789.0, "-123456790.0"),
            (f64::INFINITY, "inf"),
        ];
        for (number, text) in table {
            assert_eq!(Cell::Number(number).to_text('\t'), text);
        }
    }
}
