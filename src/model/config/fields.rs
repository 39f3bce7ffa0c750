//! From the fields of config.json to a [`Config`]. Messages name the field.

use serde_json::{Map, Value};

use super::{Config, ConfigError, FeedForward};
use crate::kernels::plan::Activation;
use crate::shown::shown;

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
            found: shown(found).to_string(),
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
