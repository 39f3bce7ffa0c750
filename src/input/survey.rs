//! The size of an input: a thread counts records and letters of the files ahead of the run, for the
//! progress bar and the expected size of the output.
//!
//! The result is an estimate, so problems of an input are ignored here; the run itself reports
//! them.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use crate::io::stdio;

/// The size of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputSize {
    /// Records, valid or not.
    pub records: u64,
    /// Letters in their sequences.
    pub residues: u64,
}

/// A running count; dropping it stops the thread.
#[derive(Debug)]
pub struct Survey {
    found: Receiver<InputSize>,
    stop: Arc<AtomicBool>,
}

impl Survey {
    /// Begins to count; `None` if an input is not a regular file, because only regular files can be
    /// read twice.
    pub fn start(paths: &[PathBuf]) -> Option<Self> {
        let regular =
            |path: &PathBuf| !stdio::is_dash(path) && path.metadata().is_ok_and(|m| m.is_file());
        if paths.is_empty() || !paths.iter().all(regular) {
            return None;
        }
        let (sender, found) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (paths, stopped) = (paths.to_vec(), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("survey".to_owned())
            .spawn(move || match count(&paths, &stopped) {
                Ok(Some(found)) => drop(sender.send(found)),
                Ok(None) => {}
                Err(error) => tracing::debug!("no estimate of the input's size: {error}"),
            })
            .ok()?;
        Some(Survey { found, stop })
    }

    /// The result, given once; `None` before the count is complete.
    pub fn found(&self) -> Option<InputSize> {
        self.found.try_recv().ok()
    }
}

impl Drop for Survey {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The size of all files; `None` if the count was stopped.
fn count(paths: &[PathBuf], stop: &AtomicBool) -> io::Result<Option<InputSize>> {
    let mut sum = InputSize::default();
    for path in paths {
        let Some(found) = count_file(path, stop)? else {
            return Ok(None);
        };
        sum.records += found.records;
        sum.residues += found.residues;
    }
    Ok(Some(sum))
}

/// The size of one file. The first byte of a line decides whether it is a header, a comment or
/// sequence; CR ends a line as LF does.
fn count_file(path: &Path, stop: &AtomicBool) -> io::Result<Option<InputSize>> {
    let mut reader = stdio::open(path)?;
    let mut found = InputSize::default();
    let (mut at_start, mut in_sequence) = (true, false);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(Some(found));
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                at_start = true;
                continue;
            }
            if at_start {
                at_start = false;
                in_sequence = !matches!(byte, b'>' | b';');
                found.records += u64::from(*byte == b'>');
            }
            found.residues += u64::from(in_sequence && byte.is_ascii_alphabetic());
        }
        let length = bytes.len();
        reader.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    #[test]
    fn records_and_letters_of_files() {
        let table = [
            ("tests/data/nasty/06_crlf.fasta", 2, 238 + 142),
            ("tests/data/nasty/20_multi_member.fasta.gz", 2, 238 + 142),
            ("tests/data/nasty/23_cr_only.fasta", 1, 238),
            ("tests/data/nasty/01_empty_file.fasta", 0, 0),
        ];
        let going = AtomicBool::new(false);
        for (name, records, residues) in table {
            let found = count(&[example(name)], &going).unwrap();
            assert_eq!(found, Some(InputSize { records, residues }), "{name}");
        }
    }

    #[test]
    fn files_that_cannot_be_counted_are_no_error() {
        assert!(Survey::start(&[]).is_none());
        assert!(Survey::start(&["-".into()]).is_none());
        assert!(Survey::start(&["/dev/null".into()]).is_none());
        let damaged = [example("tests/data/nasty/12_truncated.fasta.gz")];
        let survey = Survey::start(&damaged).unwrap();
        assert!(survey.found.recv().is_err());
    }

    #[test]
    fn the_count_stops_when_nobody_waits() {
        let stopped = AtomicBool::new(true);
        assert_eq!(
            count(&[example("examples/sample.fasta")], &stopped).unwrap(),
            None
        );
    }
}
