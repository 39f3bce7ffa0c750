//! One reader for all formats: recognises the file, checks its records, names them in errors.

use std::io;
use std::path::{Path, PathBuf};

use super::{EmbeddingError, EmbeddingFormat, EmbeddingRecord, Schema};
use super::{arrow, h5, jsonl, npy, npz, parquet, safetensors, tsv};

/// The records of one file, in the order they were written.
pub(super) type Records = Box<dyn Iterator<Item = io::Result<EmbeddingRecord>> + Send>;

/// Reads an embedding file that [`EmbeddingWriter`](super::EmbeddingWriter) wrote, one record at a time.
///
/// An iterator of records; after an error it ends. Values come in single precision, which holds
/// f16 and bf16 exactly.
pub struct EmbeddingReader {
    path: PathBuf,
    format: EmbeddingFormat,
    schema: Schema,
    records: Records,
    position: u64,
    /// After the last record or an error.
    ended: bool,
}

impl EmbeddingReader {
    /// Opens a file whatever its name, by its first bytes.
    ///
    /// # Errors
    /// When it cannot be opened, is of no known format, or has no schema. A tsv or jsonl without
    /// its `FILE.json` is read with a schema taken from its first line and empty metadata.
    pub fn open(path: &Path) -> Result<Self, EmbeddingError> {
        let (format, (schema, records)) = EmbeddingFormat::detect(path)
            .and_then(|format| Ok((format, open_as(format, path)?)))
            .and_then(|opened| opened.1.0.check().map(|()| opened))
            .map_err(|source| EmbeddingError::Open {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: path.to_owned(),
            format,
            schema,
            records,
            position: 0,
            ended: false,
        })
    }

    /// The file read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format.
    pub fn format(&self) -> EmbeddingFormat {
        self.format
    }

    /// Its columns and how they were made.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Rejects a file that holds more or fewer records than its manifest says.
    fn check_count(&self) -> Result<(), EmbeddingError> {
        match self.schema.metadata.written {
            Some(written) if written != self.position => Err(EmbeddingError::Count {
                path: self.path.clone(),
                found: self.position,
                written,
            }),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, id: Option<String>, source: io::Error) -> EmbeddingError {
        self.ended = true;
        EmbeddingError::Record {
            path: self.path.clone(),
            record: self.position,
            id,
            source,
        }
    }
}

impl Iterator for EmbeddingReader {
    type Item = Result<EmbeddingRecord, EmbeddingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let Some(record) = self.records.next() else {
            self.ended = true;
            return self.check_count().err().map(Err);
        };
        self.position += 1;
        Some(match record {
            Ok(record) => match self.schema.check_record(&record) {
                Ok(()) => Ok(record),
                Err(error) => Err(self.fail(Some(record.id), error)),
            },
            Err(error) => Err(self.fail(None, error)),
        })
    }
}

fn open_as(format: EmbeddingFormat, path: &Path) -> io::Result<(Schema, Records)> {
    match format {
        EmbeddingFormat::Tsv => tsv::open(path),
        EmbeddingFormat::Jsonl => jsonl::open(path),
        EmbeddingFormat::Npy => npy::open(path),
        EmbeddingFormat::Npz => npz::open(path),
        EmbeddingFormat::H5 => h5::open(path),
        EmbeddingFormat::Safetensors => safetensors::open(path),
        EmbeddingFormat::Parquet => parquet::open(path),
        EmbeddingFormat::Arrow => arrow::open(path),
    }
}
