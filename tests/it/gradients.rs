//! One training step against PyTorch: `tests/golden/*/gradients.safetensors` holds a ragged batch
//! and what transformers' gradients of it are (in float64).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod operations;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ankh3::checkpoint::layout::{self, LmHead};
use ankh3::kernels::dropout::Dropout;
use ankh3::model::{Config, Packed};
use ankh3::training::batch::Batch;
use ankh3::training::mixture::Objective;
use ankh3::training::network::{Activations, Network};
use ankh3::training::objective::TrainingExample;
use ankh3::training::variables::{ModelParameters, Parameter};
use candle_core::{DType, Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const KINDS: [&str; 3] = ["untied-gated-silu", "tied-gated-gelu", "relu-v1"];

struct Golden {
    config: Config,
    loss: f64,
    parameters: ModelParameters,
    gradients: BTreeMap<String, Tensor>,
}

fn golden(kind: &str) -> Golden {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(kind);
    let json = |name: &str| std::fs::read(dir.join(name)).expect("goldens are committed");
    let tensors =
        |name: &str| candle_core::safetensors::load(dir.join(name), &Device::Cpu).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&json("expected.json")).unwrap();
    let gradients: BTreeMap<_, _> = tensors("gradients.safetensors").into_iter().collect();
    let parameters = tensors("model.safetensors")
        .into_iter()
        // The file of T5 v1.0 repeats its table and holds one that nothing reads.
        .filter(|(name, _)| gradients.contains_key(&format!("norm.{name}")))
        .map(|(name, tensor)| {
            let parameter = Parameter {
                shape: tensor.dims().to_vec(),
                values: values(&tensor),
            };
            (name, parameter)
        })
        .collect();
    Golden {
        config: serde_json::from_slice(&json("config.json")).unwrap(),
        loss: expected["loss"].as_f64().unwrap(),
        parameters,
        gradients,
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

impl Golden {
    fn ids(&self, name: &str) -> Vec<u32> {
        let ids = self.gradients[name].to_vec1::<i64>().unwrap();
        ids.into_iter()
            .map(|id| u32::try_from(id).unwrap())
            .collect()
    }

    fn batch(&self) -> Batch {
        let examples: Vec<TrainingExample> = (0..3)
            .map(|i| TrainingExample {
                source: self.ids(&format!("batch.{i}.source_ids")),
                labels: self.ids(&format!("batch.{i}.labels")),
                task: Objective::Completion,
            })
            .collect();
        Batch::new(&examples, &self.config)
    }

    /// Several layers of random weights.
    fn deep(&self) -> Golden {
        let config = Config {
            num_layers: 5,
            num_decoder_layers: Some(4),
            ..self.config.clone()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let random = layout::tensors(&config, LmHead::Own)
            .into_iter()
            .map(|spec| {
                let count = spec.shape.iter().product();
                let values = (0..count).map(|_| rng.random_range(-0.3f32..0.3)).collect();
                let parameter = Parameter {
                    shape: spec.shape,
                    values,
                };
                (spec.name, parameter)
            });
        Golden {
            parameters: random.collect(),
            config,
            gradients: self.gradients.clone(),
            loss: 0.0,
        }
    }

    fn network(&self) -> Network<'_> {
        Network {
            config: &self.config,
            device: &Device::Cpu,
            dtype: DType::F32,
            z_loss: 0.0,
            activations: Activations::Keep,
        }
    }
}

#[test]
fn loss_and_every_gradient_equal_pytorch() {
    for kind in KINDS {
        let golden = golden(kind);
        let batch = golden.batch();
        let (losses, gradients) = golden
            .network()
            .gradients(&golden.parameters, &batch, None)
            .unwrap();
        let labels = losses.len() as f64;
        let loss = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / labels;
        assert!(
            (loss / golden.loss - 1.0).abs() < 1e-5,
            "{kind}: {loss} for {}",
            golden.loss
        );
        let names: Vec<&str> = golden
            .gradients
            .keys()
            .filter_map(|key| key.strip_prefix("norm."))
            .collect();
        assert_eq!(names.len(), gradients.len(), "{kind}");
        for name in names {
            let gradient: Vec<f64> = gradients[name]
                .iter()
                .map(|g| f64::from(*g) / labels)
                .collect();
            let expected = |part: &str| values(&golden.gradients[&format!("{part}.{name}")]);
            let norm = f64::from(expected("norm")[0]);
            let close = |got: f64, wanted: f32, what: &str| {
                let error = (got - f64::from(wanted)).abs() / norm;
                assert!(
                    error < 5e-5,
                    "{kind} {name}, {what}: {got} for {wanted}, {error:.1e} of the norm"
                );
            };
            let got = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            close(got, norm as f32, "norm");
            let cosines = gradient
                .iter()
                .enumerate()
                .map(|(i, g)| g * (i as f64).cos());
            close(cosines.sum(), expected("cosine_sum")[0], "cosine sum");
            for (got, wanted) in gradient.iter().zip(expected("first")) {
                close(*got, wanted, "first values");
            }
            if let Some(full) = golden.gradients.get(&format!("full.{name}")) {
                for (got, wanted) in gradient.iter().zip(values(full)) {
                    close(*got, wanted, "all values");
                }
            }
        }
    }
}

/// Activations that are kept or recomputed give the same bits, with dropout and without, also for a
/// shape with several stretches of layers.
#[test]
fn recomputed_activations_change_no_bit() {
    for kind in KINDS {
        let golden = golden(kind);
        for golden in [golden.deep(), golden] {
            let batch = golden.batch();
            for dropout in [None, Some(Dropout::new(0.2, 3))] {
                let gradients = |activations| {
                    let network = Network {
                        activations,
                        ..golden.network()
                    };
                    let (losses, gradients) = network
                        .gradients(&golden.parameters, &batch, dropout)
                        .unwrap();
                    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
                    let gradients: BTreeMap<String, Vec<u32>> = gradients
                        .into_iter()
                        .map(|(name, values)| (name, bits(values)))
                        .collect();
                    let losses: Vec<u32> = bits(losses);
                    (losses, gradients)
                };
                let (losses, kept) = gradients(Activations::Keep);
                for activations in [Activations::Layers, Activations::Sqrt] {
                    let (again, recomputed) = gradients(activations);
                    assert_eq!(losses, again, "{kind} {activations:?}");
                    assert_eq!(kept.len(), recomputed.len());
                    for (name, bits) in &kept {
                        assert!(
                            *bits == recomputed[name],
                            "{kind} {activations:?} {dropout:?}: {name}"
                        );
                    }
                }
            }
        }
    }
}

/// The backward pass of `backprop` against candle's tape.
#[test]
fn the_tape_gives_the_same_gradients() {
    for kind in KINDS {
        let golden = golden(kind);
        for golden in [golden.deep(), golden] {
            let batch = golden.batch();
            for (dropout, z_loss) in [(None, 0.0), (Some(Dropout::new(0.2, 3)), 0.01)] {
                for activations in [Activations::Keep, Activations::Layers, Activations::Sqrt] {
                    let network = Network {
                        z_loss,
                        activations,
                        ..golden.network()
                    };
                    let what = format!("{kind} {activations:?} {dropout:?}");
                    let parameters = &golden.parameters;
                    let ours = network.gradients(parameters, &batch, dropout).unwrap();
                    let taped = network.taped(parameters, &batch, dropout).unwrap();
                    assert_near(&ours.0, &taped.0, 1e-5, &format!("{what}, losses"));
                    assert_eq!(ours.1.len(), taped.1.len(), "{what}");
                    for (name, gradient) in &ours.1 {
                        let what = format!("{what}, {name}");
                        assert_near(gradient, &taped.1[name], 1e-5, &what);
                    }
                }
            }
        }
    }
}

/// In bf16 a sum made in another order may be rounded the other way: the two ways may differ by
/// less than rounding itself changes.
#[test]
fn the_tape_gives_the_same_gradients_in_bf16() {
    for kind in KINDS {
        let golden = golden(kind);
        for golden in [golden.deep(), golden] {
            let (parameters, batch) = (&golden.parameters, golden.batch());
            let exact = golden.network();
            let rounded = Network {
                dtype: DType::BF16,
                ..exact.clone()
            };
            let ours = rounded.gradients(parameters, &batch, None).unwrap();
            let taped = rounded.taped(parameters, &batch, None).unwrap();
            let (_, exact) = exact.taped(parameters, &batch, None).unwrap();
            assert_near(&ours.0, &taped.0, 1e-5, &format!("{kind}, losses"));
            let distance = |a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>| {
                let pairs = a.values().flatten().zip(b.values().flatten());
                let squares = pairs.map(|(a, b)| f64::from(a - b).powi(2));
                squares.sum::<f64>().sqrt()
            };
            let (between, rounding) = (distance(&ours.1, &taped.1), distance(&taped.1, &exact));
            assert!(
                between < 0.25 * rounding,
                "{kind}: {between:.1e}, where rounding makes {rounding:.1e}"
            );
        }
    }
}

#[test]
fn a_batch_has_the_gradients_of_its_parts() {
    let golden = golden("untied-gated-silu");
    let network = golden.network();
    let together = network
        .gradients(&golden.parameters, &golden.batch(), None)
        .unwrap()
        .1;
    let mut sum: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for i in 0..3 {
        let example = TrainingExample {
            source: golden.ids(&format!("batch.{i}.source_ids")),
            labels: golden.ids(&format!("batch.{i}.labels")),
            task: Objective::Completion,
        };
        let batch = Batch::new(&[example], &golden.config);
        for (name, gradient) in network
            .gradients(&golden.parameters, &batch, None)
            .unwrap()
            .1
        {
            let sum = sum.entry(name).or_insert_with(|| vec![0.0; gradient.len()]);
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
    }
    for (name, gradient) in together {
        assert_near(&gradient, &sum[&name], 2e-5, &name);
    }
}

#[test]
fn dropout_has_the_gradient_of_its_own_loss() {
    // Finite differences of the whole network under a fixed mask, in the direction of the gradient.
    for kind in KINDS {
        let golden = golden(kind);
        let (network, batch) = (golden.network(), golden.batch());
        let dropout = Some(Dropout::new(0.1, 3));
        let total = |parameters: &ModelParameters| -> f64 {
            let losses = network.gradients(parameters, &batch, dropout).unwrap().0;
            losses.iter().map(|loss| f64::from(*loss)).sum()
        };
        let (losses, gradients) = network
            .gradients(&golden.parameters, &batch, dropout)
            .unwrap();
        let again = network
            .gradients(&golden.parameters, &batch, dropout)
            .unwrap();
        assert_eq!(
            (&losses, &gradients),
            (&again.0, &again.1),
            "the same masks give the same bytes"
        );
        assert_ne!(
            losses,
            network
                .gradients(&golden.parameters, &batch, None)
                .unwrap()
                .0
        );
        let squares: f64 = gradients
            .values()
            .flatten()
            .map(|g| f64::from(*g).powi(2))
            .sum();
        let along = |step: f64| {
            let mut moved = golden.parameters.clone();
            for (name, parameter) in &mut moved {
                let values = parameter.values.iter_mut().zip(&gradients[name]);
                values.for_each(|(value, g)| {
                    *value += (step / squares.sqrt() * f64::from(*g)) as f32;
                });
            }
            total(&moved)
        };
        let step = 2e-3;
        let slope = (along(step) - along(-step)) / (2.0 * step);
        assert!(
            (slope / squares.sqrt() - 1.0).abs() < 1e-2,
            "{kind}: {slope} for {}",
            squares.sqrt()
        );
    }
}

#[test]
fn gradients_do_not_depend_on_threads() {
    let golden = golden("untied-gated-silu");
    let (network, batch) = (golden.network(), golden.batch());
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            network
                .gradients(&golden.parameters, &batch, Some(Dropout::new(0.1, 1)))
                .unwrap()
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3));
    assert_eq!(Packed::default().len(), 0);
}

fn assert_near(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-30f32, |m, v| m.max(v.abs()));
    let error = got
        .iter()
        .zip(expected)
        .map(|(g, e)| (g - e).abs())
        .fold(0.0, f32::max)
        / largest;
    assert!(
        error <= tolerance,
        "{what}: {error:.1e} of the largest magnitude {largest}"
    );
}
