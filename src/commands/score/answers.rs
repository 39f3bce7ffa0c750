//! `OUTPUT.part.resume`: the model's answers about unfinished proteins, so that a run that was
//! interrupted in the middle of a long protein can be resumed there. The file is emptied whenever
//! the journal has the finished proteins.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;

use crate::inference::score::{AnswerKey, Answers};
use crate::output::entry::JournalEntry;
use crate::output::journal::{self, Journal};
use crate::output::manifest::Manifest;

/// The journal of answers.
pub(super) struct AnswerJournal(Rc<RefCell<Journal>>);

impl AnswerJournal {
    /// Opens the journal beside `output`, or begins a new one with `manifest` as its key. Returns
    /// the stored answers for the scorer, too.
    pub(super) fn open<'a>(output: &Path, manifest: &Manifest) -> Result<(Self, Answers<'a>)> {
        let (mut replay, journal) = journal::open(&path_for(output), &manifest.journal_key()?)?;
        let mut known = HashMap::new();
        while let Some(entry) = replay.next_entry()? {
            if let Some((key, values)) = entry.split_first_chunk() {
                known.insert(*key, Vec::from_bytes(values)?);
            }
        }
        if !known.is_empty() {
            tracing::info!(
                "resuming: {} answers about unfinished proteins are already done",
                known.len()
            );
        }
        let journal = Rc::new(RefCell::new(journal));
        let writer = Rc::clone(&journal);
        let keep = Box::new(move |key: &AnswerKey, values: &[f64]| {
            let entry = [key.as_slice(), &values.to_vec().to_bytes()].concat();
            let mut journal = writer.borrow_mut();
            journal.append(&entry)?;
            journal.flush()
        });
        Ok((Self(journal), Answers::new(known, keep)))
    }

    /// Removes all answers, because their proteins are finished.
    pub(super) fn empty(&self) -> Result<()> {
        Ok(self.0.borrow_mut().empty()?)
    }
}

/// Deletes the journal of answers beside `output`, which is complete.
pub(super) fn remove(output: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path_for(output))
}

fn path_for(output: &Path) -> PathBuf {
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    journal::path_for(Path::new(&part))
}
