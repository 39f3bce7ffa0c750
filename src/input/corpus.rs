//! A corpus: sequences that can be read many times in any order. It is made once from FASTA: one
//! file with all residues, one file with the offset of each sequence.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fasta::InputError;
use super::sequences::{Input, OnBad, Options};
use crate::io::atomic_file::AtomicFile;
use crate::sequence::{Duplicates, IdPart, Limit, Rules};

/// The files that a corpus was made from, and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    /// Path and size of each file.
    files: Vec<(PathBuf, u64)>,
    sequences: u64,
    residues: u64,
    /// Invalid records left out.
    left_out: u64,
}

/// An opened corpus.
#[derive(Debug)]
pub struct Corpus {
    residues: File,
    /// `sequences + 1` rising positions.
    offsets: Vec<u64>,
    /// Invalid records that were left out when the corpus was made.
    pub left_out: u64,
}

/// Why a corpus cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum CorpusError {
    /// A FASTA file cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A file of the corpus cannot be written or read.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// The corpus in this folder was made from other files.
    #[error(
        "{0} was made from other files, or the files have changed since; a run needs the data that it began with: restore the files, or begin another run"
    )]
    Changed(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CorpusError + use<> {
    let path = path.to_owned();
    |source| CorpusError::Io { path, source }
}

impl Corpus {
    /// Opens the corpus in `dir`, made from `files`; makes it where it is missing. Invalid records
    /// are left out, logged and counted.
    ///
    /// # Errors
    /// Files that cannot be read or have changed since; a full disk.
    pub fn open(dir: &Path, files: &[PathBuf]) -> Result<Self, CorpusError> {
        let manifest = dir.join("corpus.json");
        if !manifest.exists() {
            make(dir, files)?;
        }
        let text = fs::read(&manifest).map_err(at(&manifest))?;
        let found: Manifest = serde_json::from_slice(&text)
            .map_err(|error| at(&manifest)(io::Error::other(error)))?;
        if found.files != sizes(files)? {
            return Err(CorpusError::Changed(manifest));
        }
        let path = dir.join("corpus.offsets");
        let bytes = fs::read(&path).map_err(at(&path))?;
        let (chunks, _) = bytes.as_chunks::<8>();
        let offsets: Vec<u64> = chunks
            .iter()
            .map(|chunk| u64::from_le_bytes(*chunk))
            .collect();
        let path = dir.join("corpus.residues");
        let residues = File::open(&path).map_err(at(&path))?;
        let length = residues.metadata().map_err(at(&path))?.len();
        if offsets.last() != Some(&length) || offsets.len() as u64 != found.sequences + 1 {
            return Err(CorpusError::Changed(path));
        }
        Ok(Corpus {
            residues,
            offsets,
            left_out: found.left_out,
        })
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// True for a corpus without sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of each sequence.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        let ends = self.offsets.windows(2);
        ends.map(|ends| (ends[1] - ends[0]) as usize)
    }

    /// Residues of all sequences.
    pub fn residues(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// The residues of sequence `number`.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn read(&mut self, number: usize) -> io::Result<Vec<u8>> {
        let (first, end) = (self.offsets[number], self.offsets[number + 1]);
        let mut residues = vec![0; (end - first) as usize];
        self.residues.seek(SeekFrom::Start(first))?;
        self.residues.read_exact(&mut residues)?;
        Ok(residues)
    }
}

fn sizes(files: &[PathBuf]) -> Result<Vec<(PathBuf, u64)>, CorpusError> {
    let size = |path: &PathBuf| {
        let meta = fs::metadata(path).map_err(at(path))?;
        Ok((path.clone(), meta.len()))
    };
    files.iter().map(size).collect()
}

/// How a corpus is read: invalid records are skipped, so that only a file that is not FASTA ends
/// the run.
pub fn options() -> Options {
    Options {
        rules: Rules::default(),
        id_part: IdPart::FirstWord,
        duplicates: Duplicates::Suffix,
        on_bad: OnBad::Skip,
        limit: Limit::NONE,
    }
}

fn make(dir: &Path, files: &[PathBuf]) -> Result<(), CorpusError> {
    let create = |name: &str| {
        let path = dir.join(name);
        AtomicFile::create(&path).map_err(at(&path))
    };
    let (mut residues, mut offsets) = (create("corpus.residues")?, create("corpus.offsets")?);
    let mut end = 0u64;
    let mut input = Input::open(files, options())?;
    offsets.write_all(&end.to_le_bytes()).map_err(at(dir))?;
    for item in &mut input {
        let sequence = item?.sequence;
        end += sequence.residues.len() as u64;
        residues.write_all(&sequence.residues).map_err(at(dir))?;
        offsets.write_all(&end.to_le_bytes()).map_err(at(dir))?;
    }
    residues.finish().map_err(at(dir))?;
    offsets.finish().map_err(at(dir))?;
    let counts = input.counts();
    let manifest = Manifest {
        files: sizes(files)?,
        sequences: counts.sequences,
        residues: counts.residues,
        left_out: counts.failed,
    };
    // The manifest is written last: if it exists, the other files are complete.
    let mut file = create("corpus.json")?;
    let text = serde_json::to_vec(&manifest).expect("numbers and paths serialise");
    file.write_all(&text).map_err(at(dir))?;
    file.finish().map_err(at(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_read_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let fasta = dir.path().join("a.fasta");
        fs::write(&fasta, ">a\nMKV\n>b\nAA\n>bad\nM*K\n>a\nWWWW\n").unwrap();
        let files = [fasta.clone()];
        for _ in 0..2 {
            let mut corpus = Corpus::open(dir.path(), &files).unwrap();
            assert_eq!(
                (corpus.len(), corpus.residues(), corpus.left_out),
                (3, 9, 1)
            );
            let read: Vec<Vec<u8>> = [2, 0, 1, 0]
                .iter()
                .map(|i| corpus.read(*i).unwrap())
                .collect();
            assert_eq!(read, [&b"WWWW"[..], b"MKV", b"AA", b"MKV"]);
        }
        fs::write(&fasta, ">a\nM\n").unwrap();
        let error = Corpus::open(dir.path(), &files).unwrap_err().to_string();
        assert!(error.contains("have changed since"), "{error}");
    }
}
