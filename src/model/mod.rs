//! The network: a T5 encoder-decoder (shapes of v1.0 and v1.1), written over packed rows of tokens.
//! Pure: no paths, no flags, no printing.
//!
//! Must equal Hugging Face's `T5ForConditionalGeneration`; `tests/it/golden.rs` compares the two.
//!
//! Data flows
//! `token_ids → embedding → layers of (norm → attention → add, norm → feed-forward → add) → final norm`.
//! [`encoder`] and [`decoder`] are the two stacks, [`layers`] is what they share, [`names`] names
//! their weights.
//!
//! ```
//! use ankh3::model::Config;
//! use ankh3::model::relative_position::{Direction, relative_position_bucket};
//!
//! let config: Config = serde_json::from_str(
//!     r#"{"vocab_size": 256, "d_model": 192, "d_kv": 32, "d_ff": 512, "num_layers": 4, "num_heads": 6}"#,
//! )?;
//! let bucket = |distance| {
//!     relative_position_bucket(
//!         distance,
//!         Direction::Both,
//!         config.relative_attention_num_buckets,
//!         config.relative_attention_max_distance,
//!     )
//! };
//! // The past has buckets 0 to 15, the future 16 to 31; far distances share the last bucket.
//! assert_eq!([0, -1, 1, -500, 500].map(bucket), [0, 1, 17, 15, 31]);
//! # Ok::<(), serde_json::Error>(())
//! ```

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
pub use config::{Config, ConfigError, FeedForward};
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use mode::Mode;
pub use packed::Packed;
pub use source::DecoderSource;
pub use weights::{Loader, TensorView, WeightSource};
