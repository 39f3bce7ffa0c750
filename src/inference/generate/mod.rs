//! Writing sequences: greedy, beam search, sampling; many at once, each as if it were alone.
//!
//! - [`Allowed`]: which tokens may be written, and their log-probabilities.
//! - [`Sampling`]: temperature, top-k, top-p, and the random stream of one sample.
//! - [`Generator`]: continuous batching. Sequences step together; one that ends makes room for the next one at once. [`Generators`]: one a device.
//!
//! Greedy and beam search must equal Hugging Face's `generate` (`tests/it/generate.rs` checks it against traces of that implementation).
//!
//! **Log-likelihood.** At each position the model's distribution is the softmax of its logits over the tokens that may be written there: the allowed
//! residues, and `</s>` where the sequence may end. `log_likelihood = Σ ln p(residue_i | prompt, residues before)` over the residues written; temperature,
//! top-k and top-p do not enter. `perplexity = exp(-log_likelihood / residues)`.

mod allowed;
mod beam;
mod generator;
mod generators;
mod job;
mod room;
mod sampling;
mod single;

use serde::Serialize;
use thiserror::Error;

pub use allowed::Allowed;
pub use generator::Generator;
pub use generators::Generators;
pub use sampling::{RandomStream, Sampling};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "strategy")]
pub enum Strategy {
    /// The most probable one; of equals the one with the lowest id.
    Greedy,
    /// Drawn at random.
    Sample(Sampling),
    /// The best sequences of several that are followed at once.
    Beam(BeamSearch),
}

/// Beam search as Hugging Face's `generate` does it with `early_stopping=False`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BeamSearch {
    /// Sequences followed at once.
    pub num_beams: usize,
    /// A sequence's score is its log-probability / length^`length_penalty`; the length counts `</s>`, and the log-probability is over the whole
    /// vocabulary, not only over the tokens allowed.
    pub length_penalty: f64,
}

/// What is the same for all sequences of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How tokens are chosen.
    pub strategy: Strategy,
    /// Sequences written for each prompt; with beams the best ones.
    pub num_samples: usize,
    /// With the prompt's id and the sample's number it makes the sample's random stream, whatever else is computed with it.
    pub seed: u64,
    /// What may be written.
    pub allowed: Allowed,
}

/// What the encoder reads, and how much is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Names the random stream.
    pub id: String,
    /// The encoder's input: prefix, residues, `</s>`.
    pub token_ids: Vec<u32>,
    /// `</s>` is suppressed until so many tokens are there.
    pub min_new: usize,
    /// So many tokens at most, at least one (`</s>` not needed then); equal to `min_new` for an exact number.
    pub max_new: usize,
}

impl Prompt {
    /// Rows of memory that it needs of one kind or the other.
    fn rows(&self) -> usize {
        self.token_ids.len().max(self.max_new)
    }
}

/// What a generator may keep at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of encoded prompts, and as many positions of sequences being written (each counts with the most it may get). Where one prompt alone needs
    /// more, it gets it, alone.
    pub rows: usize,
    /// Tokens that the encoder reads at once.
    pub batch_tokens: usize,
}

/// The model's logits hold NaN or infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the model's logits hold NaN or infinity")]
pub struct NotFinite;

/// What was written for one prompt: `num_samples` sequences (of beams fewer where there are no more), or why nothing could be.
pub type Outcome = Result<Vec<Completion>, NotFinite>;

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The model wrote `</s>`.
    Eos,
    /// It had as many tokens as it may have.
    Length,
}

/// One sequence written.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Without start token and `</s>`.
    pub token_ids: Vec<u32>,
    /// ln p of each of them among the tokens allowed at its place.
    pub log_probs: Vec<f64>,
    /// ln p of `</s>`, where it was written.
    pub end_log_prob: Option<f64>,
    /// Log-probability / length^penalty, of beam search.
    pub score: Option<f64>,
}

impl Completion {
    /// Why it ended.
    pub fn end(&self) -> End {
        match self.end_log_prob {
            Some(_) => End::Eos,
            None => End::Length,
        }
    }

    /// Σ ln p over the tokens, `</s>` not counted.
    pub fn log_likelihood(&self) -> f64 {
        self.log_probs.iter().sum()
    }

    /// exp(-log-likelihood / tokens); 1 of an empty sequence.
    pub fn perplexity(&self) -> f64 {
        if self.log_probs.is_empty() {
            return 1.0;
        }
        (-self.log_likelihood() / self.log_probs.len() as f64).exp()
    }
}
