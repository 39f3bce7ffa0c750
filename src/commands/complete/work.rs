//! Turns records into prompts while the generators have room, and completions into FASTA.

use std::collections::VecDeque;

use anyhow::{Context, Result};

use super::OutputPart;
use super::plan::{PromptPlan, PromptRule};
use super::text::fasta;
use crate::commands::conveyor::{Failure, TextBlock, Work, described_place};
use crate::inference::generate::{End, GeneratedSequence, GenerationSettings, Generators, Prompt};
use crate::sequence::{Sequence, counted};
use crate::tokenizer::{TaskPrefix, Tokenizer};

/// The largest number of unfinished sequences.
const MAX_WAITING: usize = 8192;

/// Completes sequences.
pub(super) struct Completing<'a> {
    pub(super) generators: Generators<'a>,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) prefix: TaskPrefix,
    pub(super) settings: GenerationSettings,
    pub(super) rule: PromptRule,
    pub(super) part: OutputPart,
    /// Unfinished sequences in order, each with the residues of its prompt, or with the reason why
    /// it cannot be completed.
    pub(super) waiting: VecDeque<(Sequence, Result<usize, Failure>)>,
    pub(super) tally: CompletionTally,
}

/// Counts for the log at the end of the run.
#[derive(Debug, Default)]
pub(super) struct CompletionTally {
    sequences: u64,
    residues: u64,
    /// Residues of prompts that the model read as X.
    replaced: usize,
    /// Sequences that reached the length limit without `</s>`.
    unended: u64,
    /// Records with fewer sequences than `--num-samples`.
    fewer: u64,
}

impl Work for Completing<'_> {
    type Output = TextBlock;

    fn push(&mut self, sequence: Sequence) -> Result<()> {
        let prompt_length = match self.rule.plan(sequence.residues.len()) {
            Ok(plan) => {
                let prompt = self.prompt(&sequence, plan)?;
                self.generators.push(prompt);
                Ok(plan.prompt)
            }
            Err(error) => Err(Failure::new(error)),
        };
        self.waiting.push_back((sequence, prompt_length));
        Ok(())
    }

    fn is_full(&self) -> bool {
        // A sequence that cannot be completed is passed on at once, so that many of them in a row
        // take no memory.
        let rejected = matches!(self.waiting.front(), Some((_, Err(_))));
        rejected || self.waiting.len() >= MAX_WAITING || !self.generators.wants_more()
    }

    fn advance(&mut self) -> Result<()> {
        Ok(self.generators.advance()?)
    }

    fn pop(&mut self) -> Option<(Sequence, Result<TextBlock, Failure>)> {
        let written = match &self.waiting.front()?.1 {
            Ok(prompt) => self.generators.pop()?.map(|written| (*prompt, written)).map_err(|error| {
                Failure::new(format_args!(
                    "{error}: the weights or the number type cannot represent this sequence; try --dtype f32"
                ))
            }),
            Err(failure) => Err(failure.clone()),
        };
        let (sequence, _) = self.waiting.pop_front()?;
        let result =
            written.map(|(prompt, completions)| self.text(&sequence, prompt, &completions));
        Some((sequence, result))
    }
}

impl Completing<'_> {
    fn prompt(&mut self, sequence: &Sequence, plan: PromptPlan) -> Result<Prompt> {
        let encoding = self
            .tokenizer
            .encode(&sequence.residues[..plan.prompt], self.prefix)
            .with_context(|| described_place(sequence))?;
        self.tally.replaced += encoding.replaced;
        Ok(Prompt {
            id: sequence.id.clone(),
            token_ids: encoding.token_ids,
            min_new: plan.min_new,
            max_new: plan.max_new,
        })
    }

    /// The FASTA records of one sequence.
    fn text(
        &mut self,
        sequence: &Sequence,
        prompt: usize,
        completions: &[GeneratedSequence],
    ) -> TextBlock {
        self.tally.add(completions, &self.settings, &self.rule);
        let (settings, tokenizer) = (&self.settings, self.tokenizer);
        TextBlock {
            text: fasta(
                sequence,
                prompt,
                completions,
                settings,
                tokenizer,
                self.part,
            ),
            rows: completions.len() as u64,
        }
    }
}

impl CompletionTally {
    fn add(
        &mut self,
        completions: &[GeneratedSequence],
        settings: &GenerationSettings,
        rule: &PromptRule,
    ) {
        self.sequences += completions.len() as u64;
        let new: usize = completions.iter().map(|c| c.token_ids.len()).sum();
        self.residues += new as u64;
        self.fewer += u64::from(completions.len() < settings.num_samples);
        if !rule.is_exact() {
            let unended = completions.iter().filter(|c| c.end() == End::Length);
            self.unended += unended.count() as u64;
        }
    }

    pub(super) fn log(&self) {
        let Self {
            sequences,
            residues,
            replaced,
            unended,
            fewer,
        } = self;
        tracing::info!(
            "{} written in {}",
            counted(*residues, "residue"),
            counted(*sequences, "sequence")
        );
        if *replaced > 0 {
            tracing::warn!(
                "{} of prompts read as X: not in the vocabulary",
                counted(*replaced, "residue")
            );
        }
        if *unended > 0 {
            tracing::info!(
                "{} ended by the length limit, without </s>",
                counted(*unended, "sequence")
            );
        }
        if *fewer > 0 {
            tracing::warn!(
                "{} with fewer sequences than --num-samples: there are no more of that length and those residues",
                counted(*fewer, "record")
            );
        }
    }
}
