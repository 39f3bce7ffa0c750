//! Where bytes go: a stream, or a file that appears under its name only when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Schema;
use crate::io::atomic_file::{remove_left_over, spool, temporary};
use crate::io::stdio::{self, BUFFER, Content};

/// What stands beside some formats' files, by the suffix of its name.
const BESIDE: [&str; 2] = [MANIFEST, ".index.tsv"];
const MANIFEST: &str = ".json";

/// Where a [`Writer`](super::Writer) writes.
pub enum Destination {
    /// A file, or standard output for `-`. A file is written beside its name and renamed by
    /// [`Writer::finish`](super::Writer::finish); a writer dropped before leaves nothing, and what stood under the name stays. A
    /// name that is there and is no regular file (a device, a named pipe) is written to directly.
    File(PathBuf),
    /// Bytes in one go. Nothing can stand beside them (nor beside standard output): npy is refused,
    /// and the manifest of tsv and jsonl goes to the log.
    Stream(Box<dyn Write + Send>),
}

/// An open [`Destination`]: a buffered writer that [`Output::commit`] must end.
pub(super) struct Output {
    target: Target,
    /// The final name, of regular files only.
    path: Option<PathBuf>,
}

enum Target {
    Named(stdio::Output),
    Stream(BufWriter<Box<dyn Write + Send>>),
}

impl Output {
    pub(super) fn open(destination: Destination, content: Content) -> io::Result<Self> {
        Ok(match destination {
            Destination::Stream(stream) => Self {
                target: Target::Stream(BufWriter::with_capacity(BUFFER, stream)),
                path: None,
            },
            Destination::File(path) => {
                let output = stdio::Output::create(&path, content)?;
                Self {
                    path: output.file().map(Path::to_owned),
                    target: Target::Named(output),
                }
            }
        })
    }

    /// A second file of text beside this one, `suffix` appended to its name; `None` beside a stream.
    pub(super) fn beside(&self, suffix: &str) -> io::Result<Option<Self>> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        Self::open(Destination::File(beside(path, suffix)), Content::Text).map(Some)
    }

    /// An unlinked temporary file: on the output's own disk, or in `TMPDIR` for a stream.
    pub(super) fn spool(&self) -> io::Result<File> {
        spool(self.path.as_deref())
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
        match self.target {
            Target::Named(output) => output.finish(),
            Target::Stream(mut stream) => stream.flush(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::Named(output) => output.write(bytes),
            Target::Stream(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Named(output) => output.flush(),
            Target::Stream(stream) => stream.flush(),
        }
    }
}

/// Writes `FILE.json` beside a file whose format has no place for the schema; to the log when the
/// output is a stream.
pub(super) fn write_manifest(output: &Output, schema: &Schema) -> io::Result<()> {
    let Some(mut manifest) = output.beside(MANIFEST)? else {
        tracing::info!("manifest: {}", schema.to_json()?);
        return Ok(());
    };
    manifest.write_all(serde_json::to_string_pretty(schema)?.as_bytes())?;
    manifest.write_all(b"\n")?;
    manifest.commit()
}

/// The schema in `FILE.json`; `None` when there is no such file.
pub(super) fn read_manifest(path: &Path) -> io::Result<Option<Schema>> {
    match fs::read_to_string(beside(path, MANIFEST)) {
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

/// Deletes what a killed run left unfinished of the embedding file `path`. Only for who knows that no other process writes it now.
///
/// # Errors
/// What the disk says.
pub fn remove_unfinished(path: &Path) -> io::Result<()> {
    remove_left_over(path)?;
    BESIDE
        .iter()
        .try_for_each(|suffix| remove_left_over(&beside(path, suffix)))
}
