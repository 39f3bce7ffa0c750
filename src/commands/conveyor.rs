//! The run loop of all commands that process proteins one after the other.
//!
//! ```text
//! input, read ahead on a thread
//!   → the sequences of this shard
//!   → results of an earlier run from the journal; the others are computed by `Work`
//!   → a thread that keeps the journal and writes rows, in input order
//! ```
//!
//! Every sequence of the shard ends as a result or as a failure, and both are counted.
//!
//! The words of this folder:
//!
//! - [`Conveyor`]: a run whose input is open and whose journal is read.
//! - `carry`: to take all sequences of the run through the work to the output.
//! - `feed`: the part before the belt, which takes sequences from the input and computes.
//! - `belt`: the channel to the thread that writes, and that thread.
//! - `parcel`: one sequence with its result, on the belt.
//! - `deliver`: to write the parcels, in input order; [`Delivery`] is the run after the last one.

mod belt;
mod feed;
mod forecast;
mod plan;
mod rows;
#[cfg(test)]
mod tests;
mod work;

use std::panic::resume_unwind;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{Context, Result, ensure};

pub(super) use belt::RowWriter;
pub(super) use plan::RunPlan;
pub(super) use rows::{EmbeddingRows, TextBlock, TextRows};
pub(super) use work::{Failure, GroupWork, Grouped, Work, described_place};

use self::belt::{Delivered, deliver};
use self::feed::Feed;
use self::forecast::Forecast;
use self::plan::Proteins;
use super::Outcome;
use crate::args::Shard;
use crate::input::sequences::{Counts, OnBad};
use crate::output::journal::{Journal, Replay};
use crate::progress::Progress;
use crate::sequence::counted;
use crate::sequence::digest::InputDigest;

/// Groups of results that may wait to be written.
const WAITING: usize = 2;

/// A run that is ready to go through its input.
pub(super) struct Conveyor {
    proteins: Proteins,
    shard: Option<Shard>,
    on_bad: OnBad,
    replay: Option<Replay>,
    journal: Option<Journal>,
    forecast: Forecast,
    progress: Progress,
    /// The context of the output's errors: `writing FILE`.
    writing: String,
}

/// A run whose results are all written. [`Delivery::finish`] completes the output.
pub(super) struct Delivery<R> {
    pub(super) rows: R,
    journal: Option<Journal>,
    counts: Counts,
    digest: InputDigest,
    /// Sequences without a result.
    failed: u64,
    progress: Progress,
    writing: String,
}

impl Conveyor {
    /// Announces a large output as soon as the input has been counted; `size(sequences, residues)`
    /// is the output's size in bytes.
    pub(super) fn announcing(mut self, size: impl Fn(u64, u64) -> u64 + 'static) -> Self {
        self.forecast.size = Some(Box::new(size));
        self
    }

    /// Carries every sequence of this shard through `work` to `rows`.
    ///
    /// # Errors
    /// Whatever reading, computing and writing meet; a sequence without a result, unless it may be
    /// skipped.
    pub(super) fn carry<R: RowWriter>(
        mut self,
        work: &mut dyn Work<Output = R::Output>,
        rows: R,
    ) -> Result<Delivery<R>> {
        let journal = self.journal.take();
        let keeps_journal = journal.is_some();
        let advice = if self.shard.is_some() && !R::KEEPS_PLACES {
            Some(
                "or take the record out of the input: shards are merged by their order, so none may lack a sequence",
            )
        } else if self.on_bad == OnBad::Error {
            Some("or leave the record out with --on-bad skip")
        } else {
            None
        };
        let journalled = AtomicU64::new(0);
        let (fed, delivered) = thread::scope(|scope| {
            let (sender, receiver) = sync_channel(WAITING);
            let count = &journalled;
            let writer = thread::Builder::new()
                .name("output".to_owned())
                .spawn_scoped(scope, move || deliver(rows, journal, receiver, count))?;
            let mut feed = Feed::new(&mut self, work, sender, advice);
            if keeps_journal {
                feed.watch(&journalled);
            }
            // `all` drops the sender, which ends the writer.
            let fed = feed.all();
            let delivered = writer.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok::<_, anyhow::Error>((fed, delivered))
        })?;
        // An error of the output comes first: the feed ends because of it.
        let Delivered {
            rows,
            journal,
            written,
        } = delivered.with_context(|| self.writing.clone())?;
        let (taken, failed) = fed?;
        ensure!(
            taken == written + failed,
            "{taken} sequences went in, {written} were written and {failed} failed: some are lost; please report this error"
        );
        Ok(Delivery {
            rows,
            journal,
            counts: *self.proteins.counts(),
            digest: self.proteins.digest(),
            failed,
            progress: self.progress,
            writing: self.writing,
        })
    }
}

impl<R: RowWriter> Delivery<R> {
    /// Completes the output, removes the journal, and says what the run came to.
    ///
    /// # Errors
    /// An output that cannot be written.
    pub(super) fn finish(self) -> Result<Outcome> {
        let outcome = self
            .rows
            .finish(self.digest)
            .with_context(|| self.writing.clone())?;
        self.journal.map_or(Ok(()), Journal::remove)?;
        self.counts.log();
        if self.failed > 0 {
            tracing::warn!(
                "{} without a result left out",
                counted(self.failed, "sequence")
            );
        }
        self.progress.finish();
        Ok(if self.counts.is_partial() || self.failed > 0 {
            Outcome::SomeFailed
        } else {
            outcome
        })
    }
}
