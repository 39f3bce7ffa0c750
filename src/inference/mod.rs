//! Results of a model: embeddings, scores, filled masks, completions, contact maps.

pub mod contacts;
pub mod embedder;
pub mod fill;
pub mod generate;
pub mod masked;
pub mod pooling;
mod recent;
pub mod residues;
pub mod score;
pub mod token_budget;
mod workers;

pub use workers::{EncoderDecoder, Replicas, tokens_of_threads};
