//! The location of a model's files: a directory, or this program itself, which contains
//! `ankh3-nano`.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// The name of the bundled model in metadata.
pub const BUNDLED: &str = "ankh3-nano";

/// The names of the bundled model for `--model`.
pub(super) const BUNDLED_NAMES: [&str; 2] = ["nano", BUNDLED];

macro_rules! bundled {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../models/nano/", $name)))),*]
    };
}

/// The files of the bundled model by their path in `models/nano`.
const FILES: &[(&str, &[u8])] = bundled![
    "README.md",
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "contacts/attention/head.json",
    "contacts/head/head.json",
    "contacts/head/head.safetensors",
];

/// A directory, or a folder of the bundled model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelLocation {
    /// A directory on this machine.
    Directory(PathBuf),
    /// A folder of the bundled model; empty for its root.
    Bundled(PathBuf),
}

impl ModelLocation {
    /// The root of the bundled model.
    pub fn bundled() -> Self {
        ModelLocation::Bundled(PathBuf::new())
    }

    /// The directory; `None` for the bundled model.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            ModelLocation::Directory(dir) => Some(dir),
            ModelLocation::Bundled(_) => None,
        }
    }

    /// A folder in this location.
    pub fn join(&self, folder: impl AsRef<Path>) -> Self {
        match self {
            ModelLocation::Directory(dir) => ModelLocation::Directory(dir.join(folder)),
            ModelLocation::Bundled(dir) => ModelLocation::Bundled(dir.join(folder)),
        }
    }

    /// The location's name in messages.
    pub fn name(&self) -> PathBuf {
        match self {
            ModelLocation::Directory(dir) => dir.clone(),
            ModelLocation::Bundled(dir) if dir.as_os_str().is_empty() => BUNDLED.into(),
            ModelLocation::Bundled(dir) => Path::new(BUNDLED).join(dir),
        }
    }

    /// The name of a file of this location in messages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.name().join(name)
    }

    /// The bytes of a file; `None` where the file does not exist.
    ///
    /// # Errors
    /// A file that cannot be read or is no regular file, and a Git LFS pointer.
    pub fn read(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, CheckpointError> {
        self.read_up_to(name, u64::MAX)
    }

    /// As [`ModelLocation::read`], for a file of at most `most` bytes: its content is parsed, which
    /// takes memory in proportion to its size.
    pub(super) fn read_up_to(
        &self,
        name: &str,
        most: u64,
    ) -> Result<Option<Cow<'static, [u8]>>, CheckpointError> {
        match self {
            ModelLocation::Bundled(dir) => Ok(bundled_file(&dir.join(name)).map(Cow::Borrowed)),
            ModelLocation::Directory(dir) => Ok(read_file(&dir.join(name), most)?.map(Cow::Owned)),
        }
    }

    /// Whether a file of this name exists.
    pub fn has(&self, name: &str) -> bool {
        match self {
            ModelLocation::Directory(dir) => dir.join(name).is_file(),
            ModelLocation::Bundled(dir) => bundled_file(&dir.join(name)).is_some(),
        }
    }
}

/// The size of a file; `None` where nothing has this name.
///
/// # Errors
/// A path that is no regular file or a link to one: reading a pipe or a device need not end.
pub(super) fn file_size(path: &Path) -> Result<Option<u64>, CheckpointError> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found.len())),
        Ok(found) => {
            let kind = if found.is_dir() {
                "directory"
            } else {
                "pipe, socket or device"
            };
            let message = format!("a {kind}, where a model has a regular file");
            Err(CheckpointError::damaged(path, message))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CheckpointError::io(path)(error)),
    }
}

/// The bytes of a file of at most `most` bytes; `None` where the file does not exist.
pub(super) fn read_file(path: &Path, most: u64) -> Result<Option<Vec<u8>>, CheckpointError> {
    let Some(size) = file_size(path)? else {
        return Ok(None);
    };
    if size > most {
        let message = format!("{size} bytes; such a file has at most {most}: fetch it again");
        return Err(CheckpointError::damaged(path, message));
    }
    let bytes = fs::read(path).map_err(CheckpointError::io(path))?;
    refuse_pointer(path, &bytes)?;
    Ok(Some(bytes))
}

/// Refuses the small text that Git stores in place of a large file.
pub(super) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    if !bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Ok(());
    }
    let message = "a Git LFS pointer, not the file itself; run `git lfs pull` in its repository, or get the model with `ankh3 fetch`";
    Err(CheckpointError::damaged(path, message))
}

/// The bytes of a file of the bundled model, by its path.
pub(super) fn bundled_file(path: &Path) -> Option<&'static [u8]> {
    let file = FILES.iter().find(|(name, _)| Path::new(name) == path);
    file.map(|(_, bytes)| *bytes)
}

impl fmt::Display for ModelLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name().display())
    }
}

impl From<PathBuf> for ModelLocation {
    fn from(dir: PathBuf) -> Self {
        ModelLocation::Directory(dir)
    }
}
