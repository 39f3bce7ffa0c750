//! The network: a T5 encoder-decoder (v1.0 and v1.1 shapes), written over packed rows of tokens. Pure: no paths, no flags, no printing.
//!
//! Must equal Hugging Face's `T5ForConditionalGeneration`; `tests/it/golden.rs` checks it against that implementation.
//!
//! Data flows `token_ids → embedding → layers of (norm → attention → add, norm → feed-forward → add) → final norm`; see [`encoder`] and
//! [`decoder`] for the two stacks, [`layers`] for what they share.

pub mod cache;
pub mod config;
pub mod decoder;
pub mod encoder;
pub mod layers;
pub mod mode;
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
pub use source::Source;
pub use weights::{Loader, TensorView, WeightSource};
