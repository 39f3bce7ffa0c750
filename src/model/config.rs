//! The shape of a model, read from Hugging Face's `config.json` of a `T5ForConditionalGeneration`
//! or `T5EncoderModel`.
//!
//! Every number is checked where a [`Config`] is read, before anything uses it as a size. A field
//! that is `null` counts as absent, because Python writes `null` for None.

mod fields;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::kernels::cpu::attention::MAX_HEAD;
use crate::kernels::plan::Activation;
use crate::shown::shown;

/// The feed-forward block, from `feed_forward_proj`. As in `T5Config`, `dense_act_fn` and
/// `is_gated_act` of the file win over what that name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum FeedForward {
    /// `wo(relu(wi x))`: T5 v1.0.
    #[serde(rename = "relu")]
    Relu,
    /// `wo(gelu_new(wi x))`.
    #[serde(rename = "gelu_new")]
    GeluNew,
    /// `wo(silu(wi x))`.
    #[serde(rename = "silu")]
    Silu,
    /// `wo(relu(wi_0 x) * wi_1 x)`.
    #[serde(rename = "gated-relu")]
    GatedRelu,
    /// `wo(gelu_new(wi_0 x) * wi_1 x)`, tanh approximation: T5 v1.1, Ankh v1.
    #[serde(rename = "gated-gelu")]
    GatedGelu,
    /// `wo(silu(wi_0 x) * wi_1 x)`: Ankh v2 and Ankh3.
    #[serde(rename = "gated-silu")]
    GatedSilu,
}

impl FeedForward {
    /// True for blocks with `wi_0` and `wi_1` instead of one `wi`.
    pub fn is_gated(self) -> bool {
        match self {
            FeedForward::Relu | FeedForward::GeluNew | FeedForward::Silu => false,
            FeedForward::GatedRelu | FeedForward::GatedGelu | FeedForward::GatedSilu => true,
        }
    }

    /// The activation behind `wi`, or behind the gate `wi_0`.
    pub fn activation(self) -> Activation {
        match self {
            FeedForward::Relu | FeedForward::GatedRelu => Activation::Relu,
            FeedForward::GeluNew | FeedForward::GatedGelu => Activation::GeluNew,
            FeedForward::Silu | FeedForward::GatedSilu => Activation::Silu,
        }
    }

    fn new(activation: Activation, is_gated: bool) -> Self {
        match (activation, is_gated) {
            (Activation::Relu, false) => FeedForward::Relu,
            (Activation::GeluNew, false) => FeedForward::GeluNew,
            (Activation::Silu, false) => FeedForward::Silu,
            (Activation::Relu, true) => FeedForward::GatedRelu,
            (Activation::GeluNew, true) => FeedForward::GatedGelu,
            (Activation::Silu, true) => FeedForward::GatedSilu,
        }
    }
}

/// Why a model of this shape cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum ConfigError {
    /// A field that has no default.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field of another type.
    #[error("`{name}` is {found}, not {expected}")]
    WrongType {
        name: &'static str,
        /// The beginning of the value.
        found: String,
        /// What the field holds.
        expected: &'static str,
    },
    /// A number outside of what a model can have.
    #[error("`{name}` is {value}; it must be from {least} to {most}")]
    OutOfRange {
        name: &'static str,
        value: usize,
        least: usize,
        most: usize,
    },
    /// A feed-forward block that this program does not have.
    #[error(
        "`{name}` is `{found}`; the feed-forward blocks that can be run are relu, gelu_new, silu, gated-relu, gated-gelu and gated-silu"
    )]
    Activation {
        /// The field: `feed_forward_proj` or `dense_act_fn`.
        name: &'static str,
        /// The beginning of its value.
        found: String,
    },
    /// Buckets that relative positions cannot be divided into; transformers cannot run them either.
    #[error(
        "`relative_attention_num_buckets` is {buckets} and `relative_attention_max_distance` is {distance}; the distance must be more than half of the buckets"
    )]
    Buckets {
        buckets: usize,
        /// The largest distance with a bucket of its own.
        distance: usize,
    },
    /// A token that the embedding table has no row for.
    #[error("`{name}` is {id}, but the vocabulary has {vocab_size} ids")]
    TokenId {
        name: &'static str,
        id: u32,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
}

/// The shape of a T5, with the names of Hugging Face's `T5Config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Config {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of one attention head.
    pub d_kv: usize,
    /// Width inside the feed-forward block.
    pub d_ff: usize,
    /// Encoder layers.
    pub num_layers: usize,
    /// Decoder layers; `None` for as many as encoder layers.
    pub num_decoder_layers: Option<usize>,
    /// Attention heads; `num_heads * d_kv` need not equal `d_model`.
    pub num_heads: usize,
    /// Number of buckets of the relative position bias.
    pub relative_attention_num_buckets: usize,
    /// The distance beyond which all positions share one bucket.
    pub relative_attention_max_distance: usize,
    /// Epsilon of the RMS norm.
    pub layer_norm_epsilon: f64,
    /// Activation and gating.
    pub feed_forward_proj: FeedForward,
    /// Whether the file says that the output projection is the embedding table. A checkpoint with
    /// an `lm_head.weight` of its own uses that one nevertheless (see [`Config::scales_logits`]);
    /// a checkpoint that has none and is not tied has no output projection.
    pub tie_word_embeddings: bool,
    /// Explicit value for the scaling of logits by `d_model^-0.5`, written by recent transformers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_decoder_outputs: Option<bool>,
    /// The dropout rate in training.
    pub dropout_rate: f64,
    /// The padding token.
    pub pad_token_id: u32,
    /// The token `</s>`.
    pub eos_token_id: u32,
    /// The first token of the decoder's input.
    pub decoder_start_token_id: u32,
}

impl Config {
    /// `num_heads * d_kv`: the width of queries, keys and values.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// The number of decoder layers.
    pub fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Whether the decoder's output is scaled by `d_model^-0.5` before `lm_head`: by
    /// `scale_decoder_outputs`, else only where the checkpoint has no `lm_head.weight`, that is,
    /// where embeddings are tied.
    pub fn scales_logits(&self, has_lm_head: bool) -> bool {
        self.scale_decoder_outputs.unwrap_or(!has_lm_head)
    }
}

impl Config {
    /// Checks every number, so that products of sizes cannot overflow and no size is absurd. The
    /// largest T5 has a `d_model` of 4096, a `d_ff` of 65,536, 128 heads and 250,112 ids.
    ///
    /// # Errors
    /// The first number that no model can have.
    pub fn check(&self) -> Result<(), ConfigError> {
        let sizes: [(_, _, RangeInclusive<usize>); 9] = [
            ("vocab_size", self.vocab_size, 1..=1 << 20),
            ("d_model", self.d_model, 1..=1 << 16),
            ("d_kv", self.d_kv, 1..=MAX_HEAD),
            ("d_ff", self.d_ff, 1..=1 << 18),
            ("num_layers", self.num_layers, 1..=512),
            ("num_decoder_layers", self.decoder_layers(), 0..=512),
            ("num_heads", self.num_heads, 1..=512),
            (
                "relative_attention_num_buckets",
                self.relative_attention_num_buckets,
                4..=1 << 12,
            ),
            (
                "relative_attention_max_distance",
                self.relative_attention_max_distance,
                1..=1 << 14,
            ),
        ];
        for (name, value, range) in sizes {
            if !range.contains(&value) {
                let (least, most) = range.into_inner();
                return Err(ConfigError::OutOfRange {
                    name,
                    value,
                    least,
                    most,
                });
            }
        }
        self.check_buckets()?;
        self.check_token_ids()?;
        let fraction = |name, value: f64, below| {
            let error = || ConfigError::wrong_type(name, &value.into(), below);
            (0.0..1.0).contains(&value).then_some(()).ok_or_else(error)
        };
        let fit = "a number from 0 to below 1";
        fraction("layer_norm_epsilon", self.layer_norm_epsilon, fit)?;
        fraction("dropout_rate", self.dropout_rate, fit)
    }

    /// The decoder has `buckets / 2` exact distances, the encoder half as many. A logarithm from
    /// there to the largest distance must exist and not be 0: see `_relative_position_bucket`.
    fn check_buckets(&self) -> Result<(), ConfigError> {
        let buckets = self.relative_attention_num_buckets;
        let distance = self.relative_attention_max_distance;
        if distance > buckets / 2 {
            return Ok(());
        }
        Err(ConfigError::Buckets { buckets, distance })
    }

    fn check_token_ids(&self) -> Result<(), ConfigError> {
        let ids = [
            ("pad_token_id", self.pad_token_id),
            ("eos_token_id", self.eos_token_id),
            ("decoder_start_token_id", self.decoder_start_token_id),
        ];
        let vocab_size = self.vocab_size;
        match ids.into_iter().find(|(_, id)| *id as usize >= vocab_size) {
            Some((name, id)) => Err(ConfigError::TokenId {
                name,
                id,
                vocab_size,
            }),
            None => Ok(()),
        }
    }
}

impl ConfigError {
    fn wrong_type(name: &'static str, found: &Value, expected: &'static str) -> Self {
        ConfigError::WrongType {
            name,
            found: shown(&found.to_string()).to_string(),
            expected,
        }
    }
}
