//! Scores of groups of proteins.

use std::collections::HashSet;

use anyhow::{Result, bail};

use super::answers::AnswerJournal;
use super::target::ScoreTarget;
use crate::commands::conveyor::{GroupWork, described_place};
use crate::inference::masked::TOKENS_PER_MASK;
use crate::inference::score::{EffectMethod, Effects, Masking, Scorer, Variant};
use crate::input::sequences::OnBad;
use crate::sequence::Sequence;
use crate::tokenizer::Tokenizer;

/// Scores proteins or variants.
pub(super) struct Scoring<'a> {
    scorer: Scorer<'a>,
    target: &'a ScoreTarget,
    method: EffectMethod,
    masking: Masking,
    /// Answers about unfinished proteins, with `--resume`.
    answers: Option<AnswerJournal>,
    on_bad: OnBad,
    /// Ids with variants whose protein has not come so far.
    unseen: HashSet<String>,
}

impl<'a> Scoring<'a> {
    pub(super) fn new(
        scorer: Scorer<'a>,
        target: &'a ScoreTarget,
        method: EffectMethod,
        masking: Masking,
        answers: Option<AnswerJournal>,
        on_bad: OnBad,
    ) -> Self {
        Self {
            scorer,
            target,
            method,
            masking,
            answers,
            on_bad,
            unseen: target.ids(),
        }
    }

    /// Called after the last protein. Variants of proteins that are not in the input are an error,
    /// or are left out with `--on-bad skip`. Returns the number of variants left out.
    ///
    /// # Errors
    /// Variants of proteins that are not in the input, with `--on-bad error`.
    pub(super) fn check_unseen(&self) -> Result<u64> {
        let mut left_out = 0;
        let mut ids: Vec<&String> = self.unseen.iter().collect();
        ids.sort_unstable();
        for id in ids {
            let hint = if id.parse::<Variant>().is_ok() {
                " (several substitutions of one variant are written as A24G:H30L)"
            } else {
                ""
            };
            let message = format!("variants are listed for {id}, which is not in the input{hint}");
            if self.on_bad == OnBad::Error {
                bail!("{message}; add the sequence, correct the id, or choose --on-bad skip");
            }
            tracing::warn!("skipped: {message}");
            left_out += self.target.count(id) as u64;
        }
        Ok(left_out)
    }

    /// Scores of listed variants; NaN for variants that do not fit the protein.
    fn effects(&self, sequence: &Sequence) -> Result<Option<Vec<f64>>> {
        let listed = self.target.variants(sequence);
        let mut fitting = Vec::with_capacity(listed.len());
        let mut numbers = Vec::with_capacity(listed.len());
        for (number, listed) in listed.iter().enumerate() {
            match listed.variant.apply(&sequence.residues) {
                Ok(_) => {
                    fitting.push(listed.variant.clone());
                    numbers.push(number);
                }
                Err(error) => {
                    let message =
                        format!("{}: {}: {error}", listed.place, described_place(sequence));
                    if self.on_bad == OnBad::Error {
                        bail!("{message}");
                    }
                    tracing::warn!("skipped: {message}");
                }
            }
        }
        let effects = Effects::new(&self.scorer, self.method, self.masking);
        let scores = effects.score(&sequence.id, &sequence.residues, &fitting)?;
        Ok(scores.map(|scores| {
            let mut all = vec![f64::NAN; listed.len()];
            for (number, score) in numbers.into_iter().zip(scores) {
                all[number] = score;
            }
            all
        }))
    }
}

impl GroupWork for Scoring<'_> {
    /// One score per residue or one score per variant.
    type Output = Vec<f64>;

    fn saw(&mut self, sequence: &Sequence) {
        self.unseen.remove(&sequence.id);
    }

    fn tokens(&self, sequence: &Sequence) -> usize {
        let length = sequence.residues.len();
        let copies = match self.masking {
            Masking::Single => length,
            Masking::Fraction { fraction, .. } => (1.0 / fraction).ceil() as usize,
        };
        // Exact for copies with one mask; copies with several masks are a little longer.
        copies * (Tokenizer::num_tokens(length) + TOKENS_PER_MASK)
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Vec<f64>>>> {
        if let ScoreTarget::Likelihood { .. } = self.target {
            let proteins: Vec<(&str, &[u8])> = group
                .iter()
                .map(|sequence| (sequence.id.as_str(), sequence.residues.as_slice()))
                .collect();
            return Ok(self.scorer.log_likelihoods(&proteins, self.masking)?);
        }
        group
            .iter()
            .map(|sequence| self.effects(sequence))
            .collect()
    }

    fn settled(&mut self) -> Result<()> {
        self.answers.as_ref().map_or(Ok(()), AnswerJournal::empty)
    }
}
