//! One writer for all formats: checks what arrives, hands it on, names the record in errors.

use std::io;

use super::destination::{Destination, Output};
use super::error::{invalid_input, with_context};
use super::{EmbeddingRecord, Format, Rows, Schema};
use super::{arrow, h5, jsonl, npy, npz, parquet, safetensors, tsv};
use crate::io::stdio::Content;
use crate::number::NumberType;

/// What each format implements. Records come in order and have the shapes of the schema.
pub(super) trait RecordWriter: Send {
    /// Writes one record.
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()>;
    /// Writes what comes after the last record and commits the output.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Writes embeddings in one of the formats.
///
/// Every error keeps its [`io::ErrorKind`]: a closed pipe is `BrokenPipe` and a full disk
/// `StorageFull` whichever library met it first.
pub struct Writer {
    schema: Schema,
    inner: Box<dyn RecordWriter>,
    records: u64,
    /// What went wrong first; a file with a hole must never be completed.
    failure: Option<io::ErrorKind>,
}

impl Writer {
    /// Opens `destination` for `schema`.
    ///
    /// # Errors
    /// `InvalidInput` for what the format cannot hold, with the way out: bf16 anywhere but in
    /// safetensors, several columns in npy, pooled beside per-residue columns in tsv, npy into a
    /// stream. Else what opening the destination says.
    pub fn create(format: Format, schema: &Schema, destination: Destination) -> io::Result<Self> {
        schema.check()?;
        check_fit(format, schema)?;
        let content = if format.is_binary() {
            Content::Binary
        } else {
            Content::Text
        };
        let output = Output::open(destination, content)?;
        let schema = schema.clone();
        let inner: Box<dyn RecordWriter> = match format {
            Format::Tsv => Box::new(tsv::TsvWriter::new(output, &schema)?),
            Format::Jsonl => Box::new(jsonl::JsonlWriter::new(output, &schema)),
            Format::Npy => Box::new(npy::NpyWriter::new(output, &schema)?),
            Format::Npz => Box::new(npz::NpzWriter::new(output, &schema)?),
            Format::H5 => Box::new(h5::H5Writer::new(output, &schema)?),
            Format::Safetensors => Box::new(safetensors::SafetensorsWriter::new(output, &schema)?),
            Format::Parquet => Box::new(parquet::ParquetWriter::new(output, &schema)?),
            Format::Arrow => Box::new(arrow::ArrowWriter::new(output, &schema)?),
        };
        Ok(Self {
            schema,
            inner,
            records: 0,
            failure: None,
        })
    }

    /// Writes the next record.
    ///
    /// # Errors
    /// `InvalidData` for a record that does not fit the schema or the format (a wrong shape, an
    /// empty id, in npz, h5 and safetensors an id seen before); else what the disk or pipe says.
    /// After an error every further call fails with the same kind.
    pub fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()> {
        self.not_failed()?;
        self.records += 1;
        let written = self
            .schema
            .check_record(record)
            .and_then(|()| self.inner.write(record));
        written.map_err(|error| {
            self.failure = Some(error.kind());
            if error.kind() != io::ErrorKind::InvalidData {
                return error;
            }
            with_context(&error, &format!("record {} ({})", self.records, record.id))
        })
    }

    /// Completes the file and gives it its name. Without this call nothing remains of it.
    pub fn finish(self) -> io::Result<()> {
        self.not_failed()?;
        self.inner.finish()
    }

    fn not_failed(&self) -> io::Result<()> {
        match self.failure {
            None => Ok(()),
            Some(kind) => Err(io::Error::new(
                kind,
                format!("record {} could not be written before", self.records),
            )),
        }
    }
}

fn check_fit(format: Format, schema: &Schema) -> io::Result<()> {
    let name = format.name();
    if schema.dtype == NumberType::Bf16 && format != Format::Safetensors {
        let others = if format.is_binary() {
            "f16 or f32"
        } else {
            "f32"
        };
        return Err(invalid_input(format!(
            "{name} has no bf16 numbers; use --out-dtype {others}, or --format safetensors, \
             which has them"
        )));
    }
    if format == Format::Npy && schema.columns.len() > 1 {
        return Err(invalid_input(format!(
            "npy holds one array but {} columns were asked for; use --format npz, h5, \
             safetensors, parquet or arrow",
            schema.columns.len()
        )));
    }
    let has_pairs = schema.columns.iter().any(|c| c.rows == Rows::PerPair);
    if has_pairs && !matches!(format, Format::Npz | Format::H5 | Format::Safetensors) {
        return Err(invalid_input(format!(
            "{name} has no matrices of another size for each protein; use npz, h5 or safetensors"
        )));
    }
    let pooled = schema
        .columns
        .iter()
        .filter(|column| column.rows == Rows::PerSequence)
        .count();
    if format == Format::Tsv && pooled != 0 && pooled != schema.columns.len() {
        return Err(invalid_input(
            "a tsv has one row a protein or one row a residue, so pooled and per-residue columns \
             cannot share it; write two files, or use --format jsonl, npz, h5, safetensors, \
             parquet or arrow"
                .into(),
        ));
    }
    Ok(())
}
