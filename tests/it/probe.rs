//! Heads and contacts against independent implementations (`tests/golden/probe`), and learning as a
//! whole.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::PathBuf;

use ankh3::inference::contacts::jacobian::Jacobian;
use ankh3::inference::contacts::{PairMap, Round};
use ankh3::inference::masked::MaskedModel;
use ankh3::inference::residues::Residues;
use ankh3::number::NumberType;
use ankh3::probe::convbert::{self, ConvBert};
use ankh3::probe::features::Features;
use ankh3::probe::fit::{Examples, FitPlan, fit};
use ankh3::probe::head::{Body, Head, HeadShape, Readout};
use ankh3::probe::loss::Label;
use ankh3::probe::metrics::contacts::{PARTS, Range, precision};
use ankh3::probe::native::Native;
use ankh3::probe::row_cache::{RowCache, RowKey, key};
use ankh3::probe::settings::FitSettings;
use ankh3::probe::weights::HeadWeights;
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
    let weights = HeadWeights::from_bytes(&bytes, &specs, &Device::Cpu).unwrap();
    let layer = ConvBert::new(&weights).unwrap();
    let output = layer.forward(&golden["input"], None).unwrap();
    assert_close(&values(&output), &values(&golden["output"]), "output");
    let loss = (output * &golden["probe"]).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    assert_eq!(specs.len(), 2 * 8 + 3 + 4);
    for spec in &specs {
        let weight = weights.get(&spec.name).unwrap();
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
    let shape = HeadShape {
        width,
        body: Body::ConvBert,
        readout: Readout::Residues,
        outputs: 3,
    };
    let weights = HeadWeights::drawn(&shape.specs(0.0), 1, &Device::Cpu).unwrap();
    let mut snapshot = weights.snapshot().unwrap();
    for (name, weight) in &mut snapshot {
        if name.contains("conv_out_layer") {
            *weight = weight.zeros_like().unwrap();
        }
    }
    weights.restore(&snapshot).unwrap();
    let head = Head::new(shape, &weights).unwrap();
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

/// Proteins of random rows. The class of a residue is the sign of the first value of the residue before it.
struct RandomProteins {
    cache: RowCache,
    keys: Vec<RowKey>,
    labels: Vec<Label>,
    /// The folder of the cache.
    _folder: tempfile::TempDir,
}

const WIDTH: usize = 8;

impl RandomProteins {
    fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = RowCache::open(folder.path(), "random", NumberType::F32).unwrap();
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let (mut keys, mut labels) = (Vec::new(), Vec::new());
        for number in 0..count {
            let rows: Vec<f32> = (0..(12 + number % 9) * WIDTH).map(|_| next()).collect();
            let key = key(&[&number.to_le_bytes()]);
            cache.insert(key, &rows).unwrap();
            keys.push(key);
            labels.push(classes(&rows));
        }
        Self {
            cache,
            keys,
            labels,
            _folder: folder,
        }
    }

    fn features(&self) -> Features<'_> {
        Features::Cached {
            cache: &self.cache,
            keys: self.keys.clone(),
            width: WIDTH,
        }
    }
}

fn classes(rows: &[f32]) -> Label {
    let class = |i: usize| (i > 0).then(|| u32::from(rows[(i - 1) * WIDTH] > 0.0));
    Label::Residues((0..rows.len() / WIDTH).map(class).collect())
}

/// Trains on neighbours' signs; returns the best share of correct residues, and the output for protein 0.
fn learn(body: Body, settings: &FitSettings) -> (f64, Vec<f32>) {
    let proteins = RandomProteins::new(48);
    let plan = FitPlan {
        shape: HeadShape {
            width: WIDTH,
            body,
            readout: Readout::Residues,
            outputs: 2,
        },
        settings: settings.clone(),
        device: Device::Cpu,
        measure: "accuracy",
    };
    let features = proteins.features();
    let output = |head: &Head, number: usize| {
        let rows = features.tensor(number, &Device::Cpu).unwrap();
        head.forward(&rows, None).unwrap()
    };
    let correct = |head: &Head| {
        let (mut correct, mut all) = (0, 0);
        for (number, label) in proteins.labels.iter().enumerate() {
            let Label::Residues(classes) = label else {
                unreachable!()
            };
            let rows = output(head, number).to_vec2::<f32>().unwrap();
            for (row, class) in rows.iter().zip(classes) {
                if let Some(class) = class {
                    correct += usize::from(u32::from(row[1] > row[0]) == *class);
                    all += 1;
                }
            }
        }
        f64::from(correct as u32) / f64::from(all as u32)
    };
    let examples = Examples {
        features: proteins.features(),
        labels: &proteins.labels,
    };
    let judge = |head: &Head| Ok(Some(correct(head)));
    let fitted = fit(&plan, &examples, Some(&judge)).unwrap();
    assert_eq!(fitted.epochs.len(), settings.epochs);
    let validations = fitted.epochs.iter().filter_map(|epoch| epoch.validation);
    let best = validations.fold(0.0, f64::max);
    assert_eq!(correct(&fitted.head), best, "the best epoch is kept");
    (best, values(&output(&fitted.head, 0)))
}

#[test]
fn what_a_neighbour_tells_is_learnt_by_a_convolution_and_not_by_a_linear_head() {
    let settings = FitSettings {
        epochs: 60,
        accumulation: 8,
        learning_rate: 5e-3,
        warmup_steps: 20,
        ..FitSettings::default()
    };
    let (convbert, _) = learn(Body::ConvBert, &settings);
    let (linear, _) = learn(Body::Linear, &settings);
    assert!(convbert > 0.9, "{convbert}");
    assert!(linear < 0.65, "{linear}");
}

#[test]
fn a_seed_decides_and_threads_do_not() {
    let settings = FitSettings {
        epochs: 2,
        warmup_steps: 2,
        ..FitSettings::default()
    };
    let on = |threads: usize, settings: &FitSettings| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| learn(Body::ConvBert, settings))
    };
    assert_eq!(on(1, &settings), on(3, &settings));
    let other = FitSettings {
        seed: 8,
        ..settings.clone()
    };
    assert_ne!(on(1, &settings), on(1, &other));
}
