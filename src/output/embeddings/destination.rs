//! Where the bytes of an embedding file go: standard output, or a file that appears under its name only when it is complete.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Schema;
use super::error::with_context;
use crate::io::atomic_file::{remove_left_over, spool, temporary};
use crate::io::stdio::{Content, Output};
use crate::output::manifest::{self, read_beside, with_suffix};

/// What stands beside the files of some formats, by the suffix of its name.
const BESIDE: [&str; 2] = [manifest::SUFFIX, ".index.tsv"];

/// An open embedding file: a buffered writer that [`EmbeddingOutput::commit`] must end. Dropped before, it leaves nothing.
pub(super) struct EmbeddingOutput {
    output: Output,
    /// The final name, of regular files only.
    path: Option<PathBuf>,
}

impl EmbeddingOutput {
    /// Opens standard output (`-`), a device, a named pipe, or a regular file, which is written beside its name and renamed at
    /// the end.
    pub(super) fn open(path: &Path, content: Content) -> io::Result<Self> {
        let output = Output::create(path, content)?;
        Ok(Self {
            path: output.file().map(Path::to_owned),
            output,
        })
    }

    /// A second file of text beside this one, `suffix` appended to its name; `None` where no file can stand.
    pub(super) fn beside(&self, suffix: &str) -> io::Result<Option<Self>> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        Self::open(&with_suffix(path, suffix), Content::Text).map(Some)
    }

    /// An unlinked temporary file: on the output's own disk, or in `TMPDIR` where the output is no file.
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

    /// Writes `FILE.json` with the schema of a format that has no place for it, or none at its end.
    pub(super) fn write_schema(&self, schema: &Schema) -> io::Result<()> {
        let path = self.path.as_deref().unwrap_or(Path::new("-"));
        manifest::write_manifest(path, schema)
    }

    /// Writes out what is buffered and gives the file its name.
    pub(super) fn commit(self) -> io::Result<()> {
        self.output.finish()
    }
}

impl Write for EmbeddingOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// The schema in `FILE.json`; `None` when there is no such file.
pub(super) fn read_schema(path: &Path) -> io::Result<Option<Schema>> {
    read_beside(path).map_err(|error| with_context(&error, "its FILE.json"))
}

/// Deletes what a killed run left unfinished of the embedding file `path`. Only for a caller who knows that no other process
/// writes the file now.
///
/// # Errors
/// Files that cannot be deleted.
pub fn remove_unfinished(path: &Path) -> io::Result<()> {
    remove_left_over(path)?;
    BESIDE
        .iter()
        .try_for_each(|suffix| remove_left_over(&with_suffix(path, suffix)))
}
