//! Tables of sequences with labels: separated tables with a header, or JSON lines.
//!
//! Columns are found by name. Labels of residues are a string with one letter per residue. A
//! residue with the label `-` does not count; with a mask column, only residues with the mask `1`
//! count. Rows with an empty label are left out and counted.

use std::path::Path;

use serde_json::{Map, Value};

use super::decoded::{self, DecodedText};
use super::table::{DecimalMark, HeaderRule, SeparatedRow, SeparatedTable};
use super::table_error::TableError;

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
    /// How the table writes numbers.
    pub decimal_mark: DecimalMark,
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
    let mut text = decoded::open(path).map_err(failed)?;
    let start = text.peek().map_err(failed)?;
    if start.first() == Some(&b'{') {
        from_json(path, text, columns)
    } else {
        from_separated(
            SeparatedTable::of(path, text, &columns.wanted(), HeaderRule::Always)?,
            columns,
        )
    }
}

impl LabelledColumns {
    /// The names that are looked for in any case.
    fn wanted(&self) -> Vec<&str> {
        let given = [&self.sequence, &self.mask, &self.split];
        let given = given.into_iter().flatten().map(String::as_str);
        let only = self.only.iter().map(|(name, _)| name.as_str());
        let all = given.chain(only).chain([self.label.as_str()]);
        all.chain(SEQUENCE_NAMES).collect()
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

/// The places of the columns of a separated table.
struct Places<'a> {
    id: Option<usize>,
    sequence: usize,
    label: usize,
    mask: Option<usize>,
    split: Option<usize>,
    only: Option<(usize, &'a str)>,
}

impl<'a> Places<'a> {
    fn new(table: &SeparatedTable, columns: &'a LabelledColumns) -> Result<Self, TableError> {
        let given_or = |given: &Option<String>, usual| match given {
            Some(name) => table.one_of(&[name]).map(Some),
            None => table.column(usual),
        };
        let only = columns.only.as_ref();
        let only = only.map(|(name, value)| Ok((table.one_of(&[name])?, value.as_str())));
        Ok(Self {
            id: table.column("id")?,
            sequence: match &columns.sequence {
                Some(name) => table.one_of(&[name])?,
                None => table.one_of(&SEQUENCE_NAMES)?,
            },
            label: table.one_of(&[&columns.label])?,
            mask: given_or(&columns.mask, "mask")?,
            split: given_or(&columns.split, SPLIT_NAME)?,
            only: only.transpose()?,
        })
    }
}

fn from_separated(
    mut table: SeparatedTable,
    columns: &LabelledColumns,
) -> Result<Labelled, TableError> {
    let places = Places::new(&table, columns)?;
    let mut labelled = Labelled::default();
    let mut number = 0u64;
    while let Some(row) = table.next_row()? {
        number += 1;
        table.check_width(&row)?;
        if let Some((place, value)) = places.only
            && table.field(&row, place)? != value
        {
            continue;
        }
        labelled.take(labelled_row(&table, &row, &places, number)?);
    }
    Ok(labelled)
}

fn labelled_row(
    table: &SeparatedTable,
    row: &SeparatedRow,
    places: &Places<'_>,
    number: u64,
) -> Result<LabelledRow, TableError> {
    let text = |place: usize| table.field(row, place).map(str::to_owned);
    let optional = |place: Option<usize>| place.map(text).transpose();
    Ok(LabelledRow {
        id: optional(places.id)?.unwrap_or_else(|| number.to_string()),
        sequence: text(places.sequence)?,
        label: text(places.label)?,
        decimal_mark: table.decimal_mark(),
        mask: optional(places.mask)?,
        split: optional(places.split)?,
        line: row.line,
    })
}

fn from_json(
    path: &Path,
    mut text: DecodedText,
    columns: &LabelledColumns,
) -> Result<Labelled, TableError> {
    let mut labelled = Labelled::default();
    for number in 1.. {
        let line = text.next_line().map_err(|source| TableError::Io {
            path: path.to_owned(),
            source,
        })?;
        if line.is_empty() {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let object: Map<String, Value> = serde_json::from_slice(line)
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
            decimal_mark: DecimalMark::Point,
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
    fn tables_of_spreadsheets_hold_the_same() {
        let plain = "id,sequence,y\na,MK,0.5\nb,MKV,1\n";
        let expected = read(plain, &columns()).unwrap().rows;
        let semicolons = "id;Sequence;y\r\na;MK;0,5\r\n;;\r\nb;MKV;1\r\n";
        let mut rows = read(semicolons, &columns()).unwrap().rows;
        for row in &mut rows {
            assert_eq!(row.decimal_mark, DecimalMark::Comma);
        }
        rows[0].label = "0.5".to_owned();
        (rows[0].decimal_mark, rows[1].decimal_mark) = (DecimalMark::Point, DecimalMark::Point);
        rows[1].line = 3;
        assert_eq!(rows, expected);
        let marked = format!("\u{feff}{}", plain.replace('\n', "\r"));
        assert_eq!(read(&marked, &columns()).unwrap().rows, expected);
        let json = "\u{feff}\r\n{\"id\":\"a\",\"sequence\":\"MK\",\"y\":0.5}\r\n";
        let row = LabelledRow {
            line: 2,
            ..expected[0].clone()
        };
        assert_eq!(read(json, &columns()).unwrap().rows, [row]);
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
                "t, line 1: no column `y`; the columns are sequence, z (separated by commas)",
            ),
            (
                "protein,y\nMK,1\n",
                "t, line 1: no column `sequence` or `input` or `seq`; the columns are protein, y (separated by commas)",
            ),
            (
                "sequence,y\nMK,1\nMK\n",
                "t, line 3: 1 field where the header has 2",
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
