//! Stored answers. Each answer is stored as soon as it is computed, so that a run that stopped in
//! the middle of a long protein computes only the missing answers.
//!
//! The answer for a masked copy depends on its tokens and masks alone, so its key is a hash of
//! both; the key of a mutant's log-likelihood is a hash of its residues.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;

use sha2::{Digest, Sha256};

use super::Masking;
use crate::inference::masked::Question;

/// The key of a stored answer.
pub type AnswerKey = [u8; 32];

/// Writes an answer to a place that outlives this process.
pub type AnswerWriter<'a> = Box<dyn FnMut(&AnswerKey, &[f64]) -> io::Result<()> + 'a>;

/// The answers of an earlier run, and the writer of new answers.
pub struct Answers<'a> {
    known: HashMap<AnswerKey, Vec<f64>>,
    keep: RefCell<AnswerWriter<'a>>,
}

impl<'a> Answers<'a> {
    /// Starts with the answers of an earlier run.
    pub fn new(known: HashMap<AnswerKey, Vec<f64>>, keep: AnswerWriter<'a>) -> Self {
        Self {
            known,
            keep: RefCell::new(keep),
        }
    }

    /// The answer of an earlier run.
    pub(super) fn known(&self, key: &AnswerKey) -> Option<&[f64]> {
        self.known.get(key).map(Vec::as_slice)
    }

    /// Stores a new answer.
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
