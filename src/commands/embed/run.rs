//! The loop of `embed`: replay what an earlier run has, compute the rest in groups, hand everything on in order.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::forecast::Forecast;
use super::{Outcome, report};
use crate::args::Shard;
use crate::inference::embedder::{Embedder, EmbeddingColumns};
use crate::input::sequences::{Input, Item, OnBad};
use crate::output::embeddings::EmbeddingRecord;
use crate::output::entry;
use crate::output::journal::Replay;
use crate::output::sink::{Done, Sink};
use crate::progress::Progress;
use crate::sequence::Sequence;

/// The loop's state.
pub(super) struct Run<'a> {
    pub embedder: Embedder<'a>,
    pub sink: Sink,
    pub output: &'a Path,
    pub replay: Option<Replay>,
    pub progress: Progress,
    pub forecast: Forecast,
    pub on_bad: OnBad,
    pub shard: Option<Shard>,
    pub max_tokens: usize,
    pub keeps_journal: bool,
    /// Sequences whose result was refused.
    pub not_finite: u64,
}

impl Run<'_> {
    pub(super) fn all(mut self, mut input: Input) -> Result<Outcome> {
        let mut group: Vec<Sequence> = Vec::new();
        let mut tokens = 0;
        for item in input.by_ref() {
            let Item { index, sequence } = item?;
            if self.shard.is_some_and(|shard| !shard.has(index)) {
                continue;
            }
            if self.replayed(&sequence)? {
                continue;
            }
            tokens += sequence.residues.len() + 2;
            group.push(sequence);
            if tokens >= self.max_tokens {
                self.compute(&group)?;
                group.clear();
                tokens = 0;
            }
        }
        if !group.is_empty() {
            self.compute(&group)?;
        }
        let written = self.sink.finish();
        written.with_context(|| writing(self.output))?;
        report(input.counts());
        self.progress.finish();
        let partial = input.counts().is_partial() || self.not_finite > 0;
        Ok(if partial {
            Outcome::SomeFailed
        } else {
            Outcome::Done
        })
    }

    /// Hands on what an earlier run has of this sequence; false if it has nothing.
    fn replayed(&mut self, sequence: &Sequence) -> Result<bool> {
        let Some(replay) = &mut self.replay else {
            return Ok(false);
        };
        let Some(bytes) = replay.next_entry()? else {
            return Ok(false);
        };
        let record = entry::decode(&bytes, sequence).with_context(|| {
            format!("the input is not the one that the run to be resumed began with (at {}); delete the .resume file or give the same input", sequence.id)
        })?;
        self.progress.add(1, sequence.residues.len() as u64);
        self.forecast.tell(&mut self.progress);
        match record {
            Some(_) => self.write(vec![Done {
                record,
                entry: None,
            }])?,
            None => self.refuse(sequence)?,
        }
        Ok(true)
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<()> {
        let residues: Vec<&[u8]> = group
            .iter()
            .map(|sequence| sequence.residues.as_slice())
            .collect();
        let results = self.embedder.embed(&residues)?;
        let mut done = Vec::with_capacity(group.len());
        for (sequence, result) in group.iter().zip(results) {
            self.progress.add(1, sequence.residues.len() as u64);
            done.push(match result {
                Some(columns) => self.done(sequence, columns),
                None => self.refused(sequence)?,
            });
        }
        self.forecast.tell(&mut self.progress);
        self.write(done)
    }

    fn write(&mut self, done: Vec<Done>) -> Result<()> {
        let written: io::Result<()> = self.sink.write(done);
        written.with_context(|| writing(self.output))
    }

    fn done(&self, sequence: &Sequence, columns: Arc<EmbeddingColumns>) -> Done {
        let values = Arc::try_unwrap(columns).unwrap_or_else(|shared| (*shared).clone());
        let record = EmbeddingRecord {
            id: sequence.id.clone(),
            length: sequence.residues.len(),
            values,
        };
        let entry = self.keeps_journal.then(|| entry::encode(&record, sequence));
        Done {
            record: Some(record),
            entry,
        }
    }

    fn refused(&mut self, sequence: &Sequence) -> Result<Done> {
        self.refuse(sequence)?;
        Ok(Done {
            record: None,
            entry: self.keeps_journal.then(|| entry::encode_refusal(sequence)),
        })
    }

    /// A result that is not finite: an error, or a skipped record. In a shard it must be an error, since shards are merged by their order.
    fn refuse(&mut self, sequence: &Sequence) -> Result<()> {
        let Sequence { id, origin, .. } = sequence;
        let message = format!(
            "{}: record {} ({id}), line {}: the model's result holds NaN or infinity; the weights or the number type do not bear this sequence",
            origin.file, origin.record, origin.line
        );
        if self.on_bad == OnBad::Error || self.shard.is_some() {
            bail!("{message} (try --dtype f32, or leave the record out)");
        }
        tracing::warn!("skipped: {message}");
        self.not_finite += 1;
        Ok(())
    }
}

fn writing(output: &Path) -> String {
    format!("writing {}", output.display())
}
