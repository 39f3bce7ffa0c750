//! The loop: records become prompts as long as the generators want more; what it has finished is written in order.

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::plan::{Plan, Rule};
use super::text::fasta;
use super::{Outcome, Part, place, report};
use crate::args::Shard;
use crate::inference::generate::{
    End, GenerationResult as Written, GenerationSettings, Generators, NotFinite, Prompt,
};
use crate::input::sequences::{Input, Item, OnBad};
use crate::io::stdio::Output;
use crate::output::entry;
use crate::output::journal::{Journal, Replay};
use crate::output::table::write_manifest;
use crate::output::text_merge::Layout;
use crate::progress::Progress;
use crate::sequence::Sequence;
use crate::tokenizer::{TaskPrefix, Tokenizer};

/// The loop's state.
pub(super) struct Run<'a> {
    pub generators: Generators<'a>,
    pub tokenizer: &'a Tokenizer,
    pub prefix: TaskPrefix,
    pub settings: GenerationSettings,
    pub rule: Rule,
    pub part: Part,
    /// What the generators have.
    pub pending: VecDeque<Pending>,
    /// Records left out since the last one that the generators got.
    pub passed_over: u64,
    pub fasta: Output,
    pub layout: Layout,
    pub output: &'a Path,
    /// How the results are made.
    pub manifest: Map<String, Value>,
    pub replay: Option<Replay>,
    pub journal: Option<Journal>,
    pub progress: Progress,
    pub on_bad: OnBad,
    pub shard: Option<Shard>,
    pub tally: Tally,
}

/// A sequence in work.
pub(super) struct Pending {
    sequence: Sequence,
    /// Residues of its prompt.
    prompt: usize,
    /// Records left out between the one before and this one.
    passed_over: u64,
}

/// What is told at the end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    left_out: u64,
    /// Residues of prompts that the model saw as X.
    replaced: usize,
    /// Sequences that could have ended by themselves and did not.
    unended: u64,
    /// Records with fewer sequences than asked for.
    fewer: u64,
}

impl Run<'_> {
    pub(super) fn all(mut self, mut input: Input) -> Result<Outcome> {
        let mut at_end = false;
        while !(at_end && self.generators.is_idle()) {
            while !at_end && self.generators.wants_more() {
                match input.next() {
                    Some(item) => self.take(item?)?,
                    None => at_end = true,
                }
            }
            self.generators.advance()?;
            while let Some(written) = self.generators.pop() {
                let pending = self.pending.pop_front().expect("one for each prompt");
                self.pass_over(pending.passed_over);
                self.finish_one(&pending.sequence, pending.prompt, written)?;
            }
        }
        self.pass_over(self.passed_over);
        self.fasta.finish()?;
        self.layout.describe(&mut self.manifest);
        write_manifest(self.output, &self.manifest)?;
        self.journal.map_or(Ok(()), Journal::remove)?;
        report(input.counts());
        self.tally.tell();
        self.progress.finish();
        Ok(if input.counts().is_partial() || self.tally.left_out > 0 {
            Outcome::SomeFailed
        } else {
            Outcome::Done
        })
    }

    /// Makes a prompt of a record, unless it is another shard's or done already.
    fn take(&mut self, Item { index, sequence }: Item) -> Result<()> {
        if self.shard.is_some_and(|shard| !shard.has(index)) {
            return Ok(());
        }
        let plan = match self.rule.plan(sequence.residues.len()) {
            Ok(plan) => plan,
            Err(error) => {
                self.passed_over += 1;
                return self.refuse(&sequence, &error.to_string());
            }
        };
        if self.replayed(&sequence)? {
            return Ok(());
        }
        let prompt = self.prompt(&sequence, plan)?;
        self.generators.push(prompt);
        self.pending.push_back(Pending {
            sequence,
            prompt: plan.prompt,
            passed_over: std::mem::take(&mut self.passed_over),
        });
        Ok(())
    }

    fn prompt(&mut self, sequence: &Sequence, plan: Plan) -> Result<Prompt> {
        let encoding = self
            .tokenizer
            .encode(&sequence.residues[..plan.prompt], self.prefix)
            .with_context(|| place(sequence))?;
        self.tally.replaced += encoding.replaced;
        Ok(Prompt {
            id: sequence.id.clone(),
            token_ids: encoding.token_ids,
            min_new: plan.min_new,
            max_new: plan.max_new,
        })
    }

    /// Writes what an earlier run has of this sequence; false if it has nothing.
    fn replayed(&mut self, sequence: &Sequence) -> Result<bool> {
        let Some(replay) = &mut self.replay else {
            return Ok(false);
        };
        let Some(bytes) = replay.next_entry()? else {
            return Ok(false);
        };
        let text = entry::unsealed(&bytes, sequence).with_context(|| {
            format!("the input is not the one that the run to be resumed began with (at {}); delete the .resume file or give the same input", sequence.id)
        })?;
        let passed_over = std::mem::take(&mut self.passed_over);
        self.pass_over(passed_over);
        if text.is_empty() {
            // It had no result then, and would have none now.
            self.refuse(sequence, &NotFinite.to_string())?;
            self.pass_over(1);
        } else {
            self.write(text)?;
            self.progress.add(1, 0);
        }
        Ok(true)
    }

    fn finish_one(&mut self, sequence: &Sequence, prompt: usize, written: Written) -> Result<()> {
        let completions = match written {
            Ok(completions) => completions,
            Err(error) => {
                self.refuse(sequence, &format!("{error}; the weights or the number type do not bear this sequence (try --dtype f32, or leave the record out)"))?;
                self.pass_over(1);
                return self.keep(sequence, &[]);
            }
        };
        let new: usize = completions.iter().map(|c| c.token_ids.len()).sum();
        self.progress.add(1, new as u64);
        if completions.len() < self.settings.num_samples {
            self.tally.fewer += 1;
        }
        if !self.rule.is_exact() {
            let unended = completions.iter().filter(|c| c.end() == End::Length);
            self.tally.unended += unended.count() as u64;
        }
        let text = fasta(
            sequence,
            prompt,
            &completions,
            &self.settings,
            self.tokenizer,
            self.part,
        );
        self.keep(sequence, &text)?;
        self.write(&text)
    }

    /// So many records have no sequence in the output.
    fn pass_over(&mut self, records: u64) {
        (0..records).for_each(|_| self.layout.close_sequence());
    }

    /// Writes the FASTA records of one sequence.
    fn write(&mut self, text: &[u8]) -> Result<()> {
        let headers = text.split(|byte| *byte == b'\n');
        let records = headers.filter(|line| line.starts_with(b">")).count();
        self.layout.add(records as u64);
        self.layout.close_sequence();
        self.fasta.write_all(text)?;
        Ok(())
    }

    /// Adds a result to the journal.
    fn keep(&mut self, sequence: &Sequence, text: &[u8]) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.append(&entry::sealed(text, sequence))?;
            journal.flush()?;
        }
        Ok(())
    }

    /// A record without a result: an error, or left out.
    fn refuse(&mut self, sequence: &Sequence, problem: &str) -> Result<()> {
        let message = format!("{}: {problem}", place(sequence));
        if self.on_bad == OnBad::Error {
            bail!("{message}; or --on-bad skip");
        }
        tracing::warn!("skipped: {message}");
        self.tally.left_out += 1;
        Ok(())
    }
}

impl Tally {
    fn tell(&self) {
        let Tally {
            left_out,
            replaced,
            unended,
            fewer,
        } = self;
        if *left_out > 0 {
            tracing::warn!("{left_out} records left out: they cannot be completed");
        }
        if *replaced > 0 {
            tracing::warn!("{replaced} residues of prompts read as X: the vocabulary lacks them");
        }
        if *unended > 0 {
            tracing::info!("{unended} sequences reached the length limit without </s>");
        }
        if *fewer > 0 {
            tracing::warn!(
                "{fewer} records have fewer sequences than --num-samples: there are no more of that length and those residues"
            );
        }
    }
}
