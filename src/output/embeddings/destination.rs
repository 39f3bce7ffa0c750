//! The output of an embedding file: standard output, or a file that appears under its name only
//! when it is complete.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Schema;
use super::error::with_context;
use crate::io::atomic_file::{PathSpool, spool};
use crate::io::stdio::{Content, Output};
use crate::io::unfinished::remove_left_over;
use crate::output::manifest::{self, read_beside, with_suffix};

/// Suffixes of the files that some formats have beside their file.
const BESIDE: [&str; 2] = [manifest::SUFFIX, ".index.tsv"];

/// An open embedding file: a buffered writer that must end with [`EmbeddingOutput::commit`]. If it
/// is dropped before, the file disappears.
pub(super) struct EmbeddingOutput {
    output: Output,
    /// The final name; `None` unless the output is a regular file.
    path: Option<PathBuf>,
}

impl EmbeddingOutput {
    /// Opens standard output (`-`), a device, a named pipe, or a regular file, which has a
    /// temporary name until the end.
    pub(super) fn open(path: &Path, content: Content) -> io::Result<Self> {
        let output = Output::create(path, content)?;
        Ok(Self {
            path: output.file().map(Path::to_owned),
            output,
        })
    }

    /// A text file beside this file, with `suffix` appended to the name; `None` if the output is
    /// not a regular file.
    pub(super) fn beside(&self, suffix: &str) -> io::Result<Option<Self>> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        Self::open(&with_suffix(path, suffix), Content::Text).map(Some)
    }

    /// An unlinked temporary file on the disk of the output, or in `TMPDIR` if the output is not a
    /// regular file.
    pub(super) fn spool(&self) -> io::Result<File> {
        spool(self.path.as_deref())
    }

    /// A temporary file with a path, in the same place as [`Self::spool`].
    pub(super) fn path_spool(&self) -> io::Result<PathSpool> {
        PathSpool::new(self.path.as_deref())
    }

    /// Appends the content of a temporary file.
    pub(super) fn append(&mut self, mut spool: File) -> io::Result<()> {
        spool.seek(SeekFrom::Start(0))?;
        io::copy(&mut spool, self)?;
        Ok(())
    }

    /// Writes `FILE.json` with the schema, for formats that cannot hold the final schema.
    pub(super) fn write_schema(&self, schema: &Schema) -> io::Result<()> {
        let path = self.path.as_deref().unwrap_or(Path::new("-"));
        manifest::write_manifest(path, schema)
    }

    /// Writes buffered bytes and gives the file its name.
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

/// The schema in `FILE.json`; `None` if there is no such file.
pub(super) fn read_schema(path: &Path) -> io::Result<Option<Schema>> {
    read_beside(path).map_err(|error| with_context(&error, "FILE.json"))
}

/// Deletes the unfinished files of the embedding file `path` that a killed run left behind. The
/// files of a running process stay.
pub fn remove_unfinished(path: &Path) {
    remove_left_over(path);
    for suffix in BESIDE {
        remove_left_over(&with_suffix(path, suffix));
    }
}
