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
pub(super) use plan::{RunPlan, whole};
pub(super) use rows::{EmbeddingRows, TextBlock, TextRows};
pub(super) use work::{Failure, GroupWork, Grouped, Work, place};

use self::belt::{Delivered, deliver};
use self::feed::Feed;
use self::forecast::Forecast;
use self::plan::Proteins;
use super::Outcome;
use crate::args::Shard;
use crate::input::sequences::{Counts, OnBad};
use crate::output::journal::{Journal, Replay};
use crate::progress::Progress;
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
    /// Announces a large output as soon as the input has been counted; `size` gives the bytes of so
    /// many sequences and residues.
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
        let must_not_skip = if self.shard.is_some() && !R::KEEPS_PLACES {
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
            let mut feed = Feed::new(&mut self, work, sender, must_not_skip);
            if keeps_journal {
                feed.watch(&journalled);
            }
            // The sender goes with the feed: then the writer ends, too.
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
        report(&self.counts);
        if self.failed > 0 {
            tracing::warn!("{} sequences left out: they have no result", self.failed);
        }
        self.progress.finish();
        Ok(if self.counts.is_partial() || self.failed > 0 {
            Outcome::SomeFailed
        } else {
            outcome
        })
    }
}

/// Logs what was changed in the input, and what was left out of it.
pub(super) fn report(counts: &Counts) {
    if !counts.changes.is_empty() {
        tracing::warn!("input: {}", counts.changes);
    }
    let Counts {
        records,
        failed,
        too_long,
        repeated,
        ..
    } = counts;
    let left_out = failed + too_long + repeated;
    if left_out > 0 {
        tracing::warn!(
            "{left_out} of {records} records left out: {failed} invalid, {too_long} too long, {repeated} repeated"
        );
    }
}
