//! The writer of all formats: checks records, passes them to the writer of the format, and names
//! the record in errors.

use std::io;
use std::path::Path;

use super::codec::RecordWriter;
use super::destination::EmbeddingOutput;
use super::error::{invalid_input, with_context};
use super::{EmbeddingFormat, EmbeddingRecord, RowKind, Schema};
use super::{arrow, h5, jsonl, npy, npz, parquet, safetensors, tsv};
use crate::number::NumberType;
use crate::sequence::digest::InputDigest;
use crate::shown::shown;

/// Writes embeddings in one of the formats.
///
/// Every error keeps its [`io::ErrorKind`], whichever library reports it: a closed pipe is
/// `BrokenPipe`, a full disk is `StorageFull`.
pub struct EmbeddingWriter {
    schema: Schema,
    inner: Box<dyn RecordWriter>,
    records: u64,
    /// The first error, after which the file must not be completed.
    failure: Option<io::ErrorKind>,
}

impl EmbeddingWriter {
    /// Opens the file `path`, or standard output for `-`. The file has a temporary name until
    /// [`EmbeddingWriter::finish`]; if the writer is dropped before, the file disappears and an
    /// older file of the same name stays. A device or a named pipe is written directly.
    ///
    /// # Errors
    /// `InvalidInput` for a schema that the format cannot hold: bf16 in any format but safetensors,
    /// several columns in npy, pooled and per-residue columns together in tsv, npy into a stream.
    /// The system's error for a file that cannot be opened.
    pub fn create(format: EmbeddingFormat, schema: &Schema, path: &Path) -> io::Result<Self> {
        schema.check()?;
        check_fit(format, schema)?;
        let output = EmbeddingOutput::open(path, format.content())?;
        let schema = schema.before_records();
        let inner: Box<dyn RecordWriter> = match format {
            EmbeddingFormat::Tsv => Box::new(tsv::TsvWriter::new(output, &schema)?),
            EmbeddingFormat::Jsonl => Box::new(jsonl::JsonlWriter::new(output, &schema)),
            EmbeddingFormat::Npy => Box::new(npy::NpyWriter::new(output, &schema)?),
            EmbeddingFormat::Npz => Box::new(npz::NpzWriter::new(output, &schema)?),
            EmbeddingFormat::H5 => Box::new(h5::H5Writer::new(output, &schema)?),
            EmbeddingFormat::Safetensors => {
                Box::new(safetensors::SafetensorsWriter::new(output, &schema)?)
            }
            EmbeddingFormat::Parquet => Box::new(parquet::ParquetWriter::new(output, &schema)?),
            EmbeddingFormat::Arrow => Box::new(arrow::ArrowWriter::new(output, &schema)?),
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
    /// `InvalidData` for a record that does not fit the schema or the format: a wrong shape, an
    /// empty id, or a duplicate id in npz, h5 and safetensors. The system's error if writing fails.
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
            let id = shown(&record.id);
            with_context(&error, &format!("record {} ({id})", self.records))
        })
    }

    /// Adds the number of records and the digest of the input to the manifest, completes the file
    /// and gives it its name.
    ///
    /// # Errors
    /// An earlier error again, or the system's error.
    pub fn finish(mut self, input: Option<InputDigest>) -> io::Result<()> {
        self.not_failed()?;
        self.schema.metadata.input = input;
        self.schema.metadata.written = Some(self.records);
        self.inner.finish(&self.schema)
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

fn check_fit(format: EmbeddingFormat, schema: &Schema) -> io::Result<()> {
    let name = format.name();
    if schema.dtype == NumberType::Bf16 && format != EmbeddingFormat::Safetensors {
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
    if format == EmbeddingFormat::Npy && schema.columns.len() > 1 {
        return Err(invalid_input(format!(
            "npy holds one array, but {} columns were requested; use --format npz, h5, \
             safetensors, parquet or arrow",
            schema.columns.len()
        )));
    }
    let has_pairs = schema.columns.iter().any(|c| c.rows == RowKind::PerPair);
    if has_pairs
        && !matches!(
            format,
            EmbeddingFormat::Npz | EmbeddingFormat::H5 | EmbeddingFormat::Safetensors
        )
    {
        return Err(invalid_input(format!(
            "{name} cannot hold matrices whose size differs from protein to protein; use npz, h5 or safetensors"
        )));
    }
    let pooled = schema
        .columns
        .iter()
        .filter(|column| column.rows == RowKind::PerSequence)
        .count();
    if format == EmbeddingFormat::Tsv && pooled != 0 && pooled != schema.columns.len() {
        return Err(invalid_input(
            "a tsv has one row per protein or one row per residue, so pooled and per-residue columns \
             cannot share it; write two files, or use --format jsonl, npz, h5, safetensors, \
             parquet or arrow"
                .into(),
        ));
    }
    Ok(())
}
