//! The work of a command on sequences: one at a time, or in groups.

use std::collections::VecDeque;
use std::fmt;

use anyhow::Result;

use crate::sequence::Sequence;
use crate::shown::shown;

/// Why a sequence has no result, and what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Failure(String);

impl Failure {
    pub(in crate::commands) fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }

    /// The network's result holds NaN or infinity.
    pub(in crate::commands) fn not_finite() -> Self {
        Self::new(
            "the model's result holds NaN or infinity: the weights or the number type cannot represent this sequence; try --dtype f32",
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Computes results, in the order of their sequences.
pub(in crate::commands) trait Work {
    type Output;

    /// Called with every sequence of the input before anything else, even with sequences of other
    /// shards and sequences whose results are in the journal.
    fn saw(&mut self, _sequence: &Sequence) {}

    /// Adds a sequence.
    ///
    /// # Errors
    /// A sequence that ends the run.
    fn push(&mut self, sequence: Sequence) -> Result<()>;

    /// True if [`Work::advance`] should be called before the next [`Work::push`].
    fn is_full(&self) -> bool;

    /// Computes. After enough calls, all pushed sequences can be popped.
    ///
    /// # Errors
    /// A failure of the network.
    fn advance(&mut self) -> Result<()>;

    /// The next sequence with its result, in order; `None` if the result is not computed yet.
    fn pop(&mut self) -> Option<(Sequence, Result<Self::Output, Failure>)>;

    /// Called when the journal holds the results of all popped sequences, so that other data about
    /// these sequences can be deleted.
    ///
    /// # Errors
    /// Files that cannot be written.
    fn settled(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Work on groups of sequences.
pub(in crate::commands) trait GroupWork {
    type Output;

    /// As [`Work::saw`].
    fn saw(&mut self, _sequence: &Sequence) {}

    /// The approximate number of tokens that the network reads for this sequence.
    fn tokens(&self, sequence: &Sequence) -> usize;

    /// The results of a group, in order; `None` for a result with NaN or infinity.
    ///
    /// # Errors
    /// A failure of the network.
    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Self::Output>>>;

    /// As [`Work::settled`].
    ///
    /// # Errors
    /// As [`Work::settled`].
    fn settled(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Collects sequences up to a number of tokens, then computes them together.
pub(in crate::commands) struct Grouped<G: GroupWork> {
    pub(in crate::commands) work: G,
    max_tokens: usize,
    group: Vec<Sequence>,
    tokens: usize,
    finished: VecDeque<(Sequence, Option<G::Output>)>,
}

impl<G: GroupWork> Grouped<G> {
    /// A group is computed when it has `max_tokens`.
    pub(in crate::commands) fn new(work: G, max_tokens: usize) -> Self {
        Self {
            work,
            max_tokens,
            group: Vec::new(),
            tokens: 0,
            finished: VecDeque::new(),
        }
    }
}

impl<G: GroupWork> Work for Grouped<G> {
    type Output = G::Output;

    fn saw(&mut self, sequence: &Sequence) {
        self.work.saw(sequence);
    }

    fn push(&mut self, sequence: Sequence) -> Result<()> {
        self.tokens += self.work.tokens(&sequence);
        self.group.push(sequence);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.tokens >= self.max_tokens
    }

    fn advance(&mut self) -> Result<()> {
        let results = self.work.compute(&self.group)?;
        debug_assert_eq!(results.len(), self.group.len());
        self.finished.extend(self.group.drain(..).zip(results));
        self.tokens = 0;
        Ok(())
    }

    fn pop(&mut self) -> Option<(Sequence, Result<G::Output, Failure>)> {
        let (sequence, result) = self.finished.pop_front()?;
        Some((sequence, result.ok_or_else(Failure::not_finite)))
    }

    fn settled(&mut self) -> Result<()> {
        self.work.settled()
    }
}

/// `proteins.fasta: record 3 (P12345), line 17`.
pub(in crate::commands) fn described_place(sequence: &Sequence) -> String {
    let Sequence { id, origin, .. } = sequence;
    format!(
        "{}: record {} ({}), line {}",
        origin.file,
        origin.record,
        shown(id),
        origin.line
    )
}
