//! A NumPy archive that needs no pickle: `numpy.load(FILE)["P12345"]`.
//!
//! The key is the id, or `id/column` when there are several columns; the array is `(d)` pooled,
//! `(L, d)` per residue. The archive is a zip without compression, written front to back, so that
//! it can be piped. The comment of the archive is the schema; the comment of an entry is the length
//! of the protein (`residues=412`).
//!
//! An id that would leave the folder in which the archive is unpacked, or that NumPy would take for
//! another one (`x.npy` beside `x`), is escaped in the key: a backslash is `%5C`, a slash without a
//! name on both sides `%2F`, a name of dots alone begins with `%2E`, a drive ends in `%3A`, `.npy` at
//! the end is `%2Enpy`, `%` is `%25`. The comment of the entry then has the id
//! itself (`residues=412 id=../x`), and `urllib.parse.unquote` gives it back, too.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zip::result::ZipError;
use zip::write::{ExtendedFileOptions, FileOptions, PreparedZipFile, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::codec::{RecordWriter, Records};
use super::destination::EmbeddingOutput;
use super::error::{from_library, invalid_data, invalid_input};
use super::npy::{read_header, write_header};
use super::numbers::to_bytes;
use super::{Column, EmbeddingRecord, Schema};
use crate::shown::shown;

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
            let name = escape(&record.id);
            let key = key(&name, column, &self.schema);
            // The entry is prepared first, so that size and checksum precede the data and a stream
            // can be read.
            let options = entry_options(record, &name);
            let entry = PreparedZipFile::from_data(format!("{key}.npy"), options, &array)
                .map_err(from_library)?;
            zip.add_prepared_file(entry).map_err(|error| match error {
                ZipError::InvalidArchive(what) if what.starts_with("Duplicate filename") => {
                    invalid_data(format!(
                        "there is an array called `{}` already",
                        shown(&key)
                    ))
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

fn entry_options(
    record: &EmbeddingRecord,
    name: &str,
) -> FileOptions<'static, 'static, ExtendedFileOptions> {
    let mut comment = format!("residues={}", record.length);
    if name != record.id {
        comment.push_str(ID);
        comment.push_str(&record.id);
    }
    FileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
        .with_file_comment(comment)
}

/// Stands before the id in the comment of an entry whose key is not the id.
const ID: &str = " id=";

/// An id as the key of its array; see the head of this file.
fn escape(id: &str) -> String {
    let is_drive =
        id.len() > 1 && id.as_bytes()[0].is_ascii_alphabetic() && id[1..].starts_with(':');
    let needs = id.contains(['%', '\\', '\0'])
        || is_drive
        || has_npy_extension(id)
        || id
            .split('/')
            .any(|part| part.bytes().all(|byte| byte == b'.'));
    if !needs {
        return id.to_owned();
    }
    let id = id
        .replace('%', "%25")
        .replace('\\', "%5C")
        .replace('\0', "%00");
    let id = if is_drive {
        id.replacen(':', "%3A", 1)
    } else {
        id
    };
    let mut key = String::new();
    for (number, part) in id.split('/').enumerate() {
        if number > 0 {
            let is_between = !part.is_empty() && !key.is_empty() && !key.ends_with("%2F");
            key.push_str(if is_between { "/" } else { "%2F" });
        }
        match part.strip_prefix('.') {
            Some(rest) if part.bytes().all(|byte| byte == b'.') => {
                key.push_str("%2E");
                key.push_str(rest);
            }
            _ => key.push_str(part),
        }
    }
    if has_npy_extension(&key) {
        key.replace_range(key.len() - 4..key.len() - 3, "%2E");
    }
    key
}

/// Whether NumPy would remove the end of this key, in which case is ignored on some systems.
fn has_npy_extension(key: &str) -> bool {
    let bytes = key.as_bytes();
    bytes.len() >= 4 && bytes[bytes.len() - 4..].eq_ignore_ascii_case(b".npy")
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
                "`{}` is not an array of column {:?}",
                shown(key),
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
            let key = id_of_key(name, column, &self.schema)?;
            let (length, id) = length_and_id(entry.comment())?;
            let id = id.unwrap_or(key);
            if index == 0 {
                id.clone_into(&mut record.id);
                record.length = length;
            } else if id != record.id {
                return Err(invalid_data(format!(
                    "{}: no {:?} array",
                    shown(&record.id),
                    column.name
                )));
            }
            let shape = read_header(&mut entry, self.schema.dtype)?;
            if shape != column.shape(record.length) {
                return Err(invalid_data(format!(
                    "{}: its shape is {shape:?}",
                    shown(&record.id)
                )));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            record.values.push(self.schema.dtype.to_values(&bytes));
        }
        Ok(record)
    }
}

/// The content of an entry's comment; the id is there only if it is not the key.
fn length_and_id(comment: &str) -> io::Result<(usize, Option<&str>)> {
    let (length, id) = match comment.split_once(ID) {
        Some((length, id)) => (length, Some(id)),
        None => (comment, None),
    };
    length
        .strip_prefix("residues=")
        .and_then(|length| Some((length.parse().ok()?, id)))
        .ok_or_else(|| invalid_data("its entry does not have the protein's length".into()))
}

impl Iterator for NpzRecords {
    type Item = io::Result<EmbeddingRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.archive.len()).then(|| self.read_record())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leaves_its_folder_or_looks_like_another() {
        let cases = [
            ("sp|P69905|HBA_HUMAN", "sp|P69905|HBA_HUMAN"),
            ("P12345/2-90", "P12345/2-90"),
            ("100%", "100%25"),
            ("UniRef90:P1", "UniRef90:P1"),
            ("../../evil.npy", "%2E./%2E./evil%2Enpy"),
            ("/etc/passwd", "%2Fetc/passwd"),
            ("a//b/", "a%2F%2Fb%2F"),
            ("./x%2F", "%2E/x%252F"),
            (r"..\\x", "..%5C%5Cx"),
            ("C:/x", "C%3A/x"),
            ("a.npy", "a%2Enpy"),
            ("a.NPY", "a%2ENPY"),
            ("...", "%2E.."),
            ("/", "%2F"),
        ];
        let unsafe_part = |part: &str| part.bytes().all(|byte| byte == b'.');
        for (id, expected) in cases {
            let key = escape(id);
            assert_eq!(key, expected);
            assert!(
                !key.split('/').any(unsafe_part) && !key.contains('\\'),
                "{key}"
            );
        }
    }
}
