//! The loop of commands whose result of a sequence is a few bytes: reads, leaves other shards' sequences out, takes over what an earlier run has done,
//! computes the rest in groups, writes everything in input order, keeps the journal.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::args::{ScaleArgs, Shard, usage};
use crate::input::sequences::{Item, OnBad};
use crate::io::stdio;
use crate::output::embeddings::remove_unfinished;
use crate::output::entry;
use crate::output::journal::{self, Journal, Replay};
use crate::output::manifest::Manifest;
use crate::progress::Progress;
use crate::sequence::{Limit, Over, Sequence};

/// Work on a group begins when it holds about this many batches, so that the last one, which is not full, costs little.
const BATCHES: usize = 8;

/// In the journal, before a result; a sequence without one has nothing else.
const HAS_RESULT: u8 = 1;

/// What a command does with sequences.
pub(super) trait Work {
    /// Hears of every sequence of the input, also of those of other shards.
    fn saw(&mut self, _sequence: &Sequence) {}

    /// About how many tokens the network will read for this sequence.
    fn tokens(&self, sequence: &Sequence) -> usize;

    /// The results of a group, in order; `None` where the network's result holds NaN or infinity.
    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Vec<u8>>>>;

    /// Writes a result.
    fn write(&mut self, sequence: &Sequence, result: &[u8]) -> Result<()>;

    /// The journal has the results of all groups so far.
    fn kept(&mut self) -> Result<()> {
        Ok(())
    }

    /// A sequence of this shard is done, written or left out.
    fn close_sequence(&mut self);
}

/// The loop's state.
pub(super) struct Stream {
    shard: Option<Shard>,
    replay: Option<Replay>,
    journal: Option<Journal>,
    on_bad: OnBad,
    tokens: usize,
    progress: Progress,
    refused: u64,
}

impl Stream {
    /// `manifest` is the journal's key: everything that influences the results.
    ///
    /// # Errors
    /// A journal of another run; one for stdout.
    pub(super) fn new(
        scale: &ScaleArgs,
        output: &Path,
        manifest: &Manifest,
        on_bad: OnBad,
        max_batch_tokens: usize,
    ) -> Result<Self> {
        let (replay, journal) = open_journal(scale, output, manifest)?;
        Ok(Self {
            shard: scale.shard,
            replay,
            journal,
            on_bad,
            tokens: BATCHES * max_batch_tokens,
            progress: Progress::new(),
            refused: 0,
        })
    }

    /// Works through all items. Returns how many sequences had no finite result, and the journal, to be removed when the output is complete.
    ///
    /// # Errors
    /// What reading, computing and writing meet.
    pub(super) fn run(
        mut self,
        items: &mut dyn Iterator<Item = Result<Item>>,
        work: &mut dyn Work,
    ) -> Result<(u64, Option<Journal>)> {
        let mut group = Vec::new();
        let mut tokens = 0;
        for item in items {
            let Item { index, sequence } = item?;
            work.saw(&sequence);
            if self.shard.is_some_and(|shard| !shard.has(index)) {
                continue;
            }
            if let Some(result) = self.replayed(&sequence)? {
                self.take(&sequence, result.as_deref(), work)?;
                continue;
            }
            tokens += work.tokens(&sequence);
            group.push(sequence);
            if tokens >= self.tokens {
                self.compute(&std::mem::take(&mut group), work)?;
                tokens = 0;
            }
        }
        self.compute(&group, work)?;
        self.progress.finish();
        Ok((self.refused, self.journal))
    }

    /// What an earlier run has of this sequence.
    #[expect(
        clippy::option_option,
        reason = "not done yet, done without a result, done with one"
    )]
    fn replayed(&mut self, sequence: &Sequence) -> Result<Option<Option<Vec<u8>>>> {
        let Some(replay) = &mut self.replay else {
            return Ok(None);
        };
        let Some(bytes) = replay.next_entry()? else {
            return Ok(None);
        };
        let result = entry::unsealed(&bytes, sequence).with_context(|| {
            format!("the input is not the one that the run to be resumed began with (at {}); delete the .resume file or give the same input", sequence.id)
        })?;
        let result = result.strip_prefix(&[HAS_RESULT]);
        Ok(Some(result.map(<[u8]>::to_vec)))
    }

    fn compute(&mut self, group: &[Sequence], work: &mut dyn Work) -> Result<()> {
        if group.is_empty() {
            return Ok(());
        }
        let results = work.compute(group)?;
        for (sequence, result) in group.iter().zip(&results) {
            if let Some(journal) = &mut self.journal {
                let kept = match result {
                    Some(result) => [&[HAS_RESULT], result.as_slice()].concat(),
                    None => Vec::new(),
                };
                journal.append(&entry::sealed(&kept, sequence))?;
            }
            self.take(sequence, result.as_deref(), work)?;
        }
        if let Some(journal) = &mut self.journal {
            journal.flush()?;
            work.kept()?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        sequence: &Sequence,
        result: Option<&[u8]>,
        work: &mut dyn Work,
    ) -> Result<()> {
        self.progress.add(1, sequence.residues.len() as u64);
        match result {
            Some(result) => work.write(sequence, result)?,
            None => self.refuse(sequence)?,
        }
        work.close_sequence();
        Ok(())
    }

    /// A result that is not finite: an error, or a skipped record.
    fn refuse(&mut self, sequence: &Sequence) -> Result<()> {
        let message = format!(
            "{}: the model's result holds NaN or infinity; the weights or the number type do not bear this sequence",
            place(sequence)
        );
        if self.on_bad == OnBad::Error {
            bail!("{message} (try --dtype f32, or leave the record out)");
        }
        tracing::warn!("skipped: {message}");
        self.refused += 1;
        Ok(())
    }
}

/// The journal of a run that can be resumed: what it holds, and its end. Its key is `manifest`.
///
/// # Errors
/// A journal of another run; one for stdout.
pub(super) fn open_journal(
    scale: &ScaleArgs,
    output: &Path,
    manifest: &Manifest,
) -> Result<(Option<Replay>, Option<Journal>)> {
    if !scale.resume {
        return Ok((None, None));
    }
    ensure!(
        !stdio::is_dash(output),
        usage("--resume needs a file: add -o FILE")
    );
    let key = manifest.journal_key()?;
    let (done, end) = journal::open(&journal::path_for(output), &key)?;
    // Whoever holds the journal is alone with the output.
    remove_unfinished(output)?;
    if done.left() > 0 {
        tracing::info!("resuming: {} sequences are done already", done.left());
    }
    Ok((Some(done), Some(end)))
}

/// `proteins.fasta: record 3 (P12345), line 17`.
pub(super) fn place(sequence: &Sequence) -> String {
    let Sequence { id, origin, .. } = sequence;
    format!(
        "{}: record {} ({id}), line {}",
        origin.file, origin.record, origin.line
    )
}

/// Chunks are joined by averaging embeddings; other results cannot be.
///
/// # Errors
/// `--over chunk`.
pub(super) fn refuse_chunks(limit: &Limit) -> Result<()> {
    ensure!(
        !matches!(limit.over(), Over::Chunk { .. }),
        usage(
            "--over chunk is for embeddings only; choose --over truncate or skip, or cut the sequences yourself"
        )
    );
    Ok(())
}
