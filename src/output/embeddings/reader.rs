//! The reader of all formats: recognises the format, checks records, and names the record in
//! errors.

use std::io;
use std::path::{Path, PathBuf};

use super::codec::Records;
use super::{EmbeddingError, EmbeddingFormat, EmbeddingRecord, Schema};
use super::{arrow, h5, jsonl, npy, npz, parquet, safetensors, tsv};

/// Reads an embedding file written by [`EmbeddingWriter`](super::EmbeddingWriter), one record at a
/// time.
///
/// The iterator ends after an error. Values are in single precision, which represents f16 and bf16
/// exactly.
pub struct EmbeddingReader {
    path: PathBuf,
    format: EmbeddingFormat,
    schema: Schema,
    records: Records,
    position: u64,
    /// True after the last record or an error.
    ended: bool,
}

impl EmbeddingReader {
    /// Opens a file, whose format is recognised by its first bytes, whatever its name. A tsv or
    /// jsonl file without `FILE.json` gets a schema from its first line, with empty metadata.
    ///
    /// # Errors
    /// A file that cannot be opened, has an unknown format, or has no schema.
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

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Format of the file.
    pub fn format(&self) -> EmbeddingFormat {
        self.format
    }

    /// The columns, and how they were made.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Rejects a file that holds more or fewer records than its manifest says; warns where the
    /// manifest does not say it.
    fn check_count(&self) -> Result<(), EmbeddingError> {
        match self.schema.metadata.written {
            Some(written) if written != self.position => Err(EmbeddingError::Count {
                path: self.path.clone(),
                found: self.position,
                written,
            }),
            Some(_) => Ok(()),
            None => {
                tracing::warn!(
                    "{}: no manifest says how many records the file must hold, so it cannot be checked that none is missing",
                    self.path.display()
                );
                Ok(())
            }
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
