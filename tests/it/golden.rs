//! The network against Hugging Face transformers: `tests/golden/` holds tiny checkpoints and what
//! that implementation computes with them (in float64, rounded once). f32 must agree within 2e-5 of
//! the largest magnitude; bf16 within cosine 0.9999 per residue.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ankh3::kernels::cpu::Isa;
use ankh3::kernels::plan::WeightForm;
use ankh3::model::decoder::StepInput;
use ankh3::model::relative_position::{Direction, relative_position_bucket};
use ankh3::model::{Config, Decoder, Encoder, Loader, Packed, TensorView, WeightSource};
use ankh3::number::NumberType;
use candle_core::{DType, Device, Result, Tensor};
use safetensors::SafeTensors;

const KINDS: [&str; 3] = ["untied-gated-silu", "tied-gated-gelu", "relu-v1"];
const TOLERANCE: f32 = 2e-5;

struct Golden {
    config: Config,
    weights: BTreeMap<String, Tensor>,
    expected: BTreeMap<String, Tensor>,
}

fn read(path: &Path) -> BTreeMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu)
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; make it with tests/golden/regenerate",
                path.display()
            )
        })
        .into_iter()
        .collect()
}

fn golden(kind: &str) -> Golden {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(kind);
    let config = std::fs::read(dir.join("config.json")).expect("goldens are committed");
    Golden {
        config: serde_json::from_slice(&config).unwrap(),
        weights: read(&dir.join("model.safetensors")),
        expected: read(&dir.join("expected.safetensors")),
    }
}

struct Source(BTreeMap<String, Vec<u8>>);

impl WeightSource for Source {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        let bytes = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(bytes.len(), shape.iter().product::<usize>() * 4, "{name}");
        Ok(TensorView {
            dtype: NumberType::F32,
            shape: shape.to_vec(),
            bytes: bytes.into(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl Golden {
    fn with_loader<T>(&self, dtype: DType, f: impl Fn(&Loader<'_>, &Config) -> Result<T>) -> T {
        let source = Source(
            self.weights
                .iter()
                .map(|(name, tensor)| (name.clone(), bytes(tensor)))
                .collect(),
        );
        f(
            &Loader {
                source: &source,
                device: &Device::Cpu,
                dtype,
                weights: WeightForm::Full,
            },
            &self.config,
        )
        .unwrap()
    }

    fn encoder(&self, dtype: DType) -> Encoder {
        self.with_loader(dtype, Encoder::load)
    }

    fn decoder(&self, dtype: DType) -> Decoder {
        self.with_loader(dtype, Decoder::load)
    }

    /// Weights as a bf16 checkpoint holds them. Rounding them alone turns the embeddings of these
    /// tiny models, whose attention is sharp on purpose, by more than the arithmetic does (cosine
    /// 0.9994 in float64), so the arithmetic is evaluated on weights that bf16 can hold.
    fn round_weights(&mut self) {
        for (name, weight) in &mut self.weights {
            if !name.contains("norm") && !name.contains("relative_attention_bias") {
                *weight = weight
                    .to_dtype(DType::BF16)
                    .and_then(|w| w.to_dtype(DType::F32))
                    .unwrap();
            }
        }
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let ids = self.expected[name].to_vec1::<i64>().unwrap();
        ids.into_iter()
            .map(|id| u32::try_from(id).unwrap())
            .collect()
    }

    /// `prefix.N.suffix` of every N.
    fn encoder_lengths(&self) -> Vec<usize> {
        let name = |key: &String| {
            key.strip_prefix("encoder.")?
                .strip_suffix(".input_ids")?
                .parse()
                .ok()
        };
        self.expected.keys().filter_map(name).collect()
    }

    fn decoder_pairs(&self) -> Vec<String> {
        let name = |key: &String| Some(key.strip_suffix(".logits")?.to_string());
        self.expected
            .keys()
            .filter(|key| key.starts_with("decoder."))
            .filter_map(name)
            .collect()
    }
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(got: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let (got, expected) = (values(got), values(expected));
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let error = got
        .iter()
        .zip(&expected)
        .map(|(g, e)| (g - e).abs())
        .fold(0f32, f32::max)
        / largest;
    assert!(
        error <= TOLERANCE,
        "{what}: {error:.1e} of the largest magnitude {largest}"
    );
}

#[test]
fn encoder_layers_equal_transformers_alone_and_in_a_ragged_batch() {
    for kind in KINDS {
        let golden = golden(kind);
        let encoder = golden.encoder(DType::F32);
        let all: Vec<usize> = (0..=golden.config.num_layers).collect();
        let lengths = golden.encoder_lengths();
        assert!(
            lengths.contains(&1) && lengths.contains(&700),
            "{lengths:?}"
        );
        let inputs: Vec<Vec<u32>> = lengths
            .iter()
            .map(|length| golden.ids(&format!("encoder.{length}.input_ids")))
            .collect();
        let batch = Packed::from_segments(inputs.iter().map(Vec::as_slice));
        let together = encoder.hidden_states(&batch, &all).unwrap();
        for ((length, input), rows) in lengths.iter().zip(&inputs).zip(batch.segments()) {
            let alone = encoder
                .hidden_states(&Packed::from_segments([input.as_slice()]), &all)
                .unwrap();
            for layer in &all {
                let in_batch = together[*layer].narrow(0, rows.start, rows.len()).unwrap();
                let same = values(&alone[*layer])
                    .iter()
                    .zip(values(&in_batch))
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(
                    same,
                    "{kind}: length {length}, layer {layer}: alone and in a batch differ"
                );
                if let Some(expected) = golden
                    .expected
                    .get(&format!("encoder.{length}.hidden.{layer}"))
                {
                    assert_close(
                        &alone[*layer],
                        expected,
                        &format!("{kind}: length {length}, layer {layer}"),
                    );
                }
            }
        }
    }
}

#[test]
fn attention_maps_equal_transformers() {
    for kind in KINDS {
        let golden = golden(kind);
        let encoder = golden.encoder(DType::F32);
        let mut heads: Vec<Vec<Tensor>> = vec![Vec::new(); golden.config.num_layers];
        let ids = golden.ids("encoder.17.input_ids");
        encoder
            .attention_maps(&ids, |layer, head, map| {
                assert_eq!(heads[layer].len(), head);
                heads[layer].push(map.clone());
                Ok(())
            })
            .unwrap();
        for (layer, heads) in heads.iter().enumerate() {
            let got = Tensor::stack(heads, 0).unwrap();
            let expected = &golden.expected[&format!("encoder.17.attention.{layer}")];
            assert_close(&got, expected, &format!("{kind}: map of layer {layer}"));
        }
    }
}

/// With weights that bf16 can hold. A CPU whose instructions multiply bf16 runs the test again
/// without them.
#[test]
fn bf16_embeddings_point_where_f32_ones_do() {
    if Isa::current().rounds_activations() {
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "golden::bf16_embeddings_point_where_f32_ones_do"])
            .env("ANKH3_CPU_ISA", Isa::Avx512.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(
            again.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }
    for kind in KINDS {
        let mut golden = golden(kind);
        golden.round_weights();
        let (exact, rounded) = (golden.encoder(DType::F32), golden.encoder(DType::BF16));
        for length in golden.encoder_lengths() {
            let packed = Packed::from_segments([golden
                .ids(&format!("encoder.{length}.input_ids"))
                .as_slice()]);
            let (a, b) = (
                exact.forward(&packed).unwrap(),
                rounded.forward(&packed).unwrap(),
            );
            let (a, b): (Vec<Vec<f32>>, Vec<Vec<f32>>) =
                (a.to_vec2().unwrap(), b.to_vec2().unwrap());
            for (position, (a, b)) in a.iter().zip(&b).enumerate() {
                let dot = |x: &[f32], y: &[f32]| {
                    x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>()
                };
                let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
                assert!(
                    cosine >= 0.9999,
                    "{kind}: length {length}, position {position}: cosine {cosine:.6}"
                );
            }
        }
    }
}

#[test]
fn buckets_equal_transformers_at_every_distance() {
    for kind in KINDS {
        let golden = golden(kind);
        let (buckets, limit) = (
            golden.config.relative_attention_num_buckets,
            golden.config.relative_attention_max_distance,
        );
        for (name, direction) in [
            ("buckets.encoder", Direction::Both),
            ("buckets.decoder", Direction::Past),
        ] {
            let expected = golden.ids(name);
            let range = expected.len() as i64 / 2;
            let got: Vec<u32> = (-range..=range)
                .map(|d| relative_position_bucket(d, direction, buckets, limit) as u32)
                .collect();
            assert_eq!(got, expected, "{kind} {name}");
        }
    }
}

/// Encodes the sources of every decoder golden and returns what is needed to check them.
fn decoder_inputs(golden: &Golden) -> (Vec<String>, Vec<Vec<u32>>, Vec<Vec<u32>>) {
    let pairs = golden.decoder_pairs();
    assert!(pairs.len() >= 4);
    let sources = pairs
        .iter()
        .map(|pair| golden.ids(&format!("{pair}.source_ids")))
        .collect();
    let targets = pairs
        .iter()
        .map(|pair| golden.ids(&format!("{pair}.target_ids")))
        .collect();
    (pairs, sources, targets)
}

#[test]
fn teacher_forced_logits_equal_transformers() {
    for kind in KINDS {
        let golden = golden(kind);
        let (encoder, decoder) = (golden.encoder(DType::F32), golden.decoder(DType::F32));
        let (pairs, sources, targets) = decoder_inputs(&golden);
        let packed = Packed::from_segments(sources.iter().map(Vec::as_slice));
        let source = decoder
            .source(&encoder.forward(&packed).unwrap(), &packed)
            .unwrap();
        let target = Packed::from_segments(targets.iter().map(Vec::as_slice));
        let numbers: Vec<usize> = (0..pairs.len()).collect();
        let logits = decoder.forward(&target, &numbers, &source).unwrap();
        for (pair, rows) in pairs.iter().zip(target.segments()) {
            let got = logits.narrow(0, rows.start, rows.len()).unwrap();
            assert_close(
                &got,
                &golden.expected[&format!("{pair}.logits")],
                &format!("{kind} {pair}"),
            );
        }
    }
}

#[test]
fn one_step_at_a_time_equals_teacher_forcing() {
    for kind in KINDS {
        let golden = golden(kind);
        let (encoder, decoder) = (golden.encoder(DType::F32), golden.decoder(DType::F32));
        let (pairs, sources, targets) = decoder_inputs(&golden);
        let packed = Packed::from_segments(sources.iter().map(Vec::as_slice));
        let source = decoder
            .source(&encoder.forward(&packed).unwrap(), &packed)
            .unwrap();
        let longest = targets.iter().map(Vec::len).max().unwrap();
        let mut cache = decoder.cache(targets.len(), longest).unwrap();
        for position in 0..longest {
            let live: Vec<usize> = (0..targets.len())
                .filter(|i| targets[*i].len() > position)
                .collect();
            let inputs: Vec<StepInput> = live
                .iter()
                .map(|&i| StepInput {
                    token_id: targets[i][position],
                    slot: i,
                    source: i,
                })
                .collect();
            let logits = decoder.step(&inputs, &mut cache, &source).unwrap();
            for (row, &i) in live.iter().enumerate() {
                let expected = golden.expected[&format!("{}.logits", pairs[i])]
                    .get(position)
                    .unwrap();
                assert_close(
                    &logits.get(row).unwrap(),
                    &expected,
                    &format!("{kind} {} position {position}", pairs[i]),
                );
            }
        }
    }
}

#[test]
fn goldens_hold_what_they_claim() {
    for kind in KINDS {
        let bytes = std::fs::read(
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("tests/golden")
                .join(kind)
                .join("expected.safetensors"),
        );
        let bytes = bytes.expect("goldens are committed");
        let names = SafeTensors::deserialize(&bytes).unwrap().len();
        assert!(names > 40, "{kind}: only {names} tensors");
    }
}
