//! Answers that are kept as soon as they are there, so that a run that was cut off in the middle of a long protein asks only for the others.
//!
//! A masked copy's answer depends on its tokens and masks alone, so these are what it is known by; a mutant's log-likelihood by its residues.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;

use sha2::{Digest, Sha256};

use super::Masking;
use crate::inference::masked::Question;

/// What an answer is known by.
pub type AnswerKey = [u8; 32];

/// Writes an answer where it outlives this process.
pub type AnswerWriter<'a> = Box<dyn FnMut(&AnswerKey, &[f64]) -> io::Result<()> + 'a>;

/// Answers of an earlier run, and where new ones go.
pub struct Answers<'a> {
    known: HashMap<AnswerKey, Vec<f64>>,
    keep: RefCell<AnswerWriter<'a>>,
}

impl<'a> Answers<'a> {
    /// Begins with what an earlier run had.
    pub fn new(known: HashMap<AnswerKey, Vec<f64>>, keep: AnswerWriter<'a>) -> Self {
        Self {
            known,
            keep: RefCell::new(keep),
        }
    }

    /// The earlier run's answer.
    pub(super) fn known(&self, key: &AnswerKey) -> Option<&[f64]> {
        self.known.get(key).map(Vec::as_slice)
    }

    /// Keeps a new one.
    pub(super) fn keep(&self, key: &AnswerKey, values: &[f64]) -> io::Result<()> {
        (self.keep.borrow_mut())(key, values)
    }
}

/// The key of a masked copy.
pub(super) fn of_copy(question: &Question<'_>) -> AnswerKey {
    let mut hash = Sha256::new();
    hash.update(b"copy");
    for token in &question.encoding.token_ids {
        hash.update(token.to_le_bytes());
    }
    for position in &question.masked {
        hash.update((*position as u64).to_le_bytes());
    }
    hash.finalize().into()
}

/// The key of a whole protein's log-likelihood.
pub(super) fn of_protein(id: &str, residues: &[u8], masking: Masking) -> AnswerKey {
    let mut hash = Sha256::new();
    hash.update(format!("protein {masking:?} {id} "));
    hash.update(residues);
    hash.finalize().into()
}
