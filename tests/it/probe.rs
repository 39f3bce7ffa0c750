//! Heads and contacts against independent implementations (`tests/golden/probe`), and learning as a
//! whole.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::PathBuf;

use ankh3::inference::contacts::jacobian::Jacobian;
use ankh3::inference::contacts::{PairMap, Round};
use ankh3::inference::masked::MaskedModel;
use ankh3::inference::residues::Residues;
use ankh3::probe::convbert::{self, ConvBert};
use ankh3::probe::head::{Body, Head, Readout, Shape};
use ankh3::probe::loss::Target;
use ankh3::probe::metrics::contacts::{PARTS, Range, precision};
use ankh3::probe::native::Native;
use ankh3::probe::parameters::Parameters;
use ankh3::probe::settings::Settings;
use ankh3::probe::train::{Features, Trainer, tensor};
use ankh3::tokenizer::TaskPrefix;
use candle_core::{Device, Tensor};
use serde_json::Value;

use super::masked::tiny;

/// Tolerance, relative to the largest magnitude.
const TOLERANCE: f32 = 2e-5;

fn golden(name: &str) -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("golden/probe").join(name)
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden(name), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected
        .iter()
        .fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    for (got, expected) in got.iter().zip(expected) {
        let error = (got - expected).abs() / largest;
        assert!(error <= TOLERANCE, "{what}: {got} is not {expected}");
    }
}

#[test]
fn a_convbert_layer_and_its_gradients_equal_transformers() {
    let golden = tensors("convbert.safetensors");
    let width = golden["input"].dims()[1];
    let bytes = std::fs::read(self::golden("convbert.safetensors")).unwrap();
    let specs = convbert::specs(width);
    let parameters = Parameters::from_bytes(&bytes, &specs, &Device::Cpu).unwrap();
    let layer = ConvBert::new(&parameters).unwrap();
    let output = layer.forward(&golden["input"], None).unwrap();
    assert_close(&values(&output), &values(&golden["output"]), "output");
    let loss = (output * &golden["probe"]).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    assert_eq!(specs.len(), 2 * 8 + 3 + 4);
    for spec in &specs {
        let weight = parameters.get(&spec.name).unwrap();
        let got = values(gradients.get(&weight).unwrap());
        let expected = values(&golden[&format!("gradient.{}", spec.name)]);
        // A constant added to all keys changes no softmax, so the true gradient is 0 and the
        // expected values are rounding errors.
        if spec.name.ends_with("self.key.bias") {
            assert!(
                got.iter().chain(&expected).all(|g| g.abs() < 1e-3),
                "{got:?}"
            );
            continue;
        }
        assert_close(&got, &expected, &spec.name);
    }
}

/// Without the convolution, nothing depends on the order: a reversed protein, whose blocks have
/// other residues, gives the same rows in reverse.
#[test]
fn long_proteins_attend_in_blocks_with_the_same_result() {
    let (width, length) = (8, 1100);
    let shape = Shape {
        width,
        body: Body::ConvBert,
        readout: Readout::Residues,
        outputs: 3,
    };
    let parameters = Parameters::drawn(&shape.specs(0.0), 1, &Device::Cpu).unwrap();
    let mut weights = parameters.snapshot().unwrap();
    for (name, weight) in &mut weights {
        if name.contains("conv_out_layer") {
            *weight = weight.zeros_like().unwrap();
        }
    }
    parameters.restore(&weights).unwrap();
    let head = Head::new(shape, &parameters).unwrap();
    let rows: Vec<f32> = (0..length * width)
        .map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0)
        .collect();
    let backwards: Vec<f32> = rows.chunks(width).rev().flatten().copied().collect();
    let run = |rows: Vec<f32>| {
        let rows = Tensor::from_vec(rows, (length, width), &Device::Cpu).unwrap();
        values(&head.forward(&rows, None).unwrap())
    };
    let again: Vec<f32> = run(backwards).chunks(3).rev().flatten().copied().collect();
    assert_close(&again, &run(rows), "backwards");
}

#[test]
fn corrections_and_precisions_equal_plain_python() {
    let text = std::fs::read_to_string(golden("contacts.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let floats = |value: &Value| -> Vec<f32> {
        let numbers = value.as_array().unwrap().iter();
        numbers.map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let mut seen = 0;
    for case in &cases {
        let places: Vec<_> = case["places"]
            .as_array()
            .unwrap()
            .iter()
            .map(|place| (!place.is_null()).then(|| <[f32; 3]>::try_from(floats(place)).unwrap()))
            .collect();
        let native = Native::new(places);
        let mut map = PairMap::new(native.length(), floats(&case["values"]));
        map.symmetrize();
        map.apc();
        assert_close(map.values(), &floats(&case["corrected"]), "corrected");
        for range in Range::ALL {
            for part in PARTS {
                let expected = &case["precisions"][format!("{} {part}", range.name())];
                let got = precision(&map, &native, range, part);
                let expected = expected.as_f64();
                assert_eq!(got.is_some(), expected.is_some(), "{range:?} {part}");
                if let (Some(got), Some(expected)) = (got, expected) {
                    assert!((got - expected).abs() < 1e-12, "{range:?} {part}: {got}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen >= 9, "only {seen} precisions were compared");
}

#[test]
fn a_jacobian_equals_one_asked_copy_by_copy() {
    let golden = tensors("jacobian.safetensors");
    let dir = tiny::ankh3();
    let network = tiny::network(&dir);
    let tokenizer = &network.tokenizer;
    let rounds = [
        (vec![0, 3, 7], vec![1, 2, 4, 5, 6, 8, 9, 10]),
        (vec![1, 9], vec![0, 2, 3, 10]),
    ]
    .map(|(masked, substituted)| Round {
        masked,
        substituted,
    });
    let mut maps = Vec::new();
    // The result does not depend on the size of batches.
    for max_tokens in [20, 2048] {
        let residues = Residues::standard(tokenizer).unwrap();
        let both = network.stacks();
        let model =
            MaskedModel::new(both, tokenizer, TaskPrefix::Nlu, residues, max_tokens).unwrap();
        let jacobian = Jacobian::compute(&model, b"MKTAYIAKQRX", &rounds)
            .unwrap()
            .unwrap();
        maps.push(jacobian.contact_map());
    }
    assert_eq!(maps[0], maps[1]);
    assert_close(maps[0].values(), &values(&golden["map"]), "map");
    let given = Jacobian::new(11, values(&golden["jacobian"])).contact_map();
    assert_close(
        given.values(),
        &values(&golden["map"]),
        "map of the given Jacobian",
    );
}

/// Proteins of random rows. The class of a residue depends on the first value of its neighbour, the
/// number of a protein on the mean of the second values.
struct Made {
    rows: Vec<Vec<f32>>,
}

const WIDTH: usize = 8;

impl Made {
    fn new(count: usize) -> Self {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut protein = |length: usize| (0..length * WIDTH).map(|_| next()).collect();
        Self {
            rows: (0..count).map(|i| protein(12 + i % 9)).collect(),
        }
    }

    fn length(&self, number: usize) -> usize {
        self.rows[number].len() / WIDTH
    }

    fn classes(&self, number: usize) -> Target {
        let rows = &self.rows[number];
        let class = |i: usize| (i > 0).then(|| u32::from(rows[(i - 1) * WIDTH] > 0.0));
        Target::Residues((0..self.length(number)).map(class).collect())
    }
}

impl Features for Made {
    fn width(&self) -> usize {
        WIDTH
    }

    fn rows(&self, number: usize) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.rows[number].clone())
    }
}

/// Learns the signs of neighbours; returns the share of correct residues and the output of protein
/// 0.
fn learn(body: Body, settings: &Settings) -> (f64, Vec<f32>) {
    let made = Made::new(48);
    let shape = Shape {
        width: WIDTH,
        body,
        readout: Readout::Residues,
        outputs: 2,
    };
    let device = Device::Cpu;
    let parameters = Parameters::drawn(&shape.specs(0.0), settings.seed, &device).unwrap();
    let head = Head::new(shape, &parameters).unwrap();
    let targets: Vec<Target> = (0..48).map(|number| made.classes(number)).collect();
    let trainer = Trainer {
        head: &head,
        parameters: &parameters,
        settings,
        device: &device,
    };
    let right = |head: &Head| {
        let (mut right, mut all) = (0, 0);
        for (number, target) in targets.iter().enumerate() {
            let Target::Residues(classes) = target else {
                unreachable!()
            };
            let output = head
                .forward(&tensor(&made, number, &device).unwrap(), None)
                .unwrap();
            for (row, class) in output.to_vec2::<f32>().unwrap().iter().zip(classes) {
                if let Some(class) = class {
                    right += usize::from(u32::from(row[1] > row[0]) == *class);
                    all += 1;
                }
            }
        }
        f64::from(right as u32) / f64::from(all as u32)
    };
    let judge = |head: &Head| Ok(Some(right(head)));
    let epochs = trainer.run(&made, &targets, judge, |_| ()).unwrap();
    assert_eq!(epochs.len(), settings.epochs);
    let best = epochs
        .iter()
        .filter_map(|epoch| epoch.validation)
        .fold(0.0, f64::max);
    assert_eq!(right(&head), best, "the best epoch is kept");
    let first = head
        .forward(&tensor(&made, 0, &device).unwrap(), None)
        .unwrap();
    (best, values(&first))
}

#[test]
fn what_a_neighbour_tells_is_learnt_by_a_convolution_and_not_by_a_linear_head() {
    let settings = Settings {
        epochs: 60,
        accumulation: 8,
        learning_rate: 5e-3,
        warmup_steps: 20,
        ..Settings::default()
    };
    let (convbert, _) = learn(Body::ConvBert, &settings);
    let (linear, _) = learn(Body::Linear, &settings);
    assert!(convbert > 0.9, "{convbert}");
    assert!(linear < 0.65, "{linear}");
}

#[test]
fn a_seed_decides_and_threads_do_not() {
    let settings = Settings {
        epochs: 2,
        warmup_steps: 2,
        ..Settings::default()
    };
    let on = |threads: usize, settings: &Settings| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| learn(Body::ConvBert, settings))
    };
    assert_eq!(on(1, &settings), on(3, &settings));
    let other = Settings {
        seed: 8,
        ..settings.clone()
    };
    assert_ne!(on(1, &settings), on(1, &other));
}
