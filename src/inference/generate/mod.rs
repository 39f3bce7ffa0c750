//! Generation of sequences by greedy decoding, beam search or sampling. Many sequences are
//! generated at once, each with the same result as alone.
//!
//! - [`Allowed`]: the tokens that may be written, and their log-probabilities.
//! - [`Sampling`]: temperature, top-k and nucleus sampling (top-p), and the random stream of one
//!   sample.
//! - [`Generator`]: continuous batching. Sequences step together; when one ends, the next takes its
//!   memory at once.
//! - [`Generators`]: one generator per device.
//!
//! Greedy decoding and beam search must equal Hugging Face's `generate`; `tests/it/generate.rs`
//! compares with traces of that implementation.
//!
//! **Log-likelihood.** At each position the model's distribution is the softmax of its logits over
//! the tokens that may be written there: the allowed residues, and `</s>` where the sequence may
//! end. `log_likelihood = Σ ln p(residue_i | prompt, residues before)` over the residues written;
//! temperature, top-k and top-p do not enter. `perplexity = exp(-log_likelihood / residues)`.

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

/// The choice of the next token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "strategy")]
pub enum Strategy {
    /// The most probable token; of equals the token with the lowest id.
    Greedy,
    /// A random token.
    Sample(Sampling),
    /// The best sequences of a beam search.
    Beam(BeamSearch),
}

/// The settings of a beam search as in Hugging Face's `generate` with `early_stopping=False`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BeamSearch {
    /// Sequences that are continued at once.
    pub num_beams: usize,
    /// A sequence's score is its log-probability / length^`length_penalty`. The length counts
    /// `</s>`, and the log-probability is over the whole vocabulary, not only over the allowed
    /// tokens.
    pub length_penalty: f64,
}

/// The settings of all sequences of a run.
#[derive(Clone, Debug)]
pub struct GenerationSettings {
    /// The choice of tokens.
    pub strategy: Strategy,
    /// Sequences per prompt; of a beam search the best ones.
    pub num_samples: usize,
    /// The seed. A sample's random stream depends on the seed, the prompt's id and the sample's
    /// number alone.
    pub seed: u64,
    /// The tokens that may be written.
    pub allowed: Allowed,
}

/// The encoder's input, and the length of the sequence to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The id of the sequence, which names the random stream.
    pub id: String,
    /// The encoder's input: prefix, residues, `</s>`.
    pub token_ids: Vec<u32>,
    /// The smallest number of tokens: `</s>` is suppressed before.
    pub min_new: usize,
    /// The largest number of tokens, at least 1; equal to `min_new` for an exact number.
    pub max_new: usize,
}

impl Prompt {
    /// The larger of the numbers of rows that the prompt needs for its encoding and for its tokens.
    fn rows(&self) -> usize {
        self.token_ids.len().max(self.max_new)
    }
}

/// The memory of a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of encoded prompts, and as many positions of sequences being written; each sequence
    /// counts with its largest length. A prompt that needs more runs alone.
    pub rows: usize,
    /// Tokens per batch of the encoder.
    pub batch_tokens: usize,
}

/// The model's logits hold NaN or infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the model's logits hold NaN or infinity")]
pub struct NotFinite;

/// The sequences written for one prompt: `num_samples`, or fewer where a beam search found fewer.
pub type GenerationResult = Result<Vec<GeneratedSequence>, NotFinite>;

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The model wrote `</s>`.
    Eos,
    /// The sequence reached its largest length.
    Length,
}

/// One generated sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedSequence {
    /// The tokens without start token and `</s>`.
    pub token_ids: Vec<u32>,
    /// ln p of each token among the tokens allowed at its position.
    pub log_probs: Vec<f64>,
    /// ln p of `</s>`, where it was written.
    pub end_log_prob: Option<f64>,
    /// Log-probability / length^penalty, in beam search only.
    pub score: Option<f64>,
}

impl GeneratedSequence {
    /// Why the sequence ended.
    pub fn end(&self) -> End {
        match self.end_log_prob {
            Some(_) => End::Eos,
            None => End::Length,
        }
    }

    /// Σ ln p over the tokens without `</s>`.
    pub fn log_likelihood(&self) -> f64 {
        self.log_probs.iter().sum()
    }

    /// exp(-log-likelihood / tokens); 1 for an empty sequence.
    pub fn perplexity(&self) -> f64 {
        if self.log_probs.is_empty() {
            return 1.0;
        }
        (-self.log_likelihood() / self.log_probs.len() as f64).exp()
    }
}
