//! Atomic files: they take their name only when they are complete, so that a half-written result
//! never has the name of a result.
//!
//! On Linux, an unfinished file has no name at all where the file system allows it (`O_TMPFILE`),
//! and disappears with its process. Elsewhere it has the temporary name `.NAME.XXXXXX.tmp`, and the
//! process keeps a list of these names, so that a signal that ends the process can delete them
//! ([`remove_unfinished`](super::unfinished::remove_unfinished)). Only a process that is killed outright leaves such a file behind; the
//! next process that writes the same file removes it. A lock shows that the owner is alive.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::BUFFER;
use super::unfinished::{
    UnfinishedEntry, folder_of, in_folder, invalid, make_beside, remove_left_over,
};

/// A file that takes its name only in [`finish`](AtomicFile::finish). Dropped before that, the file
/// disappears, and an older file of the same name stays as it was.
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<File>,
    /// The temporary name, where the file has one.
    name: Option<(TempPath, UnfinishedEntry)>,
    target: PathBuf,
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
        remove_left_over(&target);
        let (file, name) = if let Ok(file) = nameless::create(folder_of(&target)) {
            (file, None)
        } else {
            let (file, path, entry) = named(&target)?;
            (file, Some((path, entry)))
        };
        Ok(AtomicFile {
            file: BufWriter::with_capacity(BUFFER, file),
            name,
            target,
        })
    }

    /// The name that the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Writes buffered bytes to the disk and gives the file its name.
    pub fn finish(self) -> io::Result<()> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        match self.name {
            Some((path, _entry)) => Ok(path.persist(&self.target)?),
            None => match nameless::link(&file, &self.target) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    replace(&file, &self.target)
                }
                linked => linked,
            },
        }
    }
}

/// Gives the nameless `file` a temporary name first, because a link never replaces a file.
fn replace(file: &File, target: &Path) -> io::Result<()> {
    let (linked, _entry) = make_beside(target, |path| nameless::link(file, path))?;
    Ok(linked.into_temp_path().persist(target)?)
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

/// Files without a name, and the names that they get.
#[cfg(target_os = "linux")]
mod nameless {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};

    use rustix::fs::{AtFlags, CWD, linkat};

    /// A new file in `folder` with the permissions of the user's umask.
    pub(super) fn create(folder: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o666);
        let file = options.custom_flags(libc::O_TMPFILE).open(folder)?;
        // Without /proc, the file could never be given a name.
        path(&file).metadata().map(|_| file)
    }

    /// A path that leads to the open file.
    fn path(file: &File) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// Gives the file a name that no other file has.
    pub(super) fn link(file: &File, target: &Path) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_FOLLOW;
        Ok(linkat(CWD, path(file), CWD, target, flags)?)
    }
}

/// Other systems have no files without a name.
#[cfg(not(target_os = "linux"))]
mod nameless {
    use std::fs::File;
    use std::io::{self, ErrorKind};
    use std::path::Path;

    pub(super) fn create(_folder: &Path) -> io::Result<File> {
        Err(ErrorKind::Unsupported.into())
    }

    pub(super) fn link(_file: &File, _target: &Path) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// A new file with a temporary name beside `target`, locked.
fn named(target: &Path) -> io::Result<(File, TempPath, UnfinishedEntry)> {
    let create = |path: &Path| {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        // Some network file systems have no locks.
        if let Err(error) = file.try_lock() {
            tracing::debug!("{}: {error}", path.display());
        }
        Ok(file)
    };
    let (named, entry) = make_beside(target, create)?;
    let (file, path) = named.into_parts();
    Ok((file, path, entry))
}

/// A temporary file for libraries that open it by its path, which must be a true name. The file
/// loses its name with [`into_file`](Self::into_file).
pub(crate) struct PathSpool {
    file: File,
    name: TempPath,
    _entry: UnfinishedEntry,
}

impl PathSpool {
    /// A file on the disk of `target`, or in `TMPDIR` where there is no target.
    pub(crate) fn new(target: Option<&Path>) -> io::Result<Self> {
        let inside = std::env::temp_dir().join("ankh3-spool");
        let (file, name, entry) = named(target.unwrap_or(&inside))?;
        Ok(Self {
            file,
            name,
            _entry: entry,
        })
    }

    /// The path for the library.
    pub(crate) fn path(&self) -> &Path {
        &self.name
    }

    /// The file, from now on without a name.
    pub(crate) fn into_file(self) -> File {
        self.file
    }
}

/// A temporary file without a name, on the disk of `target`, or in `TMPDIR` where there is no
/// target.
pub(crate) fn spool(target: Option<&Path>) -> io::Result<File> {
    match target.map(folder_of) {
        Some(folder) => tempfile::tempfile_in(folder).map_err(|error| in_folder(&error, folder)),
        None => tempfile::tempfile(),
    }
}

/// Whether `path` is a device or a pipe.
pub(crate) fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn bytes_may_be_changed_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.h5");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"abcd").unwrap();
        file.seek(SeekFrom::Start(1)).unwrap();
        file.write_all(b"X").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"aXcd");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_unfinished_file_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for text in [&b"first"[..], b"second"] {
            let before = names(folder.path());
            let mut file = AtomicFile::create(&path).unwrap();
            file.write_all(text).unwrap();
            file.flush().unwrap();
            assert!(
                file.name.is_none(),
                "this test needs a file system with O_TMPFILE"
            );
            assert_eq!(names(folder.path()), before);
            file.finish().unwrap();
            assert_eq!(fs::read(&path).unwrap(), text);
            assert_eq!(names(folder.path()), ["out"]);
        }
    }

    #[test]
    fn a_named_file_ends_in_the_same_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, "old").unwrap();
        let (file, name, entry) = named(&path).unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        remove_left_over(&path);
        assert_eq!(names(folder.path()).len(), 2, "its owner is alive");
        let mut file = AtomicFile {
            file: BufWriter::new(file),
            name: Some((name, entry)),
            target: path.clone(),
        };
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_library_may_write_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let spool = PathSpool::new(Some(&folder.path().join("out"))).unwrap();
        fs::write(spool.path(), "by path").unwrap();
        let file = spool.into_file();
        assert_eq!(io::read_to_string(file).unwrap(), "by path");
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
