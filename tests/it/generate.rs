//! Generation against Hugging Face's `generate` (`tests/golden/*/expected.json`), and what must
//! hold of it whatever the model: a sequence is the same alone and among others, samples follow the
//! distribution they are drawn from.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use ankh3::inference::generate::{
    Allowed, BeamSearch, Budget, GeneratedSequence, GenerationSettings, Generator, Generators,
    NotFinite, Prompt, Sampling, Strategy,
};
use ankh3::inference::{EncoderDecoder, Replicas};
use ankh3::kernels::plan::WeightForm;
use ankh3::model::{Config, Decoder, Encoder, Loader, Packed, TensorView, WeightSource};
use ankh3::number::NumberType;
use candle_core::{DType, Device, Result};
use serde_json::Value;

const KINDS: [&str; 3] = ["untied-gated-silu", "tied-gated-gelu", "relu-v1"];
const END: u32 = 1;
const PLENTY: Budget = Budget {
    rows: 4096,
    batch_tokens: 2048,
};

struct Weights(BTreeMap<String, Vec<u8>>);

impl WeightSource for Weights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        Ok(TensorView {
            dtype: NumberType::F32,
            shape: shape.to_vec(),
            bytes: self.0[name].as_slice().into(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

struct Model {
    encoder: Encoder,
    decoder: Decoder,
    traces: Vec<Value>,
}

fn model(kind: &str) -> Model {
    changed_model(kind, |_, _| {})
}

/// The checkpoint with its values changed.
fn changed_model(kind: &str, change: impl Fn(&str, &mut [f32])) -> Model {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(kind);
    let read = |name: &str| std::fs::read(dir.join(name)).expect("goldens are committed");
    let config: Config = serde_json::from_slice(&read("config.json")).unwrap();
    let expected: Value = serde_json::from_slice(&read("expected.json")).unwrap();
    let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu);
    let bytes = tensors.unwrap().into_iter().map(|(name, tensor)| {
        let mut values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        change(&name, &mut values);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        (name, bytes.collect())
    });
    let source = Weights(bytes.collect());
    let loader = Loader {
        source: &source,
        device: &Device::Cpu,
        dtype: DType::F32,
        weights: WeightForm::Full,
    };
    Model {
        encoder: Encoder::load(&loader, &config).unwrap(),
        decoder: Decoder::load(&loader, &config).unwrap(),
        traces: expected["traces"].as_array().unwrap().clone(),
    }
}

impl Model {
    fn vocab(&self) -> u32 {
        u32::try_from(self.decoder.config().vocab_size).unwrap()
    }

    fn stacks(&self) -> EncoderDecoder<'_> {
        EncoderDecoder {
            encoder: &self.encoder,
            decoder: &self.decoder,
        }
    }

    fn settings(&self, strategy: Strategy, num_samples: usize) -> GenerationSettings {
        GenerationSettings {
            strategy,
            num_samples,
            seed: 7,
            allowed: Allowed::new(0..self.vocab(), END),
        }
    }

    fn run(
        &self,
        settings: &GenerationSettings,
        budget: Budget,
        prompts: &[Prompt],
    ) -> Vec<std::result::Result<Vec<GeneratedSequence>, NotFinite>> {
        let mut generator = Generator::new(self.stacks(), settings.clone(), budget).unwrap();
        generator.run(prompts.iter().cloned()).unwrap()
    }

    /// Prompts of many lengths, wanting many lengths.
    fn ragged(&self, count: usize) -> Vec<Prompt> {
        let prompt = |i: usize| {
            let token =
                |k: usize| 2 + ((i * 7919 + k * 104_729 + k * k) as u32 % (self.vocab() - 2));
            let mut token_ids: Vec<u32> = (0..3 + (i * 37) % 90).map(token).collect();
            token_ids.push(END);
            Prompt {
                id: format!("protein {i}"),
                token_ids,
                min_new: i % 5,
                max_new: 1 + (i * 13) % 40,
            }
        };
        (0..count).map(prompt).collect()
    }
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Our tokens in the form of Hugging Face: with `</s>`.
fn with_end(completion: &GeneratedSequence) -> Vec<u32> {
    let end = completion.end_log_prob.map(|_| END);
    completion.token_ids.iter().copied().chain(end).collect()
}

fn strategy(settings: &Value) -> (Strategy, usize) {
    match settings["num_beams"].as_u64() {
        None => (Strategy::Greedy, 1),
        Some(num_beams) => {
            let search = BeamSearch {
                num_beams: num_beams as usize,
                length_penalty: settings["length_penalty"].as_f64().unwrap(),
            };
            let wanted = settings["num_return_sequences"].as_u64().unwrap();
            (Strategy::Beam(search), wanted as usize)
        }
    }
}

fn prompt(trace: &Value, settings: &Value) -> Prompt {
    Prompt {
        id: trace["purpose"].to_string(),
        token_ids: ids(&trace["source_ids"]),
        min_new: settings["min_new_tokens"].as_u64().unwrap_or(0) as usize,
        max_new: settings["max_new_tokens"].as_u64().unwrap() as usize,
    }
}

#[test]
fn every_trace_of_generate_is_reproduced() {
    let mut compared = 0;
    for kind in KINDS {
        let model = model(kind);
        let names: Vec<&String> = model.traces[0]["runs"]
            .as_object()
            .unwrap()
            .keys()
            .collect();
        for name in names {
            // All sources in one run: the result of each does not depend on the others.
            let (strategy, samples) = strategy(&model.traces[0]["runs"][name]["settings"]);
            let run = |trace: &Value| prompt(trace, &trace["runs"][name]["settings"]);
            let prompts: Vec<Prompt> = model.traces.iter().map(run).collect();
            let results = model.run(&model.settings(strategy, samples), PLENTY, &prompts);
            for (trace, result) in model.traces.iter().zip(results) {
                let what = format!("{kind}, {}, {name}", trace["purpose"]);
                compare(&trace["runs"][name], &result.unwrap(), &what);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 3 * 3 * 4);
}

fn compare(expected: &Value, completions: &[GeneratedSequence], what: &str) {
    let tokens = expected["tokens"].as_array().unwrap();
    assert_eq!(completions.len(), tokens.len(), "{what}");
    let scores = expected["scores"].as_array().unwrap();
    for ((completion, tokens), score) in completions.iter().zip(tokens).zip(scores) {
        assert_eq!(with_end(completion), ids(tokens), "{what}");
        let whole = completion.log_likelihood() + completion.end_log_prob.unwrap_or(0.0);
        let got = completion.score.unwrap_or(whole);
        let score = score.as_f64().unwrap();
        assert!(
            (got - score).abs() < 2e-5 * score.abs(),
            "{what}: {got}, not {score}"
        );
    }
}

/// Every bit of every number.
fn bits(results: &[std::result::Result<Vec<GeneratedSequence>, NotFinite>]) -> Vec<Vec<u64>> {
    let of = |completion: &GeneratedSequence| {
        let ids = completion.token_ids.iter().map(|id| u64::from(*id));
        let numbers = completion.log_probs.iter().copied();
        let numbers = numbers
            .chain(completion.end_log_prob)
            .chain(completion.score);
        ids.chain(numbers.map(f64::to_bits)).collect::<Vec<u64>>()
    };
    let of = |result: &std::result::Result<Vec<GeneratedSequence>, NotFinite>| {
        result.as_ref().unwrap().iter().flat_map(of).collect()
    };
    results.iter().map(of).collect()
}

fn strategies() -> [(Strategy, usize); 4] {
    let sampling = Sampling {
        temperature: 0.9,
        top_k: Some(30),
        top_p: Some(0.95),
    };
    let beams = BeamSearch {
        num_beams: 3,
        length_penalty: 1.0,
    };
    [
        (Strategy::Greedy, 1),
        (Strategy::Sample(Sampling::default()), 1),
        (Strategy::Sample(sampling), 3),
        (Strategy::Beam(beams), 2),
    ]
}

#[test]
fn alone_or_among_63_others_every_bit_is_the_same() {
    let model = model("untied-gated-silu");
    let prompts = model.ragged(64);
    for (strategy, samples) in strategies() {
        let settings = model.settings(strategy, samples);
        let together = bits(&model.run(&settings, PLENTY, &prompts));
        assert_eq!(together.len(), 64);
        let alone = |prompt: &Prompt| {
            let prompts = std::slice::from_ref(prompt);
            bits(&model.run(&settings, PLENTY, prompts)).remove(0)
        };
        let alone: Vec<_> = prompts.iter().map(alone).collect();
        assert!(together == alone, "{strategy:?}");
        let mut reversed = prompts.clone();
        reversed.reverse();
        let mut backwards = bits(&model.run(&settings, PLENTY, &reversed));
        backwards.reverse();
        assert!(together == backwards, "{strategy:?} in reverse order");
    }
}

#[test]
fn little_room_changes_nothing_but_the_time() {
    let model = model("tied-gated-gelu");
    let prompts = model.ragged(40);
    for (strategy, samples) in strategies() {
        let settings = model.settings(strategy, samples);
        let expected = bits(&model.run(&settings, PLENTY, &prompts));
        // 1: every prompt is more than the budget; 100: a few fit, in gaps that others left.
        for rows in [1, 100, 333] {
            let budget = Budget {
                rows,
                batch_tokens: rows,
            };
            let got = bits(&model.run(&settings, budget, &prompts));
            assert!(got == expected, "{strategy:?} in {rows} rows");
        }
    }
}

#[test]
fn several_devices_write_what_one_does_in_its_order() {
    let model = model("untied-gated-silu");
    let prompts = model.ragged(40);
    let budget = Budget {
        rows: 200,
        batch_tokens: 100,
    };
    for (strategy, num_samples) in strategies() {
        let settings = model.settings(strategy, num_samples);
        let stacks = Replicas::new(model.stacks(), vec![model.stacks(); 2]);
        let mut generators = Generators::new(stacks, &settings, budget).unwrap();
        let mut waiting = prompts.iter().cloned();
        let mut results = Vec::new();
        while results.len() < prompts.len() {
            while generators.wants_more()
                && let Some(prompt) = waiting.next()
            {
                generators.push(prompt);
            }
            generators.advance().unwrap();
            results.extend(std::iter::from_fn(|| generators.pop()));
        }
        assert!(generators.is_idle());
        let one = model.run(&settings, budget, &prompts);
        assert_eq!(bits(&results), bits(&one), "{:?}", settings.strategy);
    }
}

#[test]
fn only_allowed_tokens_are_written_and_as_many_as_asked_for() {
    let model = model("relu-v1");
    let allowed = [5, 9, 20, 21];
    for (strategy, samples) in strategies() {
        let settings = GenerationSettings {
            allowed: Allowed::new(allowed, END),
            ..model.settings(strategy, samples)
        };
        let prompts = model.ragged(20);
        for (prompt, result) in prompts.iter().zip(model.run(&settings, PLENTY, &prompts)) {
            let completions = result.unwrap();
            assert!(!completions.is_empty() && completions.len() <= samples);
            for completion in completions {
                let tokens = &completion.token_ids;
                assert!(tokens.iter().all(|id| allowed.contains(id)), "{tokens:?}");
                let ended = completion.end_log_prob.is_some();
                assert!(tokens.len() == prompt.max_new || ended && tokens.len() >= prompt.min_new);
                assert!(completion.perplexity() >= 1.0);
            }
        }
    }
}

/// The exact probabilities of the first token of `prompt`, by teacher forcing.
fn first_token(model: &Model, prompt: &Prompt, allowed: &[u32]) -> Vec<f64> {
    let packed = Packed::from_segments([prompt.token_ids.as_slice()]);
    let encoded = model.encoder.forward(&packed).unwrap();
    let source = model.decoder.source(&encoded, &packed).unwrap();
    let start = Packed::from_segments([&[0u32][..]]);
    let logits = model.decoder.forward(&start, &[0], &source).unwrap();
    let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let weights = allowed
        .iter()
        .map(|id| f64::from(logits[*id as usize]).exp());
    let total: f64 = weights.clone().sum();
    weights.map(|weight| weight / total).collect()
}

#[test]
fn samples_follow_the_softmax_by_chi_square() {
    let model = model("untied-gated-silu");
    let allowed: Vec<u32> = (10..30).collect();
    let prompt = Prompt {
        max_new: 1,
        min_new: 1,
        ..model.ragged(1).remove(0)
    };
    let samples = 20_000;
    let settings = GenerationSettings {
        allowed: Allowed::new(allowed.iter().copied(), END),
        ..model.settings(Strategy::Sample(Sampling::default()), samples)
    };
    let exact = first_token(&model, &prompt, &allowed);
    let drawn = model.run(&settings, PLENTY, std::slice::from_ref(&prompt));
    let drawn = drawn.into_iter().next().unwrap().unwrap();
    assert_eq!(drawn.len(), samples);
    let mut counts = vec![0.0f64; allowed.len()];
    for completion in &drawn {
        let token = allowed.binary_search(&completion.token_ids[0]).unwrap();
        counts[token] += 1.0;
        assert!((completion.log_likelihood() - exact[token].ln()).abs() < 1e-4);
    }
    let (statistic, cells) = chi_square(&counts, &exact);
    assert!(cells >= 8, "too few cells to say anything: {exact:?}");
    // The 99.9 % quantile of chi-square with up to 19 degrees of freedom is at most 43.8.
    let quantile = quantile_999(cells - 1);
    assert!(statistic < quantile, "{statistic} of {cells} cells");
    // The test must fail for a wrong distribution: the same counts at another temperature.
    let wrong = exact.iter().map(|p| p.powf(0.9));
    let total: f64 = wrong.clone().sum();
    let wrong: Vec<f64> = wrong.map(|p| p / total).collect();
    assert!(chi_square(&counts, &wrong).0 > quantile);
}

/// The statistic and its number of cells; tokens expected fewer than five times share a cell.
fn chi_square(counts: &[f64], probabilities: &[f64]) -> (f64, usize) {
    let total: f64 = counts.iter().sum();
    let (mut statistic, mut cells, mut rare) = (0.0, 0, (0.0, 0.0));
    for (count, probability) in counts.iter().zip(probabilities) {
        let expected = probability * total;
        if expected < 5.0 {
            rare = (rare.0 + count, rare.1 + expected);
        } else {
            statistic += (count - expected).powi(2) / expected;
            cells += 1;
        }
    }
    if rare.1 >= 5.0 {
        statistic += (rare.0 - rare.1).powi(2) / rare.1;
        cells += 1;
    }
    (statistic, cells)
}

/// Wilson and Hilferty's approximation of the 99.9 % quantile, within a per cent here.
fn quantile_999(degrees: usize) -> f64 {
    let k = degrees as f64;
    let spread = 2.0 / (9.0 * k);
    k * (1.0 - spread + 3.0902 * spread.sqrt()).powi(3)
}

#[test]
fn logits_that_are_no_numbers_spoil_their_own_prompt_only() {
    let broken = 77;
    // NaN in one row of the embedding table: every sequence with this token has NaN everywhere.
    let model = changed_model("untied-gated-silu", |name, values| {
        if name == "shared.weight" {
            let width = values.len() / 256;
            values[broken * width] = f32::NAN;
        }
    });
    let mut prompts = model.ragged(6);
    for prompt in &mut prompts {
        prompt.token_ids.iter_mut().for_each(|id| {
            *id = if *id == broken as u32 { 78 } else { *id };
        });
    }
    prompts[2].token_ids[1] = broken as u32;
    prompts[4].token_ids[1] = broken as u32;
    let allowed = Allowed::new((2..200).filter(|id| *id != broken as u32), END);
    for (strategy, samples) in strategies() {
        let settings = GenerationSettings {
            allowed: allowed.clone(),
            ..model.settings(strategy, samples)
        };
        for rows in [40, 4096] {
            let budget = Budget {
                rows,
                batch_tokens: 2048,
            };
            let results = model.run(&settings, budget, &prompts);
            let failed: Vec<usize> = (0..6).filter(|i| results[*i].is_err()).collect();
            assert_eq!(failed, [2, 4], "{strategy:?}");
        }
    }
}
