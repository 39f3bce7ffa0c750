//! The quality of a model on held-out sequences, for each objective: the mean loss per label; and
//! over residues alone, because sentinels and `</s>` are easy, the perplexity `exp(mean loss)` and
//! the share of residues that the model predicts as the most likely token. Every evaluation uses
//! the same examples.

use candle_core::Result;
use serde::Serialize;

use super::batch::Batch;
use super::mixture::{Mixture, Objective};
use super::network::Network;
use super::objective::{TrainingExample, example};
use super::order::{Purpose, stream};
use super::variables::Variables;
use crate::packing::by_token_budget;
use crate::tokenizer::Tokenizer;

/// The seed of held-out examples: the same in every run, so that runs can be compared.
const SEED: u64 = 0x616e_6b68;

/// The results of one objective.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The objective in words.
    pub task: String,
    /// Mean loss per label.
    pub loss: f64,
    /// Mean loss per residue.
    pub residue_loss: f64,
    /// `exp(residue_loss)`.
    pub residue_perplexity: f64,
    /// Share of residues that are predicted correctly.
    pub residue_accuracy: f64,
    /// Number of evaluated residues.
    pub residues: usize,
}

/// The examples of one objective, one per sequence that is long enough.
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

/// Evaluates the weights on the examples of one objective, in batches of up to `max_tokens` tokens.
///
/// # Errors
/// Weights that do not fit the network.
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
