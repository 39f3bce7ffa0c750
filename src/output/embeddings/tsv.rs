//! Tab-separated text with a header line.
//!
//! Pooled columns: one row per protein, `id  length  mean.0  mean.1 …  max.0 …`.
//! Per-residue columns: one row per residue, `id  length  position  per_residue.0 …`, where
//! `position` counts from 1. The two kinds do not share a file. Values are the shortest decimal
//! numbers that give the same single back (`NaN`, `inf` and `-inf` as pandas and polars read
//! them). An id with a tab, a line break or a quote is quoted as CSV does. No comment lines: the
//! schema is in `FILE.json`.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use super::codec::{RecordWriter, Records};
use super::destination::{EmbeddingOutput, read_schema};
use super::error::{from_library, invalid_data};
use super::numbers::round_one;
use super::{Column, EmbeddingRecord, RowKind, Schema};
use crate::io::whole_lines::WholeLines;
use crate::number::NumberType;
use crate::output::manifest::Manifest;
use crate::shown::shown;

/// Writes rows as they come.
pub(super) struct TsvWriter {
    csv: csv::Writer<EmbeddingOutput>,
    schema: Schema,
}

impl TsvWriter {
    pub(super) fn new(output: EmbeddingOutput, schema: &Schema) -> io::Result<Self> {
        let mut csv = csv::WriterBuilder::new()
            .delimiter(b'\t')
            .from_writer(output);
        csv.write_record(header(schema)).map_err(from_library)?;
        Ok(Self {
            csv,
            schema: schema.clone(),
        })
    }

    fn write_row(
        &mut self,
        record: &EmbeddingRecord,
        row: usize,
        number: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.csv.write_field(&record.id).map_err(from_library)?;
        self.csv
            .write_field(record.length.to_string())
            .map_err(from_library)?;
        if !self.schema.only_pooled() {
            self.csv
                .write_field((row + 1).to_string())
                .map_err(from_library)?;
        }
        for (column, values) in self.schema.columns.iter().zip(&record.values) {
            for &value in &values[row * column.width..(row + 1) * column.width] {
                number.clear();
                write!(number, "{:?}", round_one(value, self.schema.dtype)?)?;
                self.csv.write_field(&number).map_err(from_library)?;
            }
        }
        self.csv.write_record(None::<&[u8]>).map_err(from_library)
    }
}

impl RecordWriter for TsvWriter {
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()> {
        let mut number = Vec::new();
        for row in 0..self.schema.columns[0].rows_of(record.length) {
            self.write_row(record, row, &mut number)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, schema: &Schema) -> io::Result<()> {
        let output = self
            .csv
            .into_inner()
            .map_err(csv::IntoInnerError::into_error)?;
        output.write_schema(schema)?;
        output.commit()
    }
}

fn header(schema: &Schema) -> Vec<String> {
    let mut names = vec!["id".to_owned(), "length".to_owned()];
    if !schema.only_pooled() {
        names.push("position".to_owned());
    }
    for column in &schema.columns {
        names.extend((0..column.width).map(|value| format!("{}.{value}", column.name)));
    }
    names
}

/// Reads the schema from `FILE.json`, or makes one from the header, and the records.
pub(super) fn open(path: &Path) -> io::Result<(Schema, Records)> {
    let mut csv = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .from_reader(WholeLines::new(BufReader::with_capacity(
            1 << 16,
            File::open(path)?,
        )));
    let names = csv.headers().map_err(from_library)?.clone();
    let schema = match read_schema(path)? {
        Some(schema) => schema,
        None => schema_of_header(&names)?,
    };
    if names != header(&schema) {
        return Err(invalid_data(
            "its header is not that of the columns in FILE.json".into(),
        ));
    }
    let rows = csv.into_records();
    Ok((schema.clone(), Box::new(TsvRecords { rows, schema })))
}

/// The columns that a header names: runs of `name.0 … name.d-1`.
fn schema_of_header(names: &csv::StringRecord) -> io::Result<Schema> {
    let per_residue = names.get(2) == Some("position");
    let rows = if per_residue {
        RowKind::PerResidue
    } else {
        RowKind::PerSequence
    };
    let mut columns: Vec<Column> = Vec::new();
    for name in names.iter().skip(if per_residue { 3 } else { 2 }) {
        let Some((name, _)) = name.rsplit_once('.') else {
            return Err(invalid_data(format!(
                "column `{}` is not of the form name.number",
                shown(name)
            )));
        };
        match columns.last_mut().filter(|column| column.name == name) {
            Some(column) => column.width += 1,
            None => columns.push(Column {
                name: name.to_owned(),
                width: 1,
                rows,
            }),
        }
    }
    Ok(Schema {
        columns,
        dtype: NumberType::F32,
        metadata: Manifest::default(),
    })
}

struct TsvRecords {
    rows: csv::StringRecordsIntoIter<WholeLines<BufReader<File>>>,
    schema: Schema,
}

impl TsvRecords {
    /// Adds the values of one row to the record it belongs to.
    fn read_row(&self, row: &csv::StringRecord, record: &mut EmbeddingRecord) -> io::Result<()> {
        let first = if self.schema.only_pooled() { 2 } else { 3 };
        let mut fields = row.iter().skip(first);
        for (column, values) in self.schema.columns.iter().zip(&mut record.values) {
            for field in fields.by_ref().take(column.width) {
                values.push(parse(field, row)?);
            }
        }
        Ok(())
    }

    fn read_record(&mut self, first: &csv::StringRecord) -> io::Result<EmbeddingRecord> {
        let mut record = EmbeddingRecord {
            id: first[0].to_owned(),
            length: parse(&first[1], first)?,
            values: vec![Vec::new(); self.schema.columns.len()],
        };
        self.read_row(first, &mut record)?;
        for position in 2..=self.schema.columns[0].rows_of(record.length) {
            let row = self.rows.next().ok_or_else(|| {
                invalid_data(format!(
                    "{}: the file ends before residue {position}",
                    shown(&record.id)
                ))
            })?;
            let row = row.map_err(from_library)?;
            if row[0] != record.id || row[2] != position.to_string() {
                return Err(invalid_data(format!(
                    "{}residue {position} of {} is missing",
                    at_line(&row),
                    shown(&record.id)
                )));
            }
            self.read_row(&row, &mut record)?;
        }
        Ok(record)
    }
}

impl Iterator for TsvRecords {
    type Item = io::Result<EmbeddingRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.rows.next()?;
        Some(
            first
                .map_err(from_library)
                .and_then(|first| self.read_record(&first)),
        )
    }
}

fn parse<T: std::str::FromStr>(field: &str, row: &csv::StringRecord) -> io::Result<T> {
    field.parse().map_err(|_| {
        invalid_data(format!(
            "{}`{}` is not a number",
            at_line(row),
            shown(field)
        ))
    })
}

fn at_line(row: &csv::StringRecord) -> String {
    row.position()
        .map(|position| format!("line {}: ", position.line()))
        .unwrap_or_default()
}
