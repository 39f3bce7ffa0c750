//! The end of the conveyor: a thread takes parcels from the belt, and writes the journal and the
//! rows while the next results are computed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use anyhow::{Context, Result};

use super::super::Outcome;
use super::Failure;
use crate::output::entry::{JournalEntry, sealed};
use crate::output::journal::Journal;
use crate::sequence::Sequence;
use crate::sequence::digest::InputDigest;

/// Writes results in input order.
pub(in crate::commands) trait RowWriter: Send {
    type Output: JournalEntry + Send;

    /// Whether the output of a shard records sequences without rows, so that its shards can be
    /// merged when sequences are missing.
    const KEEPS_PLACES: bool;

    /// Writes the rows of a sequence.
    ///
    /// # Errors
    /// An output that cannot be written.
    fn write(&mut self, sequence: &Sequence, output: Self::Output) -> Result<()>;

    /// Called for a sequence of this shard that has no result.
    fn pass_over(&mut self);

    /// Completes the output; `input` is the digest of the whole input. Returns
    /// [`Outcome::SomeFailed`] if parts of sequences were left out.
    ///
    /// # Errors
    /// An output that cannot be written.
    fn finish(self, input: InputDigest) -> Result<Outcome>;
}

/// A sequence on its way to the output.
pub(super) struct Parcel<T> {
    pub(super) sequence: Sequence,
    pub(super) result: Result<T, Failure>,
    /// Whether the result is not in the journal yet.
    pub(super) is_new: bool,
}

/// The result of [`deliver`].
pub(super) struct Delivered<R> {
    pub(super) rows: R,
    pub(super) journal: Option<Journal>,
    /// Sequences with a result.
    pub(super) written: u64,
}

/// The first byte of a journal entry with a result.
const RESULT: u8 = 1;
/// The first byte of a journal entry with the reason of a failure.
const FAILURE: u8 = 0;

/// Writes all results until the sender is closed. `journalled` counts the new results in the
/// journal.
pub(super) fn deliver<R: RowWriter>(
    mut rows: R,
    mut journal: Option<Journal>,
    belt: Receiver<Vec<Parcel<R::Output>>>,
    journalled: &AtomicU64,
) -> Result<Delivered<R>> {
    let mut written = 0;
    for parcels in belt {
        if let Some(journal) = &mut journal {
            let new = parcels.iter().filter(|parcel| parcel.is_new);
            let mut count = 0;
            for parcel in new {
                journal.append(&sealed(&to_entry(&parcel.result), &parcel.sequence))?;
                count += 1;
            }
            journal.flush()?;
            journalled.fetch_add(count, Ordering::Release);
        }
        for Parcel {
            sequence, result, ..
        } in parcels
        {
            match result {
                Ok(output) => {
                    rows.write(&sequence, output)?;
                    written += 1;
                }
                Err(_) => rows.pass_over(),
            }
        }
    }
    Ok(Delivered {
        rows,
        journal,
        written,
    })
}

fn to_entry<T: JournalEntry>(result: &Result<T, Failure>) -> Vec<u8> {
    match result {
        Ok(output) => [&[RESULT], output.to_bytes().as_slice()].concat(),
        Err(failure) => [&[FAILURE], failure.to_string().as_bytes()].concat(),
    }
}

/// The result in an entry made by [`to_entry`].
pub(super) fn from_entry<T: JournalEntry>(bytes: &[u8]) -> Result<Result<T, Failure>> {
    match bytes.split_first() {
        Some((&RESULT, output)) => Ok(Ok(T::from_bytes(output)?)),
        Some((_, reason)) => Ok(Err(Failure::new(String::from_utf8_lossy(reason)))),
        None => Err(anyhow::anyhow!("an entry without a byte"))
            .context("the journal is damaged; delete the .resume file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_failures_as_entries_and_back() {
        let results: [Result<Vec<f64>, Failure>; 3] = [
            Ok(vec![-0.5, f64::MIN_POSITIVE]),
            Ok(Vec::new()),
            Err(Failure::not_finite()),
        ];
        for result in results {
            let back = from_entry::<Vec<f64>>(&to_entry(&result)).unwrap();
            assert_eq!(back, result);
        }
        assert!(from_entry::<Vec<f64>>(b"").is_err());
        assert!(from_entry::<Vec<f64>>(&[RESULT, 1, 2, 3]).is_err());
    }
}
