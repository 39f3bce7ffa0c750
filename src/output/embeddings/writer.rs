//! One writer for all formats: checks what arrives, hands it on, names the record in errors.

use std::io;
use std::path::Path;

use super::destination::EmbeddingOutput;
use super::error::{invalid_input, with_context};
use super::{EmbeddingFormat, EmbeddingRecord, RowKind, Schema};
use super::{arrow, h5, jsonl, npy, npz, parquet, safetensors, tsv};
use crate::number::NumberType;
use crate::sequence::digest::InputDigest;

/// A format's own writer. Records come in order and have the shapes of the schema.
pub(super) trait RecordWriter: Send {
    /// Writes one record.
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()>;
    /// Writes what comes after the last record, with the schema as it is now, and commits the output.
    fn finish(self: Box<Self>, schema: &Schema) -> io::Result<()>;
}

/// Writes embeddings in one of the formats.
///
/// Every error keeps its [`io::ErrorKind`]: a closed pipe is `BrokenPipe` and a full disk
/// `StorageFull` whichever library met it first.
pub struct EmbeddingWriter {
    schema: Schema,
    inner: Box<dyn RecordWriter>,
    records: u64,
    /// The first error; a file with a hole must never be completed.
    failure: Option<io::ErrorKind>,
}

impl EmbeddingWriter {
    /// Opens the file `path`, or standard output for `-`. The file is written beside its name and renamed by
    /// [`EmbeddingWriter::finish`]; a writer dropped before leaves nothing, and an older file of the name stays. A device or a named
    /// pipe is written to directly.
    ///
    /// # Errors
    /// `InvalidInput` for what the format cannot hold, with the way out: bf16 anywhere but in
    /// safetensors, several columns in npy, pooled beside per-residue columns in tsv, npy into a
    /// stream. Else what opening the file says.
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

    /// Notes the number of records and the digest of the input in the manifest, completes the file and gives it its name.
    ///
    /// # Errors
    /// An earlier error again; else what the disk or pipe says.
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
            "npy holds one array but {} columns were asked for; use --format npz, h5, \
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
            "{name} has no matrices of another size for each protein; use npz, h5 or safetensors"
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
