//! Atomic folders: filled under a temporary name beside their own, `.NAME.XXXXXX.tmp`, and renamed
//! when they are complete; and folders that disappear in one step.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::unfinished::{UnfinishedEntry, make_beside, remove_left_over};

/// A folder that takes its name only in [`finish`](AtomicFolder::finish). Dropped before that, the
/// folder disappears with its content.
#[derive(Debug)]
pub struct AtomicFolder {
    path: PathBuf,
    target: PathBuf,
    /// Shows other processes that the folder is in use.
    _lock: Option<File>,
    _entry: UnfinishedEntry,
}

impl AtomicFolder {
    /// Begins a folder that will be called `target`, and removes what killed processes left of it.
    ///
    /// # Errors
    /// A folder above that does not exist or is not writable.
    pub fn create(target: &Path) -> io::Result<Self> {
        remove_left_over(target);
        let (made, entry) = make_beside(target, |path| {
            fs::create_dir(path)?;
            Ok(lock(path))
        })?;
        let (lock, path) = made.into_parts();
        Ok(AtomicFolder {
            path: kept(path),
            target: target.to_owned(),
            _lock: lock,
            _entry: entry,
        })
    }

    /// The temporary path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its name, which must be free or belong to an empty folder.
    ///
    /// # Errors
    /// The system's error.
    pub fn finish(self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)
    }
}

impl Drop for AtomicFolder {
    fn drop(&mut self) {
        // After `finish` there is nothing with this name.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Deletes the folder `path`. It loses its name first, so that no part of it is ever taken for the
/// whole.
///
/// # Errors
/// The system's error.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    let (moved, _entry): (NamedTempFile<()>, _) = make_beside(path, |to| fs::rename(path, to))?;
    fs::remove_dir_all(kept(moved.into_temp_path()))
}

/// The path, which its destructor would take for a file's.
fn kept(path: TempPath) -> PathBuf {
    let name = path.to_path_buf();
    // Nothing can fail here: a temporary path is kept by forgetting it.
    let _ = path.keep();
    name
}

/// A lock on the folder, where the system and the file system have locks of folders.
fn lock(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    file.try_lock().is_ok().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_its_name_only_after_finish() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("model");
        let names = || fs::read_dir(parent.path()).unwrap().count();
        let folder = AtomicFolder::create(&target).unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(names(), 1);
        drop(folder);
        assert_eq!(names(), 0);
        let folder = AtomicFolder::create(&target).unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let other = AtomicFolder::create(&target).unwrap();
        assert!(folder.path().exists(), "the other one is not a left-over");
        drop(other);
        folder.finish().unwrap();
        assert!(target.join("a").is_file());
        remove_folder(&target).unwrap();
        assert_eq!(names(), 0);
    }
}
