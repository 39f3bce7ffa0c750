//! The shape of a model, read from Hugging Face's `config.json` of a `T5ForConditionalGeneration`
//! or `T5EncoderModel`.
//!
//! Every number is checked where a [`Config`] is read, before anything uses it as a size. A field
//! that is `null` counts as absent, because Python writes `null` for None.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::kernels::cpu::attention::MAX_HEAD;
use crate::kernels::plan::Activation;

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
pub enum ConfigError {
    /// A field that has no default.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field of another type.
    #[error("`{name}` is {found}, not {expected}")]
    WrongType {
        /// The field.
        name: &'static str,
        /// The beginning of the value.
        found: String,
        /// What the field holds.
        expected: &'static str,
    },
    /// A number outside of what a model can have.
    #[error("`{name}` is {value}; it must be from {least} to {most}")]
    OutOfRange {
        /// The field.
        name: &'static str,
        /// The value.
        value: usize,
        /// The smallest value.
        least: usize,
        /// The largest value.
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
        /// Number of buckets.
        buckets: usize,
        /// The largest distance with a bucket of its own.
        distance: usize,
    },
    /// A token that the embedding table has no row for.
    #[error("`{name}` is {id}, but the vocabulary has {vocab_size} ids")]
    TokenId {
        /// The field.
        name: &'static str,
        /// The id.
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

/// A field without a default is an error where it is absent.
impl TryFrom<Map<String, Value>> for Config {
    type Error = ConfigError;

    fn try_from(raw: Map<String, Value>) -> Result<Self, ConfigError> {
        let fields = Fields(&raw);
        let required = |name| fields.whole(name)?.ok_or(ConfigError::Missing(name));
        let token = |name, default| {
            let id = fields.whole(name)?.unwrap_or(default);
            u32::try_from(id).map_err(|_| ConfigError::wrong_type(name, &id.into(), "a token id"))
        };
        let config = Config {
            vocab_size: required("vocab_size")?,
            d_model: required("d_model")?,
            d_kv: required("d_kv")?,
            d_ff: required("d_ff")?,
            num_layers: required("num_layers")?,
            num_decoder_layers: fields.whole("num_decoder_layers")?,
            num_heads: required("num_heads")?,
            relative_attention_num_buckets: fields
                .whole("relative_attention_num_buckets")?
                .unwrap_or(32),
            relative_attention_max_distance: fields
                .whole("relative_attention_max_distance")?
                .unwrap_or(128),
            layer_norm_epsilon: fields.number("layer_norm_epsilon")?.unwrap_or(1e-6),
            feed_forward_proj: fields.feed_forward()?,
            tie_word_embeddings: fields.truth("tie_word_embeddings")?.unwrap_or(true),
            scale_decoder_outputs: fields.truth("scale_decoder_outputs")?,
            dropout_rate: fields.number("dropout_rate")?.unwrap_or(0.1),
            pad_token_id: token("pad_token_id", 0)?,
            eos_token_id: token("eos_token_id", 1)?,
            decoder_start_token_id: token("decoder_start_token_id", 0)?,
        };
        config.check()?;
        Ok(config)
    }
}

impl ConfigError {
    fn wrong_type(name: &'static str, found: &Value, expected: &'static str) -> Self {
        ConfigError::WrongType {
            name,
            found: beginning(&found.to_string()),
            expected,
        }
    }
}

/// The fields of a config.json.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(found) => Ok(Some(found)),
                None => Err(ConfigError::wrong_type(name, value, expected)),
            },
        }
    }

    fn whole(&self, name: &'static str) -> Result<Option<usize>, ConfigError> {
        let read = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.get(name, "a whole number from 0", read)
    }

    fn number(&self, name: &'static str) -> Result<Option<f64>, ConfigError> {
        self.get(name, "a number", Value::as_f64)
    }

    fn truth(&self, name: &'static str) -> Result<Option<bool>, ConfigError> {
        self.get(name, "true or false", Value::as_bool)
    }

    fn text(&self, name: &'static str) -> Result<Option<&'a str>, ConfigError> {
        self.get(name, "a text", Value::as_str)
    }

    /// The rules of `T5Config`: `feed_forward_proj` is `ACTIVATION` or `gated-ACTIVATION`, where
    /// the gated `gelu` is `gelu_new`; the other two fields, where they are given, win.
    fn feed_forward(&self) -> Result<FeedForward, ConfigError> {
        let named = self.text("feed_forward_proj")?.unwrap_or("relu");
        let (is_gated, activation) = match named.strip_prefix("gated-") {
            Some("gelu") => (true, "gelu_new"),
            Some(activation) => (true, activation),
            None => (false, named),
        };
        let is_gated = self.truth("is_gated_act")?.unwrap_or(is_gated);
        let (name, found, activation) = match self.text("dense_act_fn")? {
            Some(activation) => ("dense_act_fn", activation, activation),
            None => ("feed_forward_proj", named, activation),
        };
        let unknown = || ConfigError::Activation {
            name,
            found: beginning(found),
        };
        let activation = activation_called(activation).ok_or_else(unknown)?;
        Ok(FeedForward::new(activation, is_gated))
    }
}

/// An activation by its name in `ACT2FN` of transformers. `gelu` is not `gelu_new`: it is exact.
fn activation_called(name: &str) -> Option<Activation> {
    match name {
        "relu" => Some(Activation::Relu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Some(Activation::GeluNew),
        "silu" | "swish" => Some(Activation::Silu),
        _ => None,
    }
}

/// The beginning of a text of the file, for a message.
fn beginning(text: &str) -> String {
    let beginning = text.chars().take(40);
    beginning.flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A config.json with one field changed; `null` stands for None.
    fn with(changes: &[(&str, Value)]) -> Result<Config, String> {
        let mut raw = json!({
            "vocab_size": 256, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2,
            "num_decoder_layers": 1, "num_heads": 2, "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 32, "layer_norm_epsilon": 1e-6,
            "feed_forward_proj": "gated-silu", "tie_word_embeddings": false,
            "dropout_rate": 0.0, "pad_token_id": 0, "eos_token_id": 1,
            "decoder_start_token_id": 0, "torch_dtype": "float32",
        });
        for (name, value) in changes {
            raw[*name] = value.clone();
        }
        serde_json::from_value(raw).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn null_is_absent() {
        let config = with(&[
            ("eos_token_id", Value::Null),
            ("decoder_start_token_id", Value::Null),
            ("num_decoder_layers", Value::Null),
            ("feed_forward_proj", Value::Null),
            ("layer_norm_epsilon", Value::Null),
            ("tie_word_embeddings", Value::Null),
            ("dense_act_fn", Value::Null),
        ])
        .unwrap();
        assert_eq!((config.eos_token_id, config.decoder_start_token_id), (1, 0));
        assert_eq!(
            (config.decoder_layers(), config.layer_norm_epsilon),
            (2, 1e-6)
        );
        assert_eq!(config.feed_forward_proj, FeedForward::Relu);
        assert!(config.tie_word_embeddings);
        assert_eq!(
            with(&[("d_kv", Value::Null)]).unwrap_err(),
            "`d_kv` is missing"
        );
    }

    /// The name, `dense_act_fn` and `is_gated_act`, and the block of `T5Config` and `T5LayerFF`.
    #[test]
    fn the_named_activation_wins() {
        let table = [
            (
                json!("gated-silu"),
                Value::Null,
                Value::Null,
                FeedForward::GatedSilu,
            ),
            (
                json!("gated-gelu"),
                Value::Null,
                Value::Null,
                FeedForward::GatedGelu,
            ),
            (
                json!("gated-swish"),
                Value::Null,
                Value::Null,
                FeedForward::GatedSilu,
            ),
            (
                json!("gated-relu"),
                Value::Null,
                Value::Null,
                FeedForward::GatedRelu,
            ),
            (
                json!("gelu_new"),
                Value::Null,
                Value::Null,
                FeedForward::GeluNew,
            ),
            (
                json!("gated-silu"),
                json!("relu"),
                Value::Null,
                FeedForward::GatedRelu,
            ),
            (
                json!("gated-gelu"),
                json!("silu"),
                json!(true),
                FeedForward::GatedSilu,
            ),
            (
                json!("gated-gelu"),
                json!("gelu_fast"),
                Value::Null,
                FeedForward::GatedGelu,
            ),
            (
                json!("relu"),
                json!("silu"),
                json!(false),
                FeedForward::Silu,
            ),
            (
                json!("relu"),
                json!("gelu_new"),
                json!(true),
                FeedForward::GatedGelu,
            ),
            (
                json!("gated-silu"),
                Value::Null,
                json!(false),
                FeedForward::Silu,
            ),
        ];
        for (name, activation, gated, expected) in table {
            let config = with(&[
                ("feed_forward_proj", name.clone()),
                ("dense_act_fn", activation.clone()),
                ("is_gated_act", gated),
            ]);
            let found = config.unwrap().feed_forward_proj;
            assert_eq!(found, expected, "{name} {activation}");
            let own = with(&[("feed_forward_proj", serde_json::to_value(found).unwrap())]);
            assert_eq!(
                own.unwrap().feed_forward_proj,
                expected,
                "what is written is read"
            );
        }
        for (field, value) in [
            ("feed_forward_proj", "gelu"),
            ("feed_forward_proj", "gated-gated-relu"),
            ("feed_forward_proj", "glu-relu"),
            ("feed_forward_proj", ""),
            ("dense_act_fn", "gelu"),
            ("dense_act_fn", "tanh"),
        ] {
            let error = with(&[(field, json!(value))]).unwrap_err();
            assert!(
                error.contains(field) && error.contains("gated-silu"),
                "{error}"
            );
        }
    }

    /// The pairs that transformers 5.24 runs at every length, and pairs that it does not run
    /// (`ZeroDivisionError` or `IndexError`, some at long lengths only).
    #[test]
    fn buckets_are_those_that_transformers_runs() {
        let with = |buckets: usize, distance: usize| {
            with(&[
                ("relative_attention_num_buckets", json!(buckets)),
                ("relative_attention_max_distance", json!(distance)),
            ])
        };
        for (buckets, distance) in [
            (4, 128),
            (5, 128),
            (8, 5),
            (64, 33),
            (32, 128),
            (7, 10),
            (9, 5),
            (4, 3),
        ] {
            assert!(with(buckets, distance).is_ok(), "{buckets} {distance}");
        }
        for (buckets, distance) in [
            (64, 20),
            (8, 3),
            (2, 128),
            (3, 128),
            (1, 128),
            (8, 4),
            (64, 32),
            (64, 16),
            (64, 17),
            (4, 2),
            (0, 0),
        ] {
            let error = with(buckets, distance).unwrap_err();
            assert!(error.contains("relative_attention_num_buckets"), "{error}");
        }
    }

    #[test]
    fn absurd_numbers_are_errors_that_name_the_field() {
        let numbers = [
            "vocab_size",
            "d_model",
            "d_kv",
            "d_ff",
            "num_layers",
            "num_decoder_layers",
            "num_heads",
            "relative_attention_num_buckets",
            "relative_attention_max_distance",
        ];
        let absurd = [
            json!(1_u64 << 40),
            json!(1_u64 << 63),
            json!(u64::MAX),
            json!(1e300),
            json!(-1),
            json!(1.5),
            json!("x"),
            json!([1]),
            json!(true),
        ];
        for name in numbers {
            for value in &absurd {
                let error = with(&[(name, value.clone())]).unwrap_err();
                assert!(error.contains(name), "{name} {value}: {error}");
            }
            // Small and large sizes either fit or are named; nothing overflows.
            for value in [0_u64, 1, 257, 1 << 20] {
                match with(&[(name, json!(value))]) {
                    Ok(config) => assert!(config.inner_dim() > 0),
                    Err(error) => assert!(error.contains('`'), "{name} {value}: {error}"),
                }
            }
        }
        for (name, value) in [
            ("d_model", json!(0)),
            ("num_layers", json!(1 << 20)),
            ("d_kv", json!(257)),
            ("layer_norm_epsilon", json!(-1)),
            ("layer_norm_epsilon", json!("1e-6")),
            ("dropout_rate", json!(1)),
            ("eos_token_id", json!(256)),
            ("pad_token_id", json!(1_u64 << 32)),
            ("decoder_start_token_id", json!([0])),
            ("tie_word_embeddings", json!(1)),
            ("feed_forward_proj", json!(3)),
        ] {
            let error = with(&[(name, value.clone())]).unwrap_err();
            assert!(error.contains(name), "{name} {value}: {error}");
        }
    }
}
