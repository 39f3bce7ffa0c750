//! The shape of a model, read from Hugging Face's `config.json` of a `T5ForConditionalGeneration`
//! or `T5EncoderModel`.

use serde::{Deserialize, Serialize};

/// The activation of the feed-forward block, from `feed_forward_proj`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedForward {
    /// `wo(relu(wi x))`: T5 v1.0.
    #[serde(rename = "relu")]
    Relu,
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
        self != FeedForward::Relu
    }
}

/// The shape of a T5, with the names of Hugging Face's `T5Config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    #[serde(default)]
    pub num_decoder_layers: Option<usize>,
    /// Attention heads; `num_heads * d_kv` need not equal `d_model`.
    pub num_heads: usize,
    /// Number of buckets of the relative position bias.
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: usize,
    /// The distance beyond which all positions share one bucket.
    #[serde(default = "default_max_distance")]
    pub relative_attention_max_distance: usize,
    /// Epsilon of the RMS norm.
    #[serde(default = "default_epsilon")]
    pub layer_norm_epsilon: f64,
    /// Activation and gating.
    #[serde(default = "default_feed_forward")]
    pub feed_forward_proj: FeedForward,
    /// Whether embeddings are tied by the file; the presence of `lm_head.weight` decides (see
    /// [`Config::scales_logits`]).
    #[serde(default = "default_true")]
    pub tie_word_embeddings: bool,
    /// Explicit value for the scaling of logits by `d_model^-0.5`, written by recent transformers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_decoder_outputs: Option<bool>,
    /// The dropout rate in training.
    #[serde(default = "default_dropout")]
    pub dropout_rate: f64,
    /// The padding token.
    #[serde(default)]
    pub pad_token_id: u32,
    /// The token `</s>`.
    #[serde(default = "default_eos")]
    pub eos_token_id: u32,
    /// The first token of the decoder's input.
    #[serde(default)]
    pub decoder_start_token_id: u32,
}

fn default_buckets() -> usize {
    32
}
fn default_max_distance() -> usize {
    128
}
fn default_epsilon() -> f64 {
    1e-6
}
fn default_feed_forward() -> FeedForward {
    FeedForward::Relu
}
fn default_true() -> bool {
    true
}
fn default_dropout() -> f64 {
    0.1
}
fn default_eos() -> u32 {
    1
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
