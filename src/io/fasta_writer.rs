//! FASTA to stdout or a file, with a manifest beside a file (`FILE.json`) that says how it was made; to the log where nothing can stand beside it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::atomic_file::AtomicFile;
use super::stdio::{Content, Output, is_dash};

/// Residues a line, as UniProt has them.
const LINE: usize = 60;

/// Writes records. Nothing stands under the file's name before [`FastaWriter::finish`].
#[derive(Debug)]
pub struct FastaWriter {
    output: Output,
    path: PathBuf,
    manifest: Map<String, Value>,
}

impl FastaWriter {
    /// Opens stdout (`-`) or a file.
    ///
    /// # Errors
    /// A directory; a folder that does not exist or may not be written.
    pub fn create(path: &Path, manifest: Map<String, Value>) -> io::Result<Self> {
        Ok(Self {
            output: Output::create(path, Content::Text)?,
            path: path.to_owned(),
            manifest,
        })
    }

    /// Writes records made by [`record`].
    ///
    /// # Errors
    /// What the output meets.
    pub fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.output.write_all(records)
    }

    /// Writes the manifest, and gives both files their names.
    ///
    /// # Errors
    /// What the outputs meet.
    pub fn finish(self) -> io::Result<()> {
        if is_dash(&self.path) || self.path.metadata().is_ok_and(|found| !found.is_file()) {
            tracing::info!("manifest: {}", serde_json::to_string(&self.manifest)?);
        } else {
            let mut name = self.path.clone().into_os_string();
            name.push(".json");
            let mut file = AtomicFile::create(Path::new(&name))?;
            file.write_all(serde_json::to_string_pretty(&self.manifest)?.as_bytes())?;
            file.write_all(b"\n")?;
            file.finish()?;
        }
        self.output.finish()
    }
}

/// Appends one record.
pub fn record(header: &str, residues: &[u8], to: &mut Vec<u8>) {
    to.push(b'>');
    to.extend(header.as_bytes());
    to.push(b'\n');
    for line in residues.chunks(LINE) {
        to.extend(line);
        to.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_manifest_appear_together_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.fasta");
        let mut manifest = Map::new();
        manifest.insert("tool".to_owned(), "x".into());
        let mut text = Vec::new();
        record("a b", &[b'M'; 61], &mut text);
        record("c", b"", &mut text);
        let mut writer = FastaWriter::create(&path, manifest).unwrap();
        writer.write(&text).unwrap();
        assert!(!path.exists());
        writer.finish().unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written, format!(">a b\n{}\nM\n>c\n", "M".repeat(60)));
        let beside = std::fs::read_to_string(folder.path().join("out.fasta.json")).unwrap();
        assert_eq!(beside, "{\n  \"tool\": \"x\"\n}\n");
    }
}
