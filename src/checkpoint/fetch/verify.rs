//! Verification of the files of a model in the cache: `ankh3 fetch --verify`. The checksum of a
//! file is the name of its blob; for the official models, published checksums come first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{FetchError, published};
use crate::checkpoint::checksum::Checksum;
use crate::checkpoint::{CheckpointError, Hub};

/// A file of a model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedFile {
    /// The name of the file in the model.
    pub name: String,
    /// The file that holds the bytes; the one to delete where they are wrong.
    pub path: PathBuf,
    /// The result.
    pub verdict: FileVerdict,
}

/// The result of the verification of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileVerdict {
    /// The checksum is right.
    Right,
    /// No checksum of this file is known.
    Unknown,
    /// The link leads to no file.
    Missing,
    /// The file has another checksum.
    Wrong {
        /// The checksum by the name of the blob or by publication.
        expected: String,
        /// The checksum of the file.
        found: String,
    },
}

/// Verifies every file of a model in the cache, without the network. Returns the model's directory.
///
/// # Errors
/// A model that is not in the cache, and a file that cannot be read. A wrong file is no error but a
/// verdict.
pub fn verify(
    hub: &Hub,
    repo: &str,
    revision: &str,
    on_file: &mut dyn FnMut(VerifiedFile),
) -> Result<PathBuf, FetchError> {
    let commit = hub.commit(repo, revision);
    let dir = hub.snapshot_dir(repo, &commit);
    if !dir.is_dir() {
        return Err(FetchError::Checkpoint(CheckpointError::NotCached {
            name: repo.to_string(),
            cache: hub.cache.clone(),
        }));
    }
    for name in files_below(&dir).map_err(FetchError::io(&dir))? {
        let published = published::checksum(repo, &commit, &name);
        on_file(verified(&dir, name, published)?);
    }
    Ok(dir)
}

fn verified(
    dir: &Path,
    name: String,
    published: Option<Checksum>,
) -> Result<VerifiedFile, FetchError> {
    let pointer = dir.join(&name);
    let link = fs::read_link(&pointer).ok();
    let path = match &link {
        Some(target) => pointer.parent().unwrap_or(dir).join(target),
        None => pointer,
    };
    // The shortest form of the path, where the file exists.
    let path = fs::canonicalize(&path).unwrap_or(path);
    let by_name = || Checksum::from_etag(link.as_ref()?.file_name()?.to_str()?);
    let verdict = match published.or_else(by_name) {
        _ if !path.exists() => FileVerdict::Missing,
        None => FileVerdict::Unknown,
        Some(checksum) => {
            let found = checksum.of_file(&path).map_err(FetchError::io(&path))?;
            let expected = checksum.as_str().to_string();
            if found == expected {
                FileVerdict::Right
            } else {
                FileVerdict::Wrong { expected, found }
            }
        }
    };
    Ok(VerifiedFile {
        name,
        path,
        verdict,
    })
}

/// The names of the files and links in a folder and the folders in it, sorted.
pub(super) fn files_below(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            let inside = files_below(&entry.path())?;
            names.extend(inside.into_iter().map(|file| format!("{name}/{file}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
