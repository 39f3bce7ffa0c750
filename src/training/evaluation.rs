//! What a model has learnt, on held-out sequences: for each task the mean loss of a label, and over residues alone (sentinels and `</s>` are easy)
//! perplexity `exp(mean loss)` and the share of residues that are the most likely token. The same examples at every evaluation.

use candle_core::Result;
use serde::Serialize;

use super::batch::Batch;
use super::objective::{Mixture, Objective, TrainingExample, example};
use super::order::{Purpose, stream};
use super::step::Network;
use super::variables::Variables;
use crate::packing::by_token_budget;
use crate::tokenizer::Tokenizer;

/// The seed of held-out examples: the same in every run, so that runs can be compared.
const SEED: u64 = 0x616e_6b68;

/// Figures of one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The task.
    pub task: String,
    /// Mean loss of a label.
    pub loss: f64,
    /// Mean loss of a residue.
    pub residue_loss: f64,
    /// `exp(residue_loss)`.
    pub residue_perplexity: f64,
    /// Share of residues guessed.
    pub residue_accuracy: f64,
    /// Residues judged.
    pub residues: usize,
}

/// The examples of one task, one of each sequence that is long enough.
pub fn examples(
    sequences: &[Vec<u32>],
    task: Objective,
    mixture: &Mixture,
    tokenizer: &Tokenizer,
) -> Vec<TrainingExample> {
    let numbered = sequences.iter().enumerate();
    let long_enough =
        numbered.filter(|(_, tokens)| tokens.len() > usize::from(task == Objective::Completion));
    long_enough
        .map(|(number, tokens)| {
            let mut rng = stream(SEED, 0, Purpose::Sequence(number as u32));
            example(tokens, task, mixture, tokenizer, &mut rng)
        })
        .collect()
}

/// Judges the weights on the examples of one task, in batches of up to `max_tokens`.
///
/// # Errors
/// Where the weights do not fit the network.
pub fn evaluate(
    network: &Network<'_>,
    variables: &Variables,
    examples: &[TrainingExample],
    tokenizer: &Tokenizer,
    max_tokens: usize,
) -> Result<Figures> {
    let lengths: Vec<usize> = examples.iter().map(TrainingExample::tokens).collect();
    let (mut loss, mut labels) = (0.0, 0usize);
    let (mut residue_loss, mut residues, mut right) = (0.0, 0usize, 0usize);
    for range in by_token_budget(&lengths, max_tokens) {
        let batch = Batch::new(&examples[range], network.config);
        let (losses, guesses) = network.evaluate(variables, &batch)?;
        for ((label, value), guess) in batch.labels.iter().zip(losses).zip(guesses) {
            let value = f64::from(value);
            (loss, labels) = (loss + value, labels + 1);
            if tokenizer.residue(*label).is_some() {
                (residue_loss, residues) = (residue_loss + value, residues + 1);
                right += usize::from(guess == *label);
            }
        }
    }
    let mean = residue_loss / residues as f64;
    Ok(Figures {
        task: examples
            .first()
            .map(|example| example.task.to_string())
            .unwrap_or_default(),
        loss: loss / labels as f64,
        residue_loss: mean,
        residue_perplexity: mean.exp(),
        residue_accuracy: right as f64 / residues as f64,
        residues,
    })
}
