//! The start of the conveyor: reading and computing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use anyhow::{Context, Result, bail};

use super::belt::{Parcel, from_entry};
use super::{Conveyor, Failure, Work, described_place};
use crate::input::sequences::Item;
use crate::output::entry::{JournalEntry, unsealed};
use crate::sequence::Sequence;
use crate::shown::shown;

/// Takes sequences from the input and passes their results to the writer in the same order.
pub(super) struct Feed<'a, T> {
    conveyor: &'a mut Conveyor,
    work: &'a mut dyn Work<Output = T>,
    to_writer: SyncSender<Vec<Parcel<T>>>,
    /// Number of new results in the journal; `None` without a journal.
    journalled: Option<&'a AtomicU64>,
    /// Advice to the user, if a sequence without a result must not be skipped.
    advice: Option<&'static str>,
    /// Sequences of this shard.
    taken: u64,
    /// Sequences passed to the work.
    pushed: u64,
    /// Sequences that the work has finished.
    popped: u64,
    /// Sequences that the work had finished when it last heard that the journal holds them.
    settled: u64,
    /// Sequences without a result.
    failed: u64,
}

impl<'a, T: JournalEntry> Feed<'a, T> {
    pub(super) fn new(
        conveyor: &'a mut Conveyor,
        work: &'a mut dyn Work<Output = T>,
        to_writer: SyncSender<Vec<Parcel<T>>>,
        advice: Option<&'static str>,
    ) -> Self {
        Self {
            conveyor,
            work,
            to_writer,
            journalled: None,
            advice,
            taken: 0,
            pushed: 0,
            popped: 0,
            settled: 0,
            failed: 0,
        }
    }

    /// `journalled` counts the results that the journal holds.
    pub(super) fn watch(&mut self, journalled: &'a AtomicU64) {
        self.journalled = Some(journalled);
    }

    /// Processes the whole input, and drops the sender, which ends the writer. Returns the number
    /// of sequences in this shard, and the number of sequences without a result.
    pub(super) fn all(mut self) -> Result<(u64, u64)> {
        let mut at_end = false;
        while !at_end || self.popped < self.pushed {
            while !at_end && !self.work.is_full() {
                match self.conveyor.proteins.next() {
                    Some(item) => self.take(item?)?,
                    None => at_end = true,
                }
            }
            if self.popped < self.pushed {
                self.compute()?;
            }
        }
        Ok((self.taken, self.failed))
    }

    /// Passes a sequence to the work, unless the sequence belongs to another shard or its result is
    /// in the journal.
    fn take(&mut self, Item { index, sequence }: Item) -> Result<()> {
        self.work.saw(&sequence);
        if self.conveyor.shard.is_some_and(|shard| !shard.has(index)) {
            return Ok(());
        }
        self.taken += 1;
        if let Some(result) = self.replayed(&sequence)? {
            return self.hand_on(vec![Parcel {
                sequence,
                result,
                is_new: false,
            }]);
        }
        self.pushed += 1;
        self.work.push(sequence)
    }

    /// The result of this sequence in the journal of an earlier run.
    fn replayed(&mut self, sequence: &Sequence) -> Result<Option<Result<T, Failure>>> {
        let Some(replay) = &mut self.conveyor.replay else {
            return Ok(None);
        };
        let Some(bytes) = replay.next_entry()? else {
            return Ok(None);
        };
        let result = unsealed(&bytes, sequence).with_context(|| {
            format!("the input differs from the input of the run to resume (at {}); give the same input, or delete the .resume file", shown(&sequence.id))
        })?;
        Ok(Some(from_entry(result)?))
    }

    /// Lets the work compute, and passes finished results on.
    fn compute(&mut self) -> Result<()> {
        let journalled = self.journalled.map(|count| count.load(Ordering::Acquire));
        if journalled == Some(self.popped) && self.popped > self.settled {
            self.work.settled()?;
            self.settled = self.popped;
        }
        self.work.advance()?;
        let mut parcels = Vec::new();
        while let Some((sequence, result)) = self.work.pop() {
            self.popped += 1;
            parcels.push(Parcel {
                sequence,
                result,
                is_new: true,
            });
        }
        self.hand_on(parcels)
    }

    /// Counts results and passes them to the writer. Results before a failure that ends the run
    /// still reach the journal.
    fn hand_on(&mut self, mut parcels: Vec<Parcel<T>>) -> Result<()> {
        let mut fatal = Ok(());
        for number in 0..parcels.len() {
            let Parcel {
                sequence, result, ..
            } = &parcels[number];
            if let Err(failure) = result {
                fatal = self.leave_out(sequence, failure);
            }
            if fatal.is_err() {
                parcels.truncate(number);
                break;
            }
            let residues = parcels[number].sequence.residues.len() as u64;
            self.conveyor.progress.add(1, residues);
        }
        let Conveyor {
            forecast, progress, ..
        } = &mut *self.conveyor;
        forecast.announce(progress);
        if !parcels.is_empty() && self.to_writer.send(parcels).is_err() {
            bail!("nothing more can be written");
        }
        fatal
    }

    /// Skips a sequence without a result, or ends the run.
    fn leave_out(&mut self, sequence: &Sequence, failure: &Failure) -> Result<()> {
        let message = format!("{}: {failure}", described_place(sequence));
        if let Some(advice) = self.advice {
            bail!("{message}; {advice}");
        }
        tracing::warn!("skipped: {message}");
        self.failed += 1;
        Ok(())
    }
}
