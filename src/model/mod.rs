//! The network: a T5 encoder-decoder (shapes of v1.0 and v1.1), written over packed rows of tokens.
//! Pure: no paths, no flags, no printing.
//!
//! Must equal Hugging Face's `T5ForConditionalGeneration`; `tests/it/golden.rs` compares the two.
//!
//! Data flows
//! `token_ids → embedding → layers of (norm → attention → add, norm → feed-forward → add) → final norm`.
//! [`encoder`] and [`decoder`] are the two stacks, [`layers`] is what they share, [`names`] names
//! their weights.

pub mod cache;
pub mod config;
pub mod decoder;
pub mod encoder;
pub mod layers;
pub mod mode;
pub mod names;
pub mod packed;
pub mod relative_position;
pub mod rows;
pub mod source;
pub mod weights;

pub use cache::DecoderCache;
pub use config::{Config, FeedForward};
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use mode::Mode;
pub use packed::Packed;
pub use source::DecoderSource;
pub use weights::{Loader, TensorView, WeightSource};
