//! Where bytes go: a stream, or a file that appears under its name only when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Schema;
use super::error::invalid_input;

/// Where a [`Writer`](super::Writer) writes.
pub enum Destination {
    /// A file. It is written beside its name and renamed by
    /// [`Writer::finish`](super::Writer::finish); a writer dropped before leaves nothing, and what
    /// stood under the name stays. A name that is there and is no regular file (a device, a named
    /// pipe) is written to directly.
    File(PathBuf),
    /// Bytes in one go, such as standard output. Nothing can stand beside it: npy is refused, and
    /// the manifest of tsv and jsonl goes to the log.
    Stream(Box<dyn Write + Send>),
}

impl Destination {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::Stream(Box::new(io::stdout()))
    }
}

/// An open [`Destination`]: a buffered writer that [`Output::commit`] must end.
pub(super) struct Output {
    writer: BufWriter<Target>,
    /// The final name, of regular files only.
    path: Option<PathBuf>,
}

enum Target {
    Temporary(NamedTempFile),
    Direct(File),
    Stream(Box<dyn Write + Send>),
}

impl Output {
    pub(super) fn open(destination: Destination) -> io::Result<Self> {
        let (target, path) = match destination {
            Destination::Stream(stream) => (Target::Stream(stream), None),
            Destination::File(path) if is_special(&path) => (
                Target::Direct(File::options().write(true).open(path)?),
                None,
            ),
            Destination::File(path) => {
                // Renaming onto a symbolic link would replace the link, not the file it names.
                let path = fs::canonicalize(&path).unwrap_or(path);
                (Target::Temporary(temporary(&path)?), Some(path))
            }
        };
        Ok(Self {
            writer: BufWriter::with_capacity(1 << 16, target),
            path,
        })
    }

    /// A second file beside this one, `suffix` appended to its name; `None` beside a stream.
    pub(super) fn beside(&self, suffix: &str) -> io::Result<Option<Self>> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        Self::open(Destination::File(beside(path, suffix))).map(Some)
    }

    /// An unlinked temporary file: on the output's own disk, or in `TMPDIR` for a stream.
    pub(super) fn spool(&self) -> io::Result<File> {
        match &self.path {
            Some(path) => tempfile::tempfile_in(directory(path)),
            None => tempfile::tempfile(),
        }
    }

    /// A temporary file that has a name as long as the value lives, where [`Self::spool`] would be.
    pub(super) fn named_spool(&self) -> io::Result<NamedTempFile> {
        match &self.path {
            Some(path) => temporary(path),
            None => NamedTempFile::new(),
        }
    }

    /// Appends a whole spooled file.
    pub(super) fn append(&mut self, mut spool: File) -> io::Result<()> {
        spool.seek(SeekFrom::Start(0))?;
        io::copy(&mut spool, self)?;
        Ok(())
    }

    /// Writes out what is buffered and gives the file its name.
    pub(super) fn commit(self) -> io::Result<()> {
        let target = self
            .writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        match (target, self.path) {
            (Target::Temporary(file), Some(path)) => {
                file.as_file().sync_all()?;
                file.persist(path)?;
                Ok(())
            }
            (Target::Temporary(file), None) => file.as_file().sync_all(),
            (Target::Direct(mut file), _) => file.flush(),
            (Target::Stream(mut stream), _) => stream.flush(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Temporary(file) => file.write(bytes),
            Self::Direct(file) => file.write(bytes),
            Self::Stream(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Temporary(file) => file.flush(),
            Self::Direct(file) => file.flush(),
            Self::Stream(stream) => stream.flush(),
        }
    }
}

/// Writes `FILE.json` beside a file whose format has no place for the schema; to the log when the
/// output is a stream.
pub(super) fn write_manifest(output: &Output, schema: &Schema) -> io::Result<()> {
    let Some(mut manifest) = output.beside(".json")? else {
        tracing::info!("manifest: {}", schema.to_json()?);
        return Ok(());
    };
    manifest.write_all(serde_json::to_string_pretty(schema)?.as_bytes())?;
    manifest.write_all(b"\n")?;
    manifest.commit()
}

/// The schema in `FILE.json`; `None` when there is no such file.
pub(super) fn read_manifest(path: &Path) -> io::Result<Option<Schema>> {
    match fs::read_to_string(beside(path, ".json")) {
        Ok(text) => Schema::from_json(&text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `path` with `suffix` appended to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let Some(name) = path.file_name().filter(|_| !path.is_dir()) else {
        return Err(invalid_input(format!("{} is a directory", path.display())));
    };
    let prefix = format!(".{}.", name.to_string_lossy());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any other new file, not private as temporary files are.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory(path))
}
