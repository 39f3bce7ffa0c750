//! Deletion of what the cache does not need: `ankh3 fetch --prune`. These are files in transfer,
//! unfinished files of dead processes, and blobs that no snapshot uses. What a living process
//! writes or links stays.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::FetchError;
use super::partial::{SUFFIX, delete_dead, is_unused};
use super::verify::files_below;
use crate::checkpoint::Hub;

/// The end of the name of a file that `huggingface_hub` has in transfer.
const PYTHON_SUFFIX: &str = ".incomplete";

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The number of files.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
}

/// Deletes what one model in the cache, or each, does not need.
///
/// # Errors
/// A file that cannot be deleted.
pub fn prune(hub: &Hub, repo: Option<&str>) -> Result<Pruned, FetchError> {
    let mut pruned = Pruned::default();
    let folders = match repo {
        Some(repo) => vec![hub.repo_dir(repo)],
        None => hub.repo_dirs(),
    };
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        of_repository(hub, folder, &mut pruned).map_err(FetchError::io(folder))?;
    }
    Ok(pruned)
}

fn of_repository(hub: &Hub, folder: &Path, pruned: &mut Pruned) -> io::Result<()> {
    let blobs = folder.join("blobs");
    let snapshots = folders_in(&folder.join("snapshots"));
    let refs = folder.join("refs");
    for dir in [&blobs, &refs].into_iter().chain(&snapshots) {
        let (files, bytes) = delete_dead(dir)?;
        pruned.files += files;
        pruned.bytes += bytes;
    }
    for entry in fs::read_dir(&blobs).into_iter().flatten() {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || !path.is_file() || written_by_python(hub, folder, &name) {
            continue;
        }
        let is_partial = name.ends_with(SUFFIX) || name.ends_with(PYTHON_SUFFIX);
        let is_needed = if is_partial {
            !is_unused(&path)
        } else {
            referenced(folder)?.contains(path.file_name().unwrap_or_default())
        };
        if !is_needed {
            delete(&path, folder, pruned)?;
        }
    }
    Ok(())
}

/// Deletes a file unless another process holds a lock on it, or has meanwhile linked it.
fn delete(path: &Path, folder: &Path, pruned: &mut Pruned) -> io::Result<()> {
    let file = File::open(path)?;
    let is_held = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    if is_held || referenced(folder)?.contains(path.file_name().unwrap_or_default()) {
        return Ok(());
    }
    let bytes = file.metadata()?.len();
    fs::remove_file(path)?;
    pruned.files += 1;
    pruned.bytes += bytes;
    Ok(())
}

/// Whether a Python process holds `huggingface_hub`'s lock of a blob.
fn written_by_python(hub: &Hub, folder: &Path, name: &str) -> bool {
    let blob = name.split('.').next().unwrap_or(name);
    let locks = hub.cache.join(".locks");
    let lock = locks
        .join(folder.file_name().unwrap_or_default())
        .join(format!("{blob}.lock"));
    lock.exists() && !is_unused(&lock)
}

/// The names of the blobs to which links of any snapshot lead.
fn referenced(folder: &Path) -> io::Result<HashSet<OsString>> {
    let mut names = HashSet::new();
    for snapshot in folders_in(&folder.join("snapshots")) {
        for name in files_below(&snapshot)? {
            let target = fs::read_link(snapshot.join(name)).ok();
            names.extend(target.and_then(|path| Some(path.file_name()?.to_os_string())));
        }
    }
    Ok(names)
}

fn folders_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}
