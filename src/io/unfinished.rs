//! Unfinished files and folders with temporary names, `.NAME.XXXXXX.tmp` beside `NAME`: a list of
//! those of this process, and the removal of those that dead processes left.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

/// Random letters in a temporary name.
const RANDOM: usize = 6;
/// How often a folder is deleted in which another thread may still create files.
const ATTEMPTS: usize = 3;

/// Every unfinished file and folder of this process.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry of the list, removed on drop.
#[derive(Debug)]
pub(super) struct UnfinishedEntry(PathBuf);

impl Drop for UnfinishedEntry {
    fn drop(&mut self) {
        unfinished().retain(|path| *path != self.0);
    }
}

/// Makes something with a temporary name beside `target`, and its entry. The list is locked, so
/// that nothing exists without an entry.
pub(super) fn make_beside<T>(
    target: &Path,
    make: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<(NamedTempFile<T>, UnfinishedEntry)> {
    let name = target
        .file_name()
        .ok_or_else(|| invalid("the output has no file name"))?;
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).rand_bytes(RANDOM).suffix(".tmp");
    let folder = folder_of(target);
    let mut all = unfinished();
    let made = builder
        .make_in(folder, make)
        .map_err(|error| in_folder(&error, folder))?;
    let path = made.path().to_owned();
    all.push(path.clone());
    Ok((made, UnfinishedEntry(path)))
}

/// A lock: while it is held, nothing unfinished can be created.
pub struct CreationLock {
    _list: MutexGuard<'static, Vec<PathBuf>>,
}

/// Deletes everything unfinished of this process, which is about to end. The returned lock keeps
/// other threads from creating files until the end of the process.
#[must_use = "without the lock, another file may be created before the process ends"]
pub fn remove_unfinished() -> CreationLock {
    let list = unfinished();
    list.iter().for_each(|path| remove(path));
    CreationLock { _list: list }
}

fn remove(path: &Path) {
    let removed = if path.is_dir() {
        let mut attempts = (0..ATTEMPTS).map(|_| fs::remove_dir_all(path));
        attempts.find(Result::is_ok).unwrap_or(Ok(()))
    } else {
        fs::remove_file(path)
    };
    if let Err(error) = removed {
        tracing::debug!("{}: {error}", path.display());
    }
}

/// Deletes what processes that were killed left unfinished under temporary names of `path`. The
/// files of a running process are locked, and stay.
pub fn remove_left_over(path: &Path) {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(name) = target.file_name().map(|name| name.to_string_lossy()) else {
        return;
    };
    let entries = fs::read_dir(folder_of(&target)).into_iter().flatten();
    for entry in entries.flatten() {
        let found = entry.file_name();
        let random = found
            .to_str()
            .and_then(|found| found.strip_prefix('.')?.strip_prefix(&*name))
            .and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".tmp"));
        let is_temporary =
            random.is_some_and(|random| random.len() == RANDOM && !random.contains('.'));
        if is_temporary && is_of_the_dead(&entry.path()) {
            tracing::debug!("removing {}", entry.path().display());
            remove(&entry.path());
        }
    }
}

/// Whether no running process has locked the file or folder.
fn is_of_the_dead(path: &Path) -> bool {
    let lock = File::open(path).map(|file| file.try_lock());
    matches!(lock, Ok(Ok(()) | Err(TryLockError::Error(_))))
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

pub(super) fn invalid(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, message)
}

pub(super) fn in_folder(error: &io::Error, folder: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot write in the folder {}: {error}", folder.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_processes_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let (alive, _entry) = make_beside(&path, |path| {
            let file = File::create_new(path)?;
            file.lock()?;
            Ok(file)
        })
        .unwrap();
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
        let left = folder.path().join(".out.abcdef.tmp");
        fs::write(&left, "").unwrap();
        let left_folder = folder.path().join(".out.ABCDEF.tmp");
        fs::create_dir_all(left_folder.join("deep")).unwrap();
        remove_left_over(&path);
        assert!(!left.exists() && !left_folder.exists());
        assert!(alive.path().exists());
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
        remove_left_over(&folder.path().join("no/such/folder"));
    }

    #[test]
    fn what_is_unfinished_is_listed_until_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let (made, entry) = make_beside(&path, |path| fs::create_dir(path)).unwrap();
        let name = made.path().to_owned();
        assert!(unfinished().contains(&name));
        drop(entry);
        assert!(!unfinished().contains(&name));
    }
}
