//! Random checkpoints, for the start of training, for tests and for benchmarks.
//!
//! T5's initialisation as in `T5PreTrainedModel._init_weights` of Hugging Face
//! (`initializer_factor` 1), except for `lm_head`: normal with mean 0 and
//!
//! | tensor | standard deviation |
//! |---|---|
//! | embedding table | 1 |
//! | `lm_head` | d_model^-½ (1 in Hugging Face, with a first loss above 20 instead of near ln `vocab_size`) |
//! | `q` | (`d_model` · d_kv)^-½ |
//! | `k`, `v`, `wi`, `wi_0`, `wi_1`, `relative_attention_bias` | d_model^-½ |
//! | `o` | (`num_heads` · d_kv)^-½ |
//! | `wo` | d_ff^-½ |
//! | norms | all ones |
//!
//! Each tensor has its own `ChaCha` key, hashed from the seed and the tensor's name, and each block
//! of a tensor its own stream: no value depends on the order of the work, the number of threads or
//! the stored type.

use std::borrow::Cow;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use super::CheckpointError;
use super::layout::{self, LmHead, TensorSpec};
use super::save::{Contents, LazyTensor, save};
use crate::model::Config;
use crate::model::config::FeedForward;
use crate::number::NumberType;
use crate::tokenizer::Tokenizer;

/// The key of config.json that marks random weights.
pub const RANDOM_LABEL: &str = "ankh3_random";

/// Values per random stream.
const BLOCK: usize = 1 << 16;

/// A named shape of Ankh3's architecture: gated `SiLU`, 64 buckets, 256 ids, an untied output
/// projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum ModelPreset {
    /// 3.05 million parameters, the shape of ankh3-nano, for tests and first trials
    Nano,
    /// 61 million parameters, trainable on one small GPU
    Small,
    /// The shape of Ankh-base with Ankh3's vocabulary, 737 million parameters
    Base,
    /// The shape of Ankh3-Large, 1.9 billion parameters
    Large,
    /// The shape of Ankh3-XL, 5.7 billion parameters
    Xl,
}

impl ModelPreset {
    /// The network's shape.
    pub fn config(self) -> Config {
        match self {
            ModelPreset::Nano => Config {
                d_kv: 32,
                ..shape(192, 512, 6, 4, 2)
            },
            ModelPreset::Small => shape(512, 1280, 8, 12, 6),
            ModelPreset::Base => shape(768, 3072, 12, 48, 24),
            ModelPreset::Large => shape(1536, 3840, 16, 48, 24),
            ModelPreset::Xl => shape(2560, 6720, 32, 48, 24),
        }
    }
}

fn shape(d_model: usize, d_ff: usize, num_heads: usize, encoder: usize, decoder: usize) -> Config {
    Config {
        vocab_size: 256,
        d_model,
        d_kv: 64,
        d_ff,
        num_layers: encoder,
        num_decoder_layers: Some(decoder),
        num_heads,
        relative_attention_num_buckets: 64,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: FeedForward::GatedSilu,
        tie_word_embeddings: false,
        scale_decoder_outputs: None,
        dropout_rate: 0.1,
        pad_token_id: 0,
        eos_token_id: 1,
        decoder_start_token_id: 0,
    }
}

/// Writes a random checkpoint with the tokenizer of [`Tokenizer::ankh3`]. Only one tensor at a time
/// is in memory.
pub fn init(
    dir: &Path,
    preset: ModelPreset,
    seed: u64,
    dtype: NumberType,
) -> Result<(), CheckpointError> {
    let config = preset.config();
    let specs = layout::tensors(&config, LmHead::Own);
    let tensors = specs
        .into_iter()
        .map(|spec| lazy(spec, &config, seed, dtype))
        .collect();
    let labels = Map::from_iter([(RANDOM_LABEL.to_string(), json!({ "seed": seed }))]);
    let contents = Contents {
        config: &config,
        labels,
        tokenizer: &Tokenizer::ankh3(),
        tensors,
    };
    save(dir, contents)
}

fn lazy(spec: TensorSpec, config: &Config, seed: u64, dtype: NumberType) -> LazyTensor<'_> {
    LazyTensor {
        name: spec.name.clone(),
        dtype,
        shape: spec.shape.clone(),
        bytes: Box::new(move || Cow::Owned(dtype.to_bytes(&values(&spec, config, seed)))),
    }
}

/// The initial values of one tensor, row-major.
pub fn values(spec: &TensorSpec, config: &Config, seed: u64) -> Vec<f32> {
    let count = spec.shape.iter().product();
    let Some(deviation) = standard_deviation(&spec.name, config) else {
        return vec![1.0; count];
    };
    let key = key(seed, &spec.name);
    let mut values = vec![0.0_f32; count];
    values
        .par_chunks_mut(BLOCK)
        .enumerate()
        .for_each(|(block, chunk)| {
            let mut stream = ChaCha8Rng::from_seed(key);
            stream.set_stream(block as u64);
            for value in chunk {
                let normal: f64 = StandardNormal.sample(&mut stream);
                *value = (normal * deviation) as f32;
            }
        });
    values
}

/// `None` for norms, which start as ones.
fn standard_deviation(name: &str, config: &Config) -> Option<f64> {
    let inverse_root = |n: usize| Some((n as f64).powf(-0.5));
    let module = name.strip_suffix(".weight")?.rsplit('.').next()?;
    match module {
        "shared" => Some(1.0),
        "q" => inverse_root(config.d_model * config.d_kv),
        "k" | "v" | "wi" | "wi_0" | "wi_1" | "relative_attention_bias" | "lm_head" => {
            inverse_root(config.d_model)
        }
        "o" => inverse_root(config.inner_dim()),
        "wo" => inverse_root(config.d_ff),
        _ => None,
    }
}

fn key(seed: u64, name: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(name);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_deviation_of_their_kind() {
        let config = shape(256, 640, 4, 6, 3);
        for spec in layout::tensors(&config, LmHead::Own) {
            let values = values(&spec, &config, 1);
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
            let squares = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            let deviation = (squares / values.len() as f64 - mean * mean).sqrt();
            let expected = match spec.name.rsplit('.').nth(1).unwrap() {
                "layer_norm" | "final_layer_norm" => {
                    assert!(values.iter().all(|v| *v == 1.0), "{}", spec.name);
                    continue;
                }
                "shared" => 1.0,
                "q" => (256.0_f64 * 64.0).powf(-0.5),
                "wo" => 640.0_f64.powf(-0.5),
                // d_model and num_heads * d_kv are both 256 here.
                _ => 256.0_f64.powf(-0.5),
            };
            let slack = 6.0 / (values.len() as f64).sqrt();
            assert!(
                (deviation / expected - 1.0).abs() < slack,
                "{}: {deviation}",
                spec.name
            );
            assert!(
                (mean / expected).abs() < slack,
                "{}: mean {mean}",
                spec.name
            );
        }
    }

    #[test]
    fn values_depend_on_seed_and_name_alone() {
        let config = shape(256, 640, 4, 6, 3);
        let specs = layout::tensors(&config, LmHead::Own);
        let [a, b] = [&specs[1], &specs[2]];
        assert_eq!(values(a, &config, 7), values(a, &config, 7));
        assert_ne!(values(a, &config, 7), values(a, &config, 8));
        assert_ne!(values(a, &config, 7), values(b, &config, 7));
        // Another version of this crate must make the same checkpoint.
        let first = values(a, &config, 7)[0];
        assert_eq!(first.to_bits(), PINNED_FIRST_VALUE, "{first}");
    }

    const PINNED_FIRST_VALUE: u32 = 3_137_115_311;

    #[test]
    fn no_two_blocks_repeat() {
        let config = shape(256, 640, 4, 6, 3);
        let spec = &layout::tensors(&config, LmHead::Own)[0];
        let long = TensorSpec {
            name: spec.name.clone(),
            shape: vec![BLOCK * 2],
        };
        let values = values(&long, &config, 0);
        assert_ne!(values[..BLOCK], values[BLOCK..]);
    }
}
