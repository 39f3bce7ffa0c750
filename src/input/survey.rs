//! How much there is to read: a thread that counts records and letters of files ahead of the run, for the bar and the output's size.
//!
//! An estimate, hence tolerant: what is wrong with an input is told by the run itself.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use crate::io::stdio;

/// What the files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records, good and bad.
    pub records: u64,
    /// Letters in their sequences.
    pub residues: u64,
}

/// A count under way. Dropped, it stops.
#[derive(Debug)]
pub struct Survey {
    found: Receiver<Found>,
    stop: Arc<AtomicBool>,
}

impl Survey {
    /// Begins to count; `None` if not all inputs are regular files, which alone can be read twice.
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

    /// The result, once, as soon as it is there.
    pub fn found(&self) -> Option<Found> {
        self.found.try_recv().ok()
    }
}

impl Drop for Survey {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// `None` if it was stopped.
fn count(paths: &[PathBuf], stop: &AtomicBool) -> io::Result<Option<Found>> {
    let mut sum = Found::default();
    for path in paths {
        let Some(found) = count_file(path, stop)? else {
            return Ok(None);
        };
        sum.records += found.records;
        sum.residues += found.residues;
    }
    Ok(Some(sum))
}

/// The first byte of a line tells what it is; CR ends a line as LF does.
fn count_file(path: &Path, stop: &AtomicBool) -> io::Result<Option<Found>> {
    let mut reader = stdio::open(path)?;
    let mut found = Found::default();
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
            assert_eq!(found, Some(Found { records, residues }), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_counted_is_no_error_of_the_run() {
        assert!(Survey::start(&[]).is_none());
        assert!(Survey::start(&["-".into()]).is_none());
        assert!(Survey::start(&["/dev/null".into()]).is_none());
        let damaged = [example("tests/data/nasty/12_truncated.fasta.gz")];
        let survey = Survey::start(&damaged).unwrap();
        assert!(survey.found.recv().is_err());
    }

    #[test]
    fn it_stops_when_nobody_waits() {
        let stopped = AtomicBool::new(true);
        assert_eq!(
            count(&[example("examples/sample.fasta")], &stopped).unwrap(),
            None
        );
    }
}
