//! Tables of sequences with labels: CSV, TSV (with a header) or JSON lines, compressed or not.
//!
//! Columns are found by name. A label of residues is a string, one letter a residue; `-` and, where there is a mask column, everything but `1` there does not
//! count. Rows whose label is empty are left out and counted.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::io::stdio;

/// Why a table cannot be read.
#[derive(Debug, Error)]
pub enum LabelledError {
    /// It cannot be opened or read.
    #[error("{} cannot be read", .path.display())]
    Io {
        /// The table.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line is not what it must be.
    #[error("{}, line {line}: {what}", .path.display())]
    Line {
        /// The table.
        path: PathBuf,
        /// 1-based.
        line: u64,
        /// What was wrong, and the way out.
        what: String,
    },
}

/// Which columns are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelledColumns {
    /// The sequence; else the first of `sequence`, `input`, `seq` that is there.
    pub sequence: Option<String>,
    /// The label.
    pub label: String,
    /// The mask; none is read where this is none and no column is called `mask`.
    pub mask: Option<String>,
    /// The split of a row, such as train or test; `split` by default, where there is a column of that name.
    pub split: Option<String>,
    /// Only rows that have this value in this column.
    pub only: Option<(String, String)>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledRow {
    /// Of the column `id`, else the row's number.
    pub id: String,
    /// As written.
    pub sequence: String,
    /// As written.
    pub label: String,
    /// As written.
    pub mask: Option<String>,
    /// As written; none where there is no such column.
    pub split: Option<String>,
    /// 1-based.
    pub line: u64,
}

/// The rows of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// Those with a label, in order.
    pub rows: Vec<LabelledRow>,
    /// Those without.
    pub unlabelled: u64,
}

/// Reads a table.
///
/// # Errors
/// A file that cannot be read, lacks a column, or has a line of another form.
pub fn read_labelled(path: &Path, columns: &LabelledColumns) -> Result<Labelled, LabelledError> {
    let failed = |source| LabelledError::Io {
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

fn at(path: &Path, line: u64, what: impl Into<String>) -> LabelledError {
    LabelledError::Line {
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
) -> Result<Labelled, LabelledError> {
    let mut header = String::new();
    reader
        .read_line(&mut header)
        .map_err(|source| LabelledError::Io {
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
                format!("no column `{name}`; there are {}", there.join(", ")),
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

fn of_csv(path: &Path, error: csv::Error) -> LabelledError {
    let line = error.position().map_or(0, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(source) => LabelledError::Io {
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
        csv::ErrorKind::Utf8 { .. } => at(path, line, "not UTF-8"),
        _ => at(path, line, "cannot be read as a table"),
    }
}

fn from_json(
    path: &Path,
    reader: Box<dyn BufRead + Send>,
    columns: &LabelledColumns,
) -> Result<Labelled, LabelledError> {
    let mut labelled = Labelled::default();
    for (index, line) in reader.lines().enumerate() {
        let number = index as u64 + 1;
        let text = line.map_err(|source| LabelledError::Io {
            path: path.to_owned(),
            source,
        })?;
        if text.trim().is_empty() {
            continue;
        }
        let object: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| at(path, number, format!("no JSON object: {error}")))?;
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

/// A value as a table would have it; a list's items one after the other.
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
    fn what_is_wrong_is_said_with_its_line() {
        let table = [
            (
                "sequence,z\nMK,1\n",
                "t, line 1: no column `y`; there are sequence, z",
            ),
            (
                "protein,y\nMK,1\n",
                "t, line 1: no column `sequence`; there are protein, y",
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
