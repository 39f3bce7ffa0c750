//! `OUTPUT.part.resume`: answers about the proteins in work, so that a run that was cut off in the middle of a long one goes on there. It is emptied
//! whenever the journal has the proteins themselves.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::inference::score::{AnswerKey, Answers};
use crate::output::journal::{self, Journal};

/// The journal of answers.
pub(super) struct Kept(Rc<RefCell<Journal>>);

impl Kept {
    /// Opens the journal beside `output`, or begins one; `manifest` is its key. The answers are for the scorer.
    pub(super) fn open<'a>(
        output: &Path,
        manifest: &Map<String, Value>,
    ) -> Result<(Self, Answers<'a>)> {
        let (mut replay, journal) =
            journal::open(&path_for(output), &serde_json::to_string(manifest)?)?;
        let mut known = HashMap::new();
        while let Some(entry) = replay.next_entry()? {
            if let Some((key, values)) = entry.split_first_chunk() {
                known.insert(*key, numbers(values));
            }
        }
        if !known.is_empty() {
            tracing::info!(
                "resuming: {} answers about proteins in work are there already",
                known.len()
            );
        }
        let journal = Rc::new(RefCell::new(journal));
        let writer = Rc::clone(&journal);
        let keep = Box::new(move |key: &AnswerKey, values: &[f64]| {
            let values = values.iter().flat_map(|value| value.to_le_bytes());
            let entry: Vec<u8> = key.iter().copied().chain(values).collect();
            let mut journal = writer.borrow_mut();
            journal.append(&entry)?;
            journal.flush()
        });
        Ok((Self(journal), Answers::new(known, keep)))
    }

    /// The proteins in work are done.
    pub(super) fn empty(&self) -> Result<()> {
        Ok(self.0.borrow_mut().empty()?)
    }
}

/// Deletes the journal of answers beside `output`: the output is complete.
pub(super) fn remove(output: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path_for(output))
}

fn path_for(output: &Path) -> PathBuf {
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    journal::path_for(Path::new(&part))
}

fn numbers(bytes: &[u8]) -> Vec<f64> {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().map(|n| f64::from_le_bytes(*n)).collect()
}
