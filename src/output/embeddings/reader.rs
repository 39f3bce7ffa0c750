//! One reader for all formats: recognises the file, checks its records, names them in errors.

use std::io;
use std::path::{Path, PathBuf};

use super::{EmbeddingError, EmbeddingRecord, Format, Schema};
use super::{arrow, h5, jsonl, npy, npz, parquet, safetensors, tsv};

/// The records of one file, in the order they were written.
pub(super) type Records = Box<dyn Iterator<Item = io::Result<EmbeddingRecord>> + Send>;

/// Reads an embedding file that [`Writer`](super::Writer) wrote, one record at a time.
///
/// An iterator of records; after an error it ends. Values come in single precision, which holds
/// f16 and bf16 exactly.
pub struct Reader {
    path: PathBuf,
    format: Format,
    schema: Schema,
    records: Records,
    position: u64,
    failed: bool,
}

impl Reader {
    /// Opens a file whatever its name, by its first bytes.
    ///
    /// # Errors
    /// When it cannot be opened, is of no known format, or has no schema. A tsv or jsonl without
    /// its `FILE.json` is read with a schema taken from its first line and empty metadata.
    pub fn open(path: &Path) -> Result<Self, EmbeddingError> {
        let (format, (schema, records)) = Format::detect(path)
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
            failed: false,
        })
    }

    /// The file read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What it holds and how that was made.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    fn fail(&mut self, id: Option<String>, source: io::Error) -> EmbeddingError {
        self.failed = true;
        EmbeddingError::Record {
            path: self.path.clone(),
            record: self.position,
            id,
            source,
        }
    }
}

impl Iterator for Reader {
    type Item = Result<EmbeddingRecord, EmbeddingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.records.next()?;
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

fn open_as(format: Format, path: &Path) -> io::Result<(Schema, Records)> {
    match format {
        Format::Tsv => tsv::open(path),
        Format::Jsonl => jsonl::open(path),
        Format::Npy => npy::open(path),
        Format::Npz => npz::open(path),
        Format::H5 => h5::open(path),
        Format::Safetensors => safetensors::open(path),
        Format::Parquet => parquet::open(path),
        Format::Arrow => arrow::open(path),
    }
}
