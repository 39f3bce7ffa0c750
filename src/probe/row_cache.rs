//! Rows of numbers on disk, by key: written once, read in any order, shared by runs.
//!
//! One folder per manifest (a description of how the numbers are computed), named by the manifest's
//! hash: `manifest.json`, `rows.bin` (little-endian f32 or f16, one record after the other) and
//! `index.tsv` (key, first byte, values per record, CRC-32 of key and record). A record that was cut
//! off is dropped when the folder is opened again; a record whose checksum is wrong is an error when
//! it is read. A folder is locked by one process at a time.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::io::atomic_folder::AtomicFolder;
use crate::number::NumberType;
use crate::sequence::digest::hex;

/// The key of a record: a hash of the input that its rows were computed from.
pub type RowKey = [u8; 32];

/// The place of a record in `rows.bin`.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    values: u64,
    /// `None` in a line of a version that wrote no checksums.
    checksum: Option<u32>,
}

/// A folder of records, open and locked.
#[derive(Debug)]
pub struct RowCache {
    folder: PathBuf,
    number_type: NumberType,
    rows: File,
    index_file: File,
    index: HashMap<RowKey, Place>,
    end: u64,
    _lock: File,
    /// The directory above the folder, where it is deleted with this value.
    temporary: Option<AtomicFolder>,
}

/// The key of an input of several parts.
pub fn key(parts: &[&[u8]]) -> RowKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

impl RowCache {
    /// Opens the folder of `manifest` below `root`; waits while another process holds the lock.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn open(root: &Path, manifest: &str, number_type: NumberType) -> io::Result<Self> {
        let name = &hex(&key(&[manifest.as_bytes(), number_type.name().as_bytes()]))[..16];
        let folder = root.join(name);
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            tracing::info!("waiting for another process that uses {}", folder.display());
            lock.lock()?;
        }
        fs::write(folder.join("manifest.json"), manifest)?;
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(folder.join(name))
        };
        let (rows, index_file) = (open("rows.bin")?, open("index.tsv")?);
        let mut cache = Self {
            number_type,
            rows,
            index_file,
            index: HashMap::new(),
            end: 0,
            _lock: lock,
            temporary: None,
            folder,
        };
        cache.read_index()?;
        Ok(cache)
    }

    /// Opens a folder in a temporary directory, which is deleted with the returned value.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn temporary(manifest: &str, number_type: NumberType) -> io::Result<Self> {
        let directory = AtomicFolder::create(&std::env::temp_dir().join("ankh3-embeddings"))?;
        let mut cache = Self::open(directory.path(), manifest, number_type)?;
        cache.temporary = Some(directory);
        Ok(cache)
    }

    /// Reads the index lines whose rows are complete, and cuts off the rest.
    fn read_index(&mut self) -> io::Result<()> {
        let available = self.rows.metadata()?.len();
        let mut reader = BufReader::new(self.index_file.try_clone()?);
        let (mut line, mut good) = (String::new(), 0);
        while reader.read_line(&mut line)? > 0 {
            let Some((key, place)) = parse(&line) else {
                break;
            };
            let bytes = place.values.checked_mul(self.number_type.size() as u64);
            let end = bytes.and_then(|bytes| place.offset.checked_add(bytes));
            let Some(end) = end.filter(|end| *end <= available) else {
                break;
            };
            self.index.insert(key, place);
            self.end = self.end.max(end);
            good += line.len() as u64;
            line.clear();
        }
        self.warn_of_unverifiable_records();
        self.index_file.set_len(good)?;
        io::Seek::seek(&mut self.index_file, io::SeekFrom::Start(good))?;
        self.rows.set_len(self.end)
    }

    fn warn_of_unverifiable_records(&self) {
        let places = self.index.values();
        let count = places.filter(|place| place.checksum.is_none()).count();
        if count > 0 {
            tracing::warn!(
                "{}: {count} of {} records have no checksum, because an earlier version wrote them; delete the folder to compute them again",
                self.folder.display(),
                self.index.len()
            );
        }
    }

    /// The path of the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is a record of this key.
    pub fn has(&self, key: &RowKey) -> bool {
        self.index.contains_key(key)
    }

    /// Writes a record, unless there is one of this key.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn insert(&mut self, key: RowKey, values: &[f32]) -> io::Result<()> {
        if self.has(&key) {
            return Ok(());
        }
        let bytes = self.number_type.to_bytes(values);
        self.rows.write_all_at(&bytes, self.end)?;
        let (offset, values, checksum) = (self.end, values.len() as u64, checksum(&key, &bytes));
        writeln!(
            self.index_file,
            "{}\t{offset}\t{values}\t{checksum:08x}",
            hex(&key)
        )?;
        let place = Place {
            offset,
            values,
            checksum: Some(checksum),
        };
        self.index.insert(key, place);
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `NotFound` for an unknown key; `InvalidData` where the record is not as it was written;
    /// errors of the file system.
    pub fn read(&self, key: &RowKey) -> io::Result<Vec<f32>> {
        let Some(place) = self.index.get(key) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut bytes = vec![0; place.values as usize * self.number_type.size()];
        self.rows.read_exact_at(&mut bytes, place.offset)?;
        if place
            .checksum
            .is_some_and(|written| written != checksum(key, &bytes))
        {
            let message = format!(
                "the record at byte {} of rows.bin is not what was written (checksum); delete the folder, so that its embeddings are computed again",
                place.offset
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(self.number_type.to_values(&bytes))
    }
}

/// A record's checksum. It covers the key, so that a record under another key is no valid one.
fn checksum(key: &RowKey, bytes: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(key);
    checksum.update(bytes);
    checksum.finalize()
}

fn parse(line: &str) -> Option<(RowKey, Place)> {
    let mut fields = line.strip_suffix('\n')?.split('\t');
    let (hex, offset, values) = (fields.next()?, fields.next()?, fields.next()?);
    let mut key = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    let checksum = match fields.next() {
        Some(text) if text.len() == 8 => Some(u32::from_str_radix(text, 16).ok()?),
        Some(_) => return None,
        None => None,
    };
    let place = Place {
        offset: offset.parse().ok()?,
        values: values.parse().ok()?,
        checksum,
    };
    Some((key, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_outlive_the_process_and_a_record_that_was_cut_off_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let open = || RowCache::open(root.path(), "m", NumberType::F32).unwrap();
        let mut cache = open();
        let (a, b) = (key(&[b"a"]), key(&[b"b"]));
        cache.insert(a, &[1.0, 2.5]).unwrap();
        cache.insert(b, &[-3.0]).unwrap();
        let folder = cache.folder().to_owned();
        drop(cache);
        // The last record lost a byte, the index has half a line.
        let rows = OpenOptions::new()
            .write(true)
            .open(folder.join("rows.bin"))
            .unwrap();
        rows.set_len(11).unwrap();
        let mut index = OpenOptions::new()
            .append(true)
            .open(folder.join("index.tsv"))
            .unwrap();
        index.write_all(b"00ff").unwrap();
        let mut cache = open();
        assert_eq!(cache.read(&a).unwrap(), [1.0, 2.5]);
        assert!(!cache.has(&b) && cache.read(&b).is_err());
        cache.insert(b, &[7.0]).unwrap();
        drop(cache);
        assert_eq!(open().read(&b).unwrap(), [7.0]);
    }

    #[test]
    fn a_changed_record_is_an_error_and_a_record_without_checksum_is_read() {
        let root = tempfile::tempdir().unwrap();
        let open = || RowCache::open(root.path(), "m", NumberType::F32).unwrap();
        let mut cache = open();
        let (a, b) = (key(&[b"a"]), key(&[b"b"]));
        cache.insert(a, &[1.0, 2.5]).unwrap();
        cache.insert(b, &[-3.0, 4.0]).unwrap();
        let folder = cache.folder().to_owned();
        drop(cache);
        let (rows, index) = (folder.join("rows.bin"), folder.join("index.tsv"));
        let (good, lines) = (
            fs::read(&rows).unwrap(),
            fs::read_to_string(&index).unwrap(),
        );
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            fs::write(&rows, bad).unwrap();
            let cache = open();
            let (changed, same) = if byte < 8 { (a, b) } else { (b, a) };
            let error = cache.read(&changed).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("delete the folder"), "{error}");
            assert!(cache.read(&same).is_ok());
        }
        fs::write(&rows, &good).unwrap();
        // The keys of the two lines exchanged, and a record that begins elsewhere.
        let exchanged = lines.replace(&hex(&a), "?").replace(&hex(&b), &hex(&a));
        let exchanged = exchanged.replace('?', &hex(&b));
        let moved = lines.replacen("\t8\t2\t", "\t4\t2\t", 1);
        assert_ne!(moved, lines);
        for text in [exchanged, moved] {
            fs::write(&index, text).unwrap();
            assert!(open().read(&b).is_err());
            fs::write(&rows, &good).unwrap();
        }
        // As an earlier version wrote the lines, and with numbers that no file holds.
        let without = |line: &str| line.rsplit_once('\t').unwrap().0.to_owned() + "\n";
        let old: String = lines.lines().map(without).collect();
        fs::write(&index, &old).unwrap();
        assert_eq!(open().read(&b).unwrap(), [-3.0, 4.0]);
        for absurd in [
            "18446744073709551615\t2",
            "0\t4611686018427387905",
            "8\t3",
            "-1\t2",
        ] {
            fs::write(&index, format!("{}\t{absurd}\n", hex(&a))).unwrap();
            assert!(!open().has(&a), "{absurd}");
            fs::write(&rows, &good).unwrap();
        }
    }

    #[test]
    fn manifests_and_precisions_have_folders_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = RowCache::open(root.path(), "m", NumberType::F16).unwrap();
        let a = key(&[b"a"]);
        cache.insert(a, &[0.1]).unwrap();
        assert!((cache.read(&a).unwrap()[0] - 0.1).abs() < 1e-4);
        for (manifest, number_type) in [("m", NumberType::F32), ("n", NumberType::F16)] {
            assert!(
                !RowCache::open(root.path(), manifest, number_type)
                    .unwrap()
                    .has(&a)
            );
        }
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
