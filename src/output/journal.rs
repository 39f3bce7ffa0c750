//! The journal: the finished results of a run, kept beside its output, so that an interrupted run
//! can be resumed.
//!
//! `OUTPUT.resume` begins with a key, the description of everything that influences the results.
//! Then come the entries, each with its length and checksum. An entry that was cut off in the
//! middle is dropped and computed again. The final output is always written as a whole, from the
//! entries of the journal and the new results, so it has the same bytes as the output of a run
//! without interruption.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use super::manifest::differences;

const MAGIC: &[u8; 8] = b"ankh3jr2";
/// The bytes with which the journals of all versions begin.
const ANY_VERSION: &[u8] = b"ankh3jr";
/// Largest length of an entry; a larger value means that the file is damaged.
const MAX_ENTRY: u64 = 1 << 40;

/// Why a journal cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum JournalError {
    /// The journal belongs to another run.
    #[error(
        "{} holds results of another run: {differences}. Repeat the command that made it, or delete it to begin anew, or run without --resume",
        .path.display()
    )]
    OtherRun {
        path: PathBuf,
        /// How the other run differs from this one: `prefix was "nlu", now "s2s"`.
        differences: String,
    },
    /// Another process writes the journal.
    #[error("{} is in use by another run; wait for its end, or choose another output for this run", .path.display())]
    InUse { path: PathBuf },
    /// Reading or writing failed.
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The entries of an earlier run, in order.
pub struct Replay {
    reader: BufReader<File>,
    left: u64,
}

/// A journal, open to append entries.
pub struct Journal {
    path: PathBuf,
    writer: BufWriter<File>,
    /// The offset of the first entry.
    start: u64,
}

/// The path of the journal of an output file.
pub fn path_for(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".resume");
    output.with_file_name(name)
}

/// Opens the journal at `path`, or begins a new one. Returns the entries of an earlier run with the
/// same `key`, and the journal to append to.
///
/// # Errors
/// A journal with another key, or one that cannot be read or written.
pub fn open(path: &Path, key: &str) -> Result<(Replay, Journal), JournalError> {
    let io_error = |source| JournalError::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io_error)?;
    // Some network file systems have no locks; there the user must avoid two runs at once.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(JournalError::InUse {
            path: path.to_owned(),
        });
    }
    let mut reader = BufReader::new(file.try_clone().map_err(io_error)?);
    let found = read_header(&mut reader).map_err(io_error)?;
    let (start, end, entries) = match &found {
        Some(_) => scan(&mut reader).map_err(io_error)?,
        None => (0, 0, 0),
    };
    let (found, start, end) = match found {
        Some(found) if found == key => (Some(found), start, end),
        Some(found) if entries > 0 => {
            return Err(JournalError::OtherRun {
                path: path.to_owned(),
                differences: differences(&json(&found), &json(key)).join("; "),
            });
        }
        // A journal without entries can be replaced without loss.
        _ => (None, 0, 0),
    };
    let mut writer = BufWriter::new(file);
    (|| {
        writer.get_ref().set_len(end)?;
        writer.seek(SeekFrom::Start(end))?;
        if found.is_none() {
            writer.write_all(MAGIC)?;
            write_entry(&mut writer, key.as_bytes())?;
            writer.flush()?;
        }
        Ok(())
    })()
    .map_err(io_error)?;
    let mut reader = BufReader::new(File::open(path).map_err(io_error)?);
    reader.seek(SeekFrom::Start(start)).map_err(io_error)?;
    Ok((
        Replay {
            reader,
            left: entries,
        },
        Journal {
            path: path.to_owned(),
            writer,
            start: (MAGIC.len() + 12 + key.len()) as u64,
        },
    ))
}

/// The key as JSON, so that its parts can be compared.
fn json(key: &str) -> Value {
    serde_json::from_str(key).unwrap_or_else(|_| Value::from(key))
}

/// The key; `None` if the file ends before the key is complete (an empty file, or a run that was
/// killed at once).
fn read_header(reader: &mut impl Read) -> io::Result<Option<String>> {
    let mut magic = [0; 8];
    match reader.read_exact(&mut magic) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if &magic != MAGIC {
        let problem = if magic.starts_with(ANY_VERSION) {
            "this journal was made by another version of ankh3; continue with that version, or delete the file to begin anew"
        } else {
            "not a journal of ankh3; move this file away"
        };
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let key = read_entry(reader)?;
    Ok(key.map(|key| String::from_utf8_lossy(&key).into_owned()))
}

/// The offset of the first entry, the end of the last complete entry, and the number of entries.
/// The reader must be at the first entry.
fn scan(reader: &mut BufReader<File>) -> io::Result<(u64, u64, u64)> {
    let start = reader.stream_position()?;
    let (mut end, mut entries) = (start, 0);
    while let Some(payload) = read_entry(reader)? {
        end += payload.len() as u64 + 12;
        entries += 1;
    }
    Ok((start, end, entries))
}

fn write_entry(writer: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    writer.write_all(&(payload.len() as u64).to_le_bytes())?;
    writer.write_all(&crc32fast::hash(payload).to_le_bytes())?;
    writer.write_all(payload)
}

/// The next entry; `None` at the end, or at the first entry that is not complete.
fn read_entry(reader: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 12];
    let mut have = 0;
    while have < head.len() {
        match reader.read(&mut head[have..])? {
            0 => return Ok(None),
            n => have += n,
        }
    }
    let length = u64::from_le_bytes(head[..8].try_into().expect("eight bytes"));
    let checksum = u32::from_le_bytes(head[8..].try_into().expect("four bytes"));
    if length > MAX_ENTRY {
        return Ok(None);
    }
    let mut payload = Vec::new();
    reader.take(length).read_to_end(&mut payload)?;
    let whole = payload.len() as u64 == length && crc32fast::hash(&payload) == checksum;
    Ok(whole.then_some(payload))
}

impl Replay {
    /// The next entry of the earlier run.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn next_entry(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        read_entry(&mut self.reader)
    }

    /// Number of entries that have not been read.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Journal {
    /// Appends an entry. After [`Journal::flush`], the entry is kept even if this process is
    /// killed.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        write_entry(&mut self.writer, payload)
    }

    /// Passes all entries to the operating system.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Removes all entries.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn empty(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.writer.get_ref().set_len(self.start)?;
        self.writer.seek(SeekFrom::Start(self.start))?;
        Ok(())
    }

    /// Deletes the journal, which is not needed once the output is complete.
    ///
    /// # Errors
    /// Where the file cannot be deleted.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(path: &Path, key: &str) -> Vec<Vec<u8>> {
        let (mut replay, _) = open(path, key).unwrap();
        std::iter::from_fn(|| replay.next_entry().unwrap()).collect()
    }

    #[test]
    fn a_journal_cut_off_at_any_byte_keeps_every_complete_entry_and_takes_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.npz.resume");
        let payloads: [&[u8]; 4] = [b"first", b"", b"the third entry", b"4"];
        let (_, mut journal) = open(&path, "key").unwrap();
        for payload in &payloads {
            journal.append(payload).unwrap();
        }
        journal.flush().unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (mut replay, mut journal) = open(&path, "key").unwrap();
            let mut found = 0;
            while let Some(entry) = replay.next_entry().unwrap() {
                assert_eq!(entry, payloads[found], "cut at {length}");
                found += 1;
            }
            for payload in &payloads[found..] {
                journal.append(payload).unwrap();
            }
            journal.flush().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {length}");
        }
    }

    #[test]
    fn an_emptied_journal_takes_new_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let (_, mut journal) = open(&path, "key").unwrap();
        journal
            .append(b"an old entry, longer than the new one")
            .unwrap();
        journal.empty().unwrap();
        assert_eq!(entries_of(&path), 0);
        journal.append(b"new").unwrap();
        drop(journal);
        assert_eq!(entries(&path, "key"), [b"new"]);
    }

    fn entries_of(path: &Path) -> u64 {
        let mut reader = BufReader::new(File::open(path).unwrap());
        read_header(&mut reader).unwrap();
        scan(&mut reader).unwrap().2
    }

    #[test]
    fn entries_after_damage_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let (_, mut journal) = open(&path, "key").unwrap();
        for i in 0..3 {
            journal.append(&[i; 20]).unwrap();
        }
        journal.flush().unwrap();
        drop(journal);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() - 40;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(entries(&path, "key"), [[0; 20]]);
    }

    #[test]
    fn a_journal_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let first = open(&path, "key").unwrap();
        let error = open(&path, "key").err().unwrap().to_string();
        assert!(error.contains("in use"), "{error}");
        drop(first);
        assert!(open(&path, "key").is_ok());
    }

    #[test]
    fn the_journal_of_another_run_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        // A journal without entries may be replaced.
        drop(open(&path, "none").unwrap());
        let (_, mut journal) = open(&path, "one").unwrap();
        journal.append(b"an entry").unwrap();
        drop(journal);
        let error = open(&path, "two").err().unwrap().to_string();
        assert!(
            error.contains("another run") && error.contains("one"),
            "{error}"
        );
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, [b"ankh3jr1", &bytes[8..]].concat()).unwrap();
        let error = open(&path, "one").err().unwrap().to_string();
        assert!(error.contains("another version of ankh3"), "{error}");
        std::fs::write(&path, "a file of the user's own").unwrap();
        assert!(open(&path, "one").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file of the user's own");
    }
}
