//! JSON lines: `{"id": "P12345", "length": 412, "mean": [0.1, …]}`, one object per protein.
//!
//! A per-residue column is a list of lists. Numbers have the fewest digits that read back as the
//! same single. JSON has no NaN or infinity, so such a value is an error. The schema is in
//! `FILE.json`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::Deserialize;

use super::codec::{RecordWriter, Records};
use super::destination::{EmbeddingOutput, read_schema};
use super::error::invalid_data;
use super::numbers::rounded;
use super::{Column, EmbeddingRecord, RowKind, Schema};
use crate::io::whole_lines::WholeLines;
use crate::number::NumberType;
use crate::output::manifest::Manifest;
use crate::shown::shown;

/// Writes lines as they come.
pub(super) struct JsonlWriter {
    output: EmbeddingOutput,
    schema: Schema,
}

impl JsonlWriter {
    pub(super) fn new(output: EmbeddingOutput, schema: &Schema) -> Self {
        Self {
            output,
            schema: schema.clone(),
        }
    }

    fn write_block(&mut self, column: usize, values: &[f32]) -> io::Result<()> {
        let Column { name, width, rows } = &self.schema.columns[column];
        write!(self.output, ",{}:", serde_json::to_string(name)?)?;
        if *rows == RowKind::PerSequence {
            return write_row(&mut self.output, values);
        }
        for (index, row) in values.chunks(*width).enumerate() {
            self.output
                .write_all(if index == 0 { b"[" } else { b"," })?;
            write_row(&mut self.output, row)?;
        }
        self.output.write_all(b"]")
    }
}

fn write_row(output: &mut EmbeddingOutput, values: &[f32]) -> io::Result<()> {
    for (index, value) in values.iter().enumerate() {
        output.write_all(if index == 0 { b"[" } else { b"," })?;
        write!(output, "{value:?}")?;
    }
    output.write_all(b"]")
}

impl RecordWriter for JsonlWriter {
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()> {
        let id = serde_json::to_string(&record.id)?;
        write!(self.output, "{{\"id\":{id},\"length\":{}", record.length)?;
        for (column, values) in record.values.iter().enumerate() {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(invalid_data(format!(
                    "JSON cannot hold the value {value}; any other format can"
                )));
            }
            let values = rounded(values, self.schema.dtype)?;
            self.write_block(column, &values)?;
        }
        self.output.write_all(b"}\n")
    }

    fn finish(self: Box<Self>, schema: &Schema) -> io::Result<()> {
        self.output.write_schema(schema)?;
        self.output.commit()
    }
}

#[derive(Deserialize)]
struct Line {
    id: String,
    length: usize,
    #[serde(flatten)]
    columns: HashMap<String, Block>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Block {
    Pooled(Vec<f32>),
    PerResidue(Vec<Vec<f32>>),
}

/// Reads the schema from `FILE.json`, or makes one from the first line, and the records.
pub(super) fn open(path: &Path) -> io::Result<(Schema, Records)> {
    let schema = match read_schema(path)? {
        Some(schema) => schema,
        None => schema_of_first_line(path)?,
    };
    let lines = WholeLines::new(BufReader::with_capacity(1 << 16, File::open(path)?)).lines();
    let columns = schema.columns.clone();
    let records = lines.map(move |line| parse_line(&line?, &columns));
    Ok((schema, Box::new(records)))
}

fn parse_line(line: &str, columns: &[Column]) -> io::Result<EmbeddingRecord> {
    let mut line: Line =
        serde_json::from_str(line).map_err(|error| invalid_data(error.to_string()))?;
    let values = columns
        .iter()
        .map(
            |Column { name, width, rows }| match (line.columns.remove(name), rows) {
                (Some(Block::Pooled(values)), RowKind::PerSequence) => Ok(values),
                (Some(Block::PerResidue(rows)), RowKind::PerResidue) => {
                    match rows.iter().position(|row| row.len() != *width) {
                        None => Ok(rows.concat()),
                        Some(row) => Err(invalid_data(format!(
                            "{}: row {row} of {name:?} does not have {width} values",
                            shown(&line.id)
                        ))),
                    }
                }
                _ => Err(invalid_data(format!(
                    "{}: no values for column {name:?}",
                    shown(&line.id)
                ))),
            },
        )
        .collect::<io::Result<_>>()?;
    Ok(EmbeddingRecord {
        id: line.id,
        length: line.length,
        values,
    })
}

/// The columns of the first line, in its order.
fn schema_of_first_line(path: &Path) -> io::Result<Schema> {
    let mut line = String::new();
    BufReader::new(File::open(path)?).read_line(&mut line)?;
    let not_ours = || {
        invalid_data("there is no FILE.json beside it, and its first line has no columns".into())
    };
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&line).map_err(|_| not_ours())?;
    let mut columns = Vec::new();
    for (name, value) in object
        .iter()
        .filter(|(name, _)| *name != "id" && *name != "length")
    {
        let values = value.as_array().ok_or_else(not_ours)?;
        let (rows, width) = match values.first().and_then(serde_json::Value::as_array) {
            Some(row) => (RowKind::PerResidue, row.len()),
            None => (RowKind::PerSequence, values.len()),
        };
        columns.push(Column {
            name: name.clone(),
            width,
            rows,
        });
    }
    Ok(Schema {
        columns,
        dtype: NumberType::F32,
        metadata: Manifest::default(),
    })
}
