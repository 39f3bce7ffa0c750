//! Files of the cache that are not complete yet.
//!
//! A file in transfer is `blobs/CHECKSUM.ankh3-partial`, and stays when a transfer breaks or its
//! process dies: the next run goes on at its end. A process that writes the file holds a lock on
//! it, which ends with the process; another process waits. Where the filesystem has no locks, each
//! process writes a file of its own, which cannot be taken up by another run.
//!
//! All other unfinished files are `.ankh3-*`, locked as well, so that those of dead processes can be
//! recognised and deleted.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::{NamedTempFile, TempDir, TempPath};

/// What follows the checksum in the name of a file in transfer.
pub(super) const SUFFIX: &str = ".ankh3-partial";

/// The beginning of the names of all other unfinished files.
pub(super) const PREFIX: &str = ".ankh3-";

/// The time between two looks at a file that another process writes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Links are renamed and folders are locked at once; what is older has been left behind.
const OLD: Duration = Duration::from_secs(60);

/// The file in an unfinished folder that its process locks.
const LOCK: &str = "lock";

/// A file in transfer, which no other process writes.
pub(super) struct Partial {
    file: File,
    name: Name,
}

enum Name {
    /// Kept for the next run.
    Kept(PathBuf),
    /// Deleted when the transfer does not end well.
    Deleted(TempPath),
}

impl Partial {
    /// Opens the file in transfer of a blob; `None` where another process has meanwhile completed
    /// the blob. Waits for a process that writes the file, but not longer than `stall` without any
    /// new byte.
    pub(super) fn open(
        blob: &Path,
        size: u64,
        file: &str,
        stall: Duration,
    ) -> io::Result<Option<Self>> {
        let path = path_of(blob);
        let mut growth = Growth::new();
        loop {
            if is_complete(blob, size) {
                return Ok(None);
            }
            let opened = match open_or_create(&path) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Self::unique(blob).map(Some);
                }
                other => other?,
            };
            match opened.try_lock() {
                Ok(()) if !is_named(&opened, &path) => {}
                Ok(()) if is_complete(blob, size) => {
                    fs::remove_file(&path)?;
                    return Ok(None);
                }
                Ok(()) => {
                    let name = Name::Kept(path);
                    return Ok(Some(Partial { file: opened, name }));
                }
                Err(TryLockError::WouldBlock) if growth.stood_still(&opened, stall)? => {
                    return Self::unique(blob).map(Some);
                }
                Err(TryLockError::WouldBlock) => growth.wait(file),
                Err(TryLockError::Error(_)) => {
                    if opened.metadata()?.len() == 0 {
                        fs::remove_file(&path)?;
                    }
                    return Self::unique(blob).map(Some);
                }
            }
        }
    }

    fn unique(blob: &Path) -> io::Result<Self> {
        let (file, path) = unfinished_file(blob.parent().unwrap_or(Path::new(".")))?.into_parts();
        let name = Name::Deleted(path);
        Ok(Partial { file, name })
    }

    pub(super) fn path(&self) -> &Path {
        match &self.name {
            Name::Kept(path) => path,
            Name::Deleted(path) => path,
        }
    }

    /// The file, positioned at its first byte.
    pub(super) fn rewound(&mut self) -> io::Result<&mut File> {
        self.file.rewind()?;
        Ok(&mut self.file)
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Drops all bytes.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()
    }

    /// Deletes the file.
    pub(super) fn delete(self) -> io::Result<()> {
        match self.name {
            Name::Kept(path) => fs::remove_file(path),
            Name::Deleted(path) => path.close(),
        }
    }

    /// Syncs the complete file and renames it to its final name.
    pub(super) fn place(self, blob: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        match self.name {
            Name::Kept(path) => fs::rename(path, blob),
            Name::Deleted(path) => path.persist(blob).map_err(|error| error.error),
        }
    }
}

/// Whether a file that another process writes grows.
struct Growth {
    length: u64,
    since: Instant,
    told: bool,
}

impl Growth {
    fn new() -> Self {
        Growth {
            length: 0,
            since: Instant::now(),
            told: false,
        }
    }

    fn stood_still(&mut self, file: &File, stall: Duration) -> io::Result<bool> {
        let length = file.metadata()?.len();
        if length != self.length {
            (self.length, self.since) = (length, Instant::now());
        }
        Ok(self.since.elapsed() > stall)
    }

    fn wait(&mut self, file: &str) {
        if !self.told {
            tracing::info!("{file}: another process fetches this file; waiting for it");
            self.told = true;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The file in transfer of a blob.
pub(super) fn path_of(blob: &Path) -> PathBuf {
    let mut path = blob.as_os_str().to_os_string();
    path.push(SUFFIX);
    path.into()
}

/// A complete blob that `fetch --prune` leaves alone while the file is open.
pub(super) fn hold(blob: &Path, size: u64) -> Option<File> {
    let file = File::open(blob).ok()?;
    // Without locks a blob is linked as well.
    let _ = file.lock_shared();
    (is_complete(blob, size) && is_named(&file, blob)).then_some(file)
}

/// Whether a blob is there. It got its name after its checksum was verified; the length detects a
/// file that another program truncated.
pub(super) fn is_complete(blob: &Path, size: u64) -> bool {
    fs::metadata(blob).is_ok_and(|found| found.len() == size)
}

fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path)
}

/// Whether the open file still has this name: the process that held the lock may have renamed or
/// deleted it.
fn is_named(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let named = fs::symlink_metadata(path).map(identity);
        let opened = file.metadata().map(identity);
        matches!((named, opened), (Ok(named), Ok(opened)) if named == opened)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// A new file under a unique name, deleted on errors, locked while it is open, with the permissions
/// of a file that other users of the cache may read.
fn unfinished_file(dir: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(".incomplete");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    loop {
        let file = builder.tempfile_in(dir)?;
        match file.as_file().try_lock() {
            // Another process took the new file for a dead one before it was locked.
            Err(TryLockError::WouldBlock) => {}
            Ok(()) if !is_named(file.as_file(), file.path()) => {}
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// A new folder under a unique name, deleted at the end, with a locked file.
pub(super) struct UnfinishedFolder {
    folder: TempDir,
    _lock: File,
}

impl UnfinishedFolder {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(dir)?;
        let lock = File::create(folder.path().join(LOCK))?;
        // Without locks the folder stays until a user deletes it, if its process is killed.
        let _ = lock.try_lock();
        Ok(UnfinishedFolder {
            folder,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Deletes the unfinished files of dead processes directly in `dir`, except files in transfer.
/// Returns their number and their size in bytes.
pub(super) fn delete_dead(dir: &Path) -> io::Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(PREFIX) {
            continue;
        }
        // A file that another process deletes at the same time is no error.
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        let is_old = found.modified()?.elapsed().unwrap_or_default() > OLD;
        let lock = path.join(LOCK);
        let (is_dead, size) = if found.is_dir() {
            let is_dead = if lock.exists() {
                is_unused(&lock)
            } else {
                is_old
            };
            (is_dead, size_of_folder(&path))
        } else if found.is_symlink() {
            (is_old, 0)
        } else {
            (found.is_file() && is_unused(&path), found.len())
        };
        let delete = || {
            if found.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            }
        };
        if is_dead && delete().is_ok() {
            files += 1;
            bytes += size;
        }
    }
    Ok((files, bytes))
}

fn size_of_folder(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

/// Whether no process holds the lock of a file.
pub(super) fn is_unused(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_millis(300);

    #[test]
    fn only_one_process_writes_a_file_in_transfer() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("abc");
        let mut first = Partial::open(&blob, 3, "f", STALL).unwrap().unwrap();
        first.append(b"a").unwrap();
        let second = Partial::open(&blob, 3, "f", STALL).unwrap().unwrap();
        assert!(matches!(second.name, Name::Deleted(_)), "it stood still");
        drop(second);
        let third = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Partial::open(&blob, 3, "f", Duration::MAX).unwrap());
            first.append(b"bc").unwrap();
            first.place(&blob).unwrap();
            waiting.join().unwrap()
        });
        assert!(third.is_none(), "the blob is complete");
        assert_eq!(fs::read(&blob).unwrap(), b"abc");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_bytes_of_a_dead_process_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("abc");
        let mut first = Partial::open(&blob, 3, "f", STALL).unwrap().unwrap();
        first.append(b"ab").unwrap();
        drop(first);
        let mut next = Partial::open(&blob, 3, "f", STALL).unwrap().unwrap();
        let mut kept = String::new();
        io::Read::read_to_string(next.rewound().unwrap(), &mut kept).unwrap();
        assert_eq!(kept, "ab");
    }

    #[test]
    fn unfinished_files_of_the_living_stay() {
        let dir = tempfile::tempdir().unwrap();
        let living = unfinished_file(dir.path()).unwrap();
        fs::write(dir.path().join(".ankh3-dead.incomplete"), b"half").unwrap();
        fs::write(dir.path().join("other"), b"no concern").unwrap();
        let folder = UnfinishedFolder::new(dir.path()).unwrap();
        fs::create_dir(dir.path().join(".ankh3-converting")).unwrap();
        fs::write(dir.path().join(".ankh3-converting/lock"), b"").unwrap();
        fs::write(dir.path().join(".ankh3-converting/.tmpabc"), b"12345").unwrap();
        assert_eq!(delete_dead(dir.path()).unwrap(), (2, 9));
        assert!(living.path().exists() && folder.path().exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
