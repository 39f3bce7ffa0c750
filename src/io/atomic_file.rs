//! Atomic files: written under a temporary name in the same folder and renamed when complete, so
//! that a half-written result never has the name of a result.
//!
//! The process keeps a list of its unfinished files, so that a signal that ends the process can
//! delete them ([`remove_unfinished`]). Only a process that is killed outright leaves a file
//! behind; `--resume` removes this file ([`remove_left_over`]).

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

use super::BUFFER;

/// Random letters in the name of an unfinished file.
const RANDOM: usize = 6;

/// A file that takes its name only in [`finish`](AtomicFile::finish). Dropped before that, the file
/// disappears, and an older file of the same name stays as it was.
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<NamedTempFile>,
    target: PathBuf,
    _entry: UnfinishedEntry,
}

impl AtomicFile {
    /// Begins a file that will be called `path`. If `path` is a symbolic link, the file that the
    /// link points to is replaced.
    ///
    /// # Errors
    /// `path` is a directory, a device or a pipe; the folder does not exist or is not writable.
    pub fn create(path: &Path) -> io::Result<Self> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if target.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if is_special(&target) {
            return Err(invalid(
                "this output must be a regular file, not a device or a pipe",
            ));
        }
        let (file, entry) = UnfinishedEntry::begin(|| temporary(&target))?;
        Ok(AtomicFile {
            file: BufWriter::with_capacity(BUFFER, file),
            target,
            _entry: entry,
        })
    }

    /// The name that the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The temporary name, for libraries that write by path.
    pub fn temporary_path(&self) -> &Path {
        self.file.get_ref().path()
    }

    /// Writes buffered bytes to the disk and gives the file its name.
    pub fn finish(self) -> io::Result<()> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(&self.target).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// Every unfinished file of this process.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry of [`UNFINISHED`], removed on drop.
#[derive(Debug)]
struct UnfinishedEntry(PathBuf);

impl UnfinishedEntry {
    /// Creates a file and its entry while the list is locked, so that no file exists without an
    /// entry.
    fn begin(
        create: impl FnOnce() -> io::Result<NamedTempFile>,
    ) -> io::Result<(NamedTempFile, Self)> {
        let mut all = unfinished();
        let file = create()?;
        let path = file.path().to_owned();
        all.push(path.clone());
        Ok((file, UnfinishedEntry(path)))
    }
}

impl Drop for UnfinishedEntry {
    fn drop(&mut self) {
        unfinished().retain(|path| *path != self.0);
    }
}

/// A lock: while it is held, no [`AtomicFile`] can be created.
pub struct CreationLock {
    _list: MutexGuard<'static, Vec<PathBuf>>,
}

/// Deletes every unfinished file of this process, which is about to end. The returned lock keeps
/// other threads from creating files until the end of the process.
#[must_use = "without the lock, another file may be created before the process ends"]
pub fn remove_unfinished() -> CreationLock {
    let list = unfinished();
    for path in list.iter() {
        if let Err(error) = fs::remove_file(path) {
            tracing::debug!("{}: {error}", path.display());
        }
    }
    CreationLock { _list: list }
}

/// Deletes the unfinished files of `path` that a killed process left behind. The caller must know
/// that no other process writes `path` now.
///
/// # Errors
/// A folder that cannot be read, a file that cannot be deleted.
pub fn remove_left_over(path: &Path) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(name) = target.file_name().map(|name| name.to_string_lossy()) else {
        return Ok(());
    };
    let entries = match fs::read_dir(folder_of(&target)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let found = entry.file_name();
        let random = found
            .to_str()
            .and_then(|found| found.strip_prefix('.')?.strip_prefix(&*name))
            .and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".tmp"));
        if random.is_some_and(|random| random.len() == RANDOM && !random.contains('.')) {
            tracing::debug!("removing {}", entry.path().display());
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A new file `.NAME.XXXXXX.tmp` beside `target`.
pub(crate) fn temporary(target: &Path) -> io::Result<NamedTempFile> {
    let name = target
        .file_name()
        .ok_or_else(|| invalid("the output has no file name"))?;
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).rand_bytes(RANDOM).suffix(".tmp");
    // Temporary files are private by default; the permissions of an output must follow the user's
    // umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let folder = folder_of(target);
    builder
        .tempfile_in(folder)
        .map_err(|error| in_folder(&error, folder))
}

/// A temporary file without a name, on the disk of `target`, or in `TMPDIR` where there is no
/// target.
pub(crate) fn spool(target: Option<&Path>) -> io::Result<File> {
    match target.map(folder_of) {
        Some(folder) => tempfile::tempfile_in(folder).map_err(|error| in_folder(&error, folder)),
        None => tempfile::tempfile(),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Whether `path` is a device or a pipe.
pub(crate) fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, message)
}

fn in_folder(error: &io::Error, folder: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot write in the folder {}: {error}", folder.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_may_write_by_path_and_seek() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.h5");
        let mut file = AtomicFile::create(&path).unwrap();
        assert_eq!(file.temporary_path().parent().unwrap(), folder.path());
        file.write_all(b"abcd").unwrap();
        file.seek(SeekFrom::Start(1)).unwrap();
        file.write_all(b"X").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"aXcd");
    }

    #[test]
    fn only_files_of_a_killed_process_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let left = AtomicFile::create(&path).unwrap();
        let others = [
            "out",
            "out.resume",
            ".out.tmp",
            ".out.npz.abc123.tmp",
            ".other.abc123.tmp",
        ];
        for name in others {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert!(left.temporary_path().exists());
        remove_left_over(&path).unwrap();
        assert!(!left.temporary_path().exists());
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
        remove_left_over(&folder.path().join("no/such/folder")).unwrap();
    }

    #[test]
    fn unfinished_files_are_listed_until_they_are_finished() {
        let folder = tempfile::tempdir().unwrap();
        let file = AtomicFile::create(&folder.path().join("out")).unwrap();
        let path = file.temporary_path().to_owned();
        assert!(unfinished().contains(&path));
        file.finish().unwrap();
        assert!(!unfinished().contains(&path));
    }
}
