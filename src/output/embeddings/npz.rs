//! A NumPy archive that needs no pickle: `numpy.load(FILE)["P12345"]`.
//!
//! The key is the id, or `id/column` when there are several columns; the array is `(d)` pooled,
//! `(L, d)` per residue. The archive is a zip without compression, written front to back, so that
//! it can be piped. The comment of the archive is the schema; the comment of an entry is the length
//! of the protein (`residues=412`). Avoid the ids `x` and `x.npy` in one file: NumPy looks up both
//! names with and without the extension.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zip::result::ZipError;
use zip::write::{ExtendedFileOptions, FileOptions, PreparedZipFile, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::destination::EmbeddingOutput;
use super::error::{from_library, invalid_data, invalid_input};
use super::npy::{read_header, write_header};
use super::numbers::to_bytes;
use super::reader::Records;
use super::writer::RecordWriter;
use super::{Column, EmbeddingRecord, Schema};

/// Writes entries as they come; keeps the zip's directory.
pub(super) struct NpzWriter {
    /// `None` once finished.
    zip: Option<ZipWriter<StreamWriter<Gate>>>,
    closed: Arc<AtomicBool>,
    schema: Schema,
}

impl NpzWriter {
    pub(super) fn new(output: EmbeddingOutput, schema: &Schema) -> io::Result<Self> {
        check_comment(schema)?;
        let closed = Arc::new(AtomicBool::new(false));
        let zip = ZipWriter::new_stream(Gate {
            output,
            closed: closed.clone(),
        });
        Ok(Self {
            zip: Some(zip),
            closed,
            schema: schema.clone(),
        })
    }
}

impl Drop for NpzWriter {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// A gate before the output, closed by the first error or by dropping the writer; a closed gate
/// passes no bytes. Without the gate, a dropped `ZipWriter` would complete its archive: a failed
/// run would leave a file that looks complete, and `| head` would end with a message on stderr.
struct Gate {
    output: EmbeddingOutput,
    closed: Arc<AtomicBool>,
}

impl Gate {
    fn pass<T>(
        &mut self,
        blocked: T,
        pass: impl Fn(&mut EmbeddingOutput) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.closed.load(Ordering::Relaxed) {
            return Ok(blocked);
        }
        let result = pass(&mut self.output);
        if result
            .as_ref()
            .is_err_and(|error| error.kind() != io::ErrorKind::Interrupted)
        {
            self.closed.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass(bytes.len(), |output| output.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass((), EmbeddingOutput::flush)
    }
}

impl RecordWriter for NpzWriter {
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()> {
        let zip = self.zip.as_mut().expect("a writer in use is not finished");
        for (column, values) in self.schema.columns.iter().zip(&record.values) {
            let mut array = Vec::new();
            write_header(&mut array, self.schema.dtype, &column.shape(record.length))?;
            array.extend(to_bytes(values, self.schema.dtype)?);
            let key = key(&record.id, column, &self.schema);
            // The entry is prepared first, so that size and checksum precede the data and a stream
            // can be read.
            let options = entry_options(record.length);
            let entry = PreparedZipFile::from_data(format!("{key}.npy"), options, &array)
                .map_err(from_library)?;
            zip.add_prepared_file(entry).map_err(|error| match error {
                ZipError::InvalidArchive(what) if what.starts_with("Duplicate filename") => {
                    invalid_data(format!("there is an array called {key:?} already"))
                }
                other => from_library(other),
            })?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, schema: &Schema) -> io::Result<()> {
        let mut zip = self.zip.take().expect("a writer in use is not finished");
        zip.set_comment(schema.to_json()?).map_err(from_library)?;
        zip.finish()
            .map_err(from_library)?
            .into_inner()
            .output
            .commit()
    }
}

/// Rejects a schema that does not fit into the archive's comment, before anything is computed.
fn check_comment(schema: &Schema) -> io::Result<()> {
    if schema.longest().to_json()?.len() > usize::from(u16::MAX) {
        return Err(invalid_input(
            "the metadata is larger than npz allows (64 KiB)".into(),
        ));
    }
    Ok(())
}

fn entry_options(length: usize) -> FileOptions<'static, 'static, ExtendedFileOptions> {
    FileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
        .with_file_comment(format!("residues={length}"))
}

/// The name of a protein's array: the id, with the column if there are several.
pub(super) fn key(id: &str, column: &Column, schema: &Schema) -> String {
    if schema.columns.len() == 1 {
        id.to_owned()
    } else {
        format!("{id}/{}", column.name)
    }
}

/// The id in a name made by [`key`].
pub(super) fn id_of_key<'a>(key: &'a str, column: &Column, schema: &Schema) -> io::Result<&'a str> {
    if schema.columns.len() == 1 {
        return Ok(key);
    }
    key.strip_suffix(&column.name)
        .and_then(|rest| rest.strip_suffix('/'))
        .ok_or_else(|| {
            invalid_data(format!(
                "{key:?} is not an array of column {:?}",
                column.name
            ))
        })
}

/// Reads the schema from the archive's comment, the records in the order of its directory.
pub(super) fn open(path: &Path) -> io::Result<(Schema, Records)> {
    let archive = ZipArchive::new(BufReader::new(File::open(path)?)).map_err(from_library)?;
    let comment = str::from_utf8(archive.comment()).map_err(from_library)?;
    let schema = Schema::from_json(comment)?;
    schema.check()?;
    if archive.len() % schema.columns.len() != 0 {
        return Err(invalid_data(
            "the columns have different numbers of arrays".into(),
        ));
    }
    Ok((
        schema.clone(),
        Box::new(NpzRecords {
            archive,
            schema,
            next: 0,
        }),
    ))
}

struct NpzRecords {
    archive: ZipArchive<BufReader<File>>,
    schema: Schema,
    next: usize,
}

impl NpzRecords {
    fn read_record(&mut self) -> io::Result<EmbeddingRecord> {
        let mut record = EmbeddingRecord {
            id: String::new(),
            length: 0,
            values: Vec::new(),
        };
        for (index, column) in self.schema.columns.iter().enumerate() {
            let mut entry = self.archive.by_index(self.next).map_err(from_library)?;
            self.next += 1;
            let name = entry.name().map_err(from_library)?.into_owned();
            let name = name.strip_suffix(".npy").unwrap_or(&name);
            let id = id_of_key(name, column, &self.schema)?;
            if index == 0 {
                id.clone_into(&mut record.id);
                record.length = residues(entry.comment())?;
            } else if id != record.id {
                return Err(invalid_data(format!(
                    "{}: no {:?} array",
                    record.id, column.name
                )));
            }
            let shape = read_header(&mut entry, self.schema.dtype)?;
            if shape != column.shape(record.length) {
                return Err(invalid_data(format!(
                    "{}: its shape is {shape:?}",
                    record.id
                )));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            record.values.push(self.schema.dtype.to_values(&bytes));
        }
        Ok(record)
    }
}

fn residues(comment: &str) -> io::Result<usize> {
    comment
        .strip_prefix("residues=")
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| invalid_data("its entry does not have the protein's length".into()))
}

impl Iterator for NpzRecords {
    type Item = io::Result<EmbeddingRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.archive.len()).then(|| self.read_record())
    }
}
