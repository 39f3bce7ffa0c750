//! Tables of sequences with labels: CSV, TSV (with a header) or JSON lines, compressed or not.
//!
//! Columns are found by name. Labels of residues are a string with one letter per residue. A
//! residue with the label `-` does not count; with a mask column, only residues with the mask `1`
//! count. Rows with an empty label are left out and counted.

use std::io::{self, BufRead, Read};
use std::path::Path;

use csv::StringRecord;
use serde_json::{Map, Value};

use super::table_error::TableError;
use crate::io::stdio;

/// The names of the columns to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelledColumns {
    /// The column of the sequence; by default the first of `sequence`, `input`, `seq` that the
    /// table has.
    pub sequence: Option<String>,
    /// The column of the label.
    pub label: String,
    /// The column of the mask; by default `mask`, if the table has it.
    pub mask: Option<String>,
    /// The split of a row, such as train or test; `split` by default, where there is a column of that name.
    pub split: Option<String>,
    /// A column and a value: only rows with this value are read.
    pub only: Option<(String, String)>,
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledRow {
    /// The value of the column `id`, or the number of the row.
    pub id: String,
    /// The sequence as written.
    pub sequence: String,
    /// The label as written.
    pub label: String,
    /// The mask as written.
    pub mask: Option<String>,
    /// As written; none where there is no such column.
    pub split: Option<String>,
    /// Number of the line, from 1.
    pub line: u64,
}

/// The rows of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// Rows with a label, in order.
    pub rows: Vec<LabelledRow>,
    /// Number of rows without a label.
    pub unlabelled: u64,
}

/// Reads a table.
///
/// # Errors
/// A file that cannot be read, lacks a column, or has an invalid line.
pub fn read_labelled(path: &Path, columns: &LabelledColumns) -> Result<Labelled, TableError> {
    let failed = |source| TableError::Io {
        path: path.to_owned(),
        source,
    };
    let mut reader = stdio::open(path).map_err(failed)?;
    let start = reader.fill_buf().map_err(failed)?;
    let is_json = start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if is_json {
        from_json(path, reader, columns)
    } else {
        from_text(path, reader, columns)
    }
}

fn at(path: &Path, line: u64, what: impl Into<String>) -> TableError {
    TableError::Line {
        path: path.to_owned(),
        line,
        what: what.into(),
    }
}

/// The column that says which rows are for training, validation and test, where none is named.
pub const SPLIT_NAME: &str = "split";

const SEQUENCE_NAMES: [&str; 3] = ["sequence", "input", "seq"];

fn from_text(
    path: &Path,
    mut reader: Box<dyn BufRead + Send>,
    columns: &LabelledColumns,
) -> Result<Labelled, TableError> {
    let mut header = String::new();
    reader
        .read_line(&mut header)
        .map_err(|source| TableError::Io {
            path: path.to_owned(),
            source,
        })?;
    let delimiter = if header.contains('\t') { b'\t' } else { b',' };
    let whole = io::Cursor::new(header.into_bytes()).chain(reader);
    let mut table = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(whole);
    let names = table
        .headers()
        .map_err(|error| of_csv(path, error))?
        .clone();
    let place = |name: &str| names.iter().position(|field| field.trim() == name);
    let needed = |name: &str| {
        place(name).ok_or_else(|| {
            let there: Vec<&str> = names.iter().collect();
            at(
                path,
                1,
                format!("no column `{name}`; the columns are {}", there.join(", ")),
            )
        })
    };
    let sequence = match &columns.sequence {
        Some(name) => needed(name)?,
        None => match SEQUENCE_NAMES.iter().find_map(|name| place(name)) {
            Some(place) => place,
            None => needed(SEQUENCE_NAMES[0])?,
        },
    };
    let label = needed(&columns.label)?;
    let mask = columns
        .mask
        .as_deref()
        .map(needed)
        .transpose()?
        .or(place("mask"));
    let split = columns.split.as_deref().map(needed).transpose()?;
    let split = split.or(place(SPLIT_NAME));
    let only = match &columns.only {
        Some((name, value)) => Some((needed(name)?, value.as_str())),
        None => None,
    };
    let id = place("id");
    let mut labelled = Labelled::default();
    let mut record = StringRecord::new();
    let mut number = 0u64;
    while table
        .read_record(&mut record)
        .map_err(|error| of_csv(path, error))?
    {
        number += 1;
        let field = |place: usize| record.get(place).unwrap_or_default().trim();
        if only.is_some_and(|(place, value)| field(place) != value) {
            continue;
        }
        let row = LabelledRow {
            id: id.map_or_else(|| number.to_string(), |place| field(place).to_owned()),
            sequence: field(sequence).to_owned(),
            label: field(label).to_owned(),
            mask: mask.map(|place| field(place).to_owned()),
            split: split.map(|place| field(place).to_owned()),
            line: record.position().map_or(0, csv::Position::line),
        };
        labelled.take(row);
    }
    Ok(labelled)
}

fn of_csv(path: &Path, error: csv::Error) -> TableError {
    let line = error.position().map_or(0, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(source) => TableError::Io {
            path: path.to_owned(),
            source,
        },
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => at(
            path,
            line,
            format!("{len} fields where the header has {expected_len}"),
        ),
        csv::ErrorKind::Utf8 { .. } => at(path, line, "the line is not UTF-8"),
        _ => at(path, line, "the line cannot be read as a row of a table"),
    }
}

fn from_json(
    path: &Path,
    reader: Box<dyn BufRead + Send>,
    columns: &LabelledColumns,
) -> Result<Labelled, TableError> {
    let mut labelled = Labelled::default();
    for (index, line) in reader.lines().enumerate() {
        let number = index as u64 + 1;
        let text = line.map_err(|source| TableError::Io {
            path: path.to_owned(),
            source,
        })?;
        if text.trim().is_empty() {
            continue;
        }
        let object: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| at(path, number, format!("not a JSON object: {error}")))?;
        let needed = |name: &str| {
            let value = object.get(name);
            value.ok_or_else(|| at(path, number, format!("no key `{name}`")))
        };
        if let Some((name, value)) = &columns.only
            && words(needed(name)?) != *value
        {
            continue;
        }
        let sequence = match &columns.sequence {
            Some(name) => needed(name)?,
            None => match SEQUENCE_NAMES.iter().find_map(|name| object.get(*name)) {
                Some(value) => value,
                None => needed(SEQUENCE_NAMES[0])?,
            },
        };
        let mask = columns.mask.as_deref().unwrap_or("mask");
        let split = match &columns.split {
            Some(name) => Some(needed(name)?),
            None => object.get(SPLIT_NAME),
        };
        labelled.take(LabelledRow {
            id: object.get("id").map_or_else(|| number.to_string(), words),
            sequence: words(sequence),
            label: words(needed(&columns.label)?),
            mask: object.get(mask).map(words),
            split: split.map(words),
            line: number,
        });
    }
    Ok(labelled)
}

/// A JSON value as the text of a table cell; the items of a list are concatenated.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(words).collect(),
        other => other.to_string(),
    }
}

impl Labelled {
    fn take(&mut self, row: LabelledRow) {
        if row.label.is_empty() {
            self.unlabelled += 1;
        } else {
            self.rows.push(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, columns: &LabelledColumns) -> Result<Labelled, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        std::fs::write(&path, text).unwrap();
        let shown = format!("{}", path.display());
        read_labelled(&path, columns).map_err(|error| error.to_string().replace(&shown, "t"))
    }

    fn columns() -> LabelledColumns {
        LabelledColumns {
            label: "y".to_owned(),
            ..LabelledColumns::default()
        }
    }

    #[test]
    fn tables_and_json_lines_hold_the_same() {
        let csv = read("id,input,y,mask\na,MK,HE,10\nb,MKV,,111\n", &columns()).unwrap();
        let tsv = read("id\tseq\ty\tmask\na\tMK\tHE\t10\nb\tMKV\t\t1\n", &columns()).unwrap();
        let json = read(
            "{\"id\":\"a\",\"sequence\":\"MK\",\"y\":\"HE\",\"mask\":[1,0]}\n\n{\"id\":\"b\",\"sequence\":\"M\",\"y\":null}\n",
            &columns(),
        )
        .unwrap();
        assert_eq!(csv.rows[0].mask.as_deref(), Some("10"));
        assert_eq!((csv.rows[0].line, csv.unlabelled), (2, 1));
        for (other, line) in [(tsv, 2), (json, 1)] {
            let row = LabelledRow {
                line,
                ..csv.rows[0].clone()
            };
            assert_eq!(
                other,
                Labelled {
                    rows: vec![row],
                    unlabelled: 1
                }
            );
        }
    }

    #[test]
    fn a_split_takes_its_rows() {
        let only = Some(("split".to_owned(), "test".to_owned()));
        let text = "sequence,y,split\nMK,1.5,train\nMR,2.5,test\n";
        let rows = read(text, &LabelledColumns { only, ..columns() })
            .unwrap()
            .rows;
        assert_eq!(
            (rows.len(), rows[0].id.as_str(), rows[0].label.as_str()),
            (1, "2", "2.5")
        );
        assert_eq!(rows[0].split.as_deref(), Some("test"));
    }

    #[test]
    fn errors_name_the_line() {
        let table = [
            (
                "sequence,z\nMK,1\n",
                "t, line 1: no column `y`; the columns are sequence, z",
            ),
            (
                "protein,y\nMK,1\n",
                "t, line 1: no column `sequence`; the columns are protein, y",
            ),
            (
                "sequence,y\nMK,1\nMK\n",
                "t, line 3: 1 fields where the header has 2",
            ),
            ("{\"sequence\":\"MK\"}\n", "t, line 1: no key `y`"),
        ];
        for (text, message) in table {
            assert_eq!(read(text, &columns()).unwrap_err(), message);
        }
        assert!(
            read("{\"y\":1}\n{\n", &columns())
                .unwrap_err()
                .starts_with("t, line 1: no key")
        );
    }
}
