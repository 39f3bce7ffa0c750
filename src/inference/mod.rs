//! Results of a model: embeddings, scores, filled masks, completions, contact maps.
//!
//! ```
//! use ankh3::inference::pooling::Pooling;
//!
//! // Two residues with three values each.
//! let rows = [1.0, 2.0, 3.0, 3.0, 2.0, 1.0];
//! assert_eq!(Pooling::Mean.apply(&rows, 3), [2.0, 2.0, 2.0]);
//! assert_eq!(Pooling::Max.apply(&rows, 3), [3.0, 2.0, 3.0]);
//! ```

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
