//! The optimizers AdamW and Adafactor over f32 master weights.
//!
//! - **AdamW** (arXiv 1711.05101) with the update multiplied by the weight's root mean square, at
//!   least 1e-3: without this factor AdamW diverges on T5 (`AdamWScale` of nanoT5, arXiv
//!   2309.02373).
//! - **Adafactor** (arXiv 1804.04235, algorithm 4) as T5 was trained: second moments of matrices as
//!   row and column means, decay `1 − t^-0.8`, updates clipped at a root mean square of 1, steps
//!   relative to the root mean square of the weight. Equals Hugging Face's
//!   `Adafactor(relative_step=False)` without a first moment.
//!
//! Weight decay is decoupled: before the update, a weight loses the share learning rate · decay of
//! itself. Adafactor's learning rate is here, too, the one relative to the weight's root mean
//! square. Norms and biases do not decay, as in Hugging Face's Trainer. The golden is
//! `tests/golden/optimizers.json`.
//!
//! Sums are computed in chunks of a fixed size and added in order, so they do not depend on the
//! number of threads.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::network::WeightGradients;
use super::variables::{ModelParameters, Parameter};

/// Values per partial sum.
const CHUNK: usize = 1 << 14;
/// The lower bound of a weight's root mean square.
const LEAST_RMS: f64 = 1e-3;

/// The optimizer's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW, by default scaled by the weight's root mean square.
    AdamW,
    /// Adafactor.
    Adafactor,
}

/// The optimizer's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// The rule.
    pub kind: OptimizerKind,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// Decay of AdamW's first moment.
    pub beta1: f64,
    /// Decay of AdamW's second moment.
    pub beta2: f64,
    /// AdamW's ε.
    pub epsilon: f64,
    /// Decoupled weight decay, times the learning rate; not of norms and biases.
    pub weight_decay: f64,
    /// Whether AdamW's updates are scaled by the weight's root mean square.
    pub scale_by_rms: bool,
    /// Gradients are scaled down to this norm; 0 disables clipping.
    pub clip_norm: f64,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            learning_rate: 0.01,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.0,
            scale_by_rms: true,
            clip_norm: 1.0,
        }
    }
}

/// The moments of each weight: two of AdamW; of Adafactor row and column means of a matrix, or one
/// second moment.
pub type Moments = BTreeMap<String, Vec<Vec<f32>>>;

/// The sum of `f` over all values, in an order that does not depend on the number of threads.
fn sum(values: &[f32], f: impl Fn(f64) -> f64 + Sync) -> f64 {
    let partial: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| chunk_sum(chunk, &f))
        .collect();
    partial.iter().sum()
}

/// Eight independent sums, so that no addition waits for the one before.
fn chunk_sum(chunk: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let (eights, rest) = chunk.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        for (sum, value) in sums.iter_mut().zip(eight) {
            *sum += f(f64::from(*value));
        }
    }
    let rest = rest.iter().map(|value| f(f64::from(*value)));
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}

fn rms(values: &[f32]) -> f64 {
    (sum(values, |value| value * value) / values.len().max(1) as f64).sqrt()
}

/// The norm of all gradients together.
pub fn global_norm(gradients: &WeightGradients) -> f64 {
    let squares = gradients.values().map(|values| sum(values, |g| g * g));
    squares.sum::<f64>().sqrt()
}

/// Whether weight decay applies to this weight, by the patterns of Hugging Face's
/// `Trainer.get_decay_parameter_names`.
fn is_decayed(name: &str) -> bool {
    !name.contains("bias") && !name.contains("_norm.")
}

/// One step of an optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The optimizer's settings.
    pub settings: &'a OptimizerSettings,
    /// The learning rate of this step.
    pub rate: f64,
    /// The number of the step; the first step is 1.
    pub step: u64,
    /// The factor of all gradients.
    pub scale: f64,
}

impl Update<'_> {
    /// Moves every weight.
    pub fn apply(
        &self,
        parameters: &mut ModelParameters,
        gradients: &WeightGradients,
        moments: &mut Moments,
    ) {
        for (name, parameter) in parameters {
            let moments = moments.entry(name.clone()).or_default();
            // The factor of the learning rate, by the weight before this step.
            let relative = match self.settings.kind {
                OptimizerKind::AdamW => 1.0,
                OptimizerKind::Adafactor => rms(&parameter.values).max(LEAST_RMS),
            };
            if is_decayed(name) {
                self.decay(parameter, self.rate * relative);
            }
            match self.settings.kind {
                OptimizerKind::AdamW => self.adamw(parameter, &gradients[name], moments),
                OptimizerKind::Adafactor => {
                    let rate = self.rate * relative;
                    self.adafactor(parameter, &gradients[name], moments, rate);
                }
            }
        }
    }

    fn decay(&self, parameter: &mut Parameter, rate: f64) {
        let kept = (1.0 - rate * self.settings.weight_decay) as f32;
        if kept != 1.0 {
            parameter
                .values
                .par_iter_mut()
                .for_each(|value| *value *= kept);
        }
    }

    fn adamw(&self, parameter: &mut Parameter, gradient: &[f32], moments: &mut Vec<Vec<f32>>) {
        let OptimizerSettings {
            beta1,
            beta2,
            epsilon,
            scale_by_rms,
            ..
        } = *self.settings;
        moments.resize_with(2, || vec![0.0; gradient.len()]);
        let [first, second] = &mut moments[..] else {
            unreachable!("just sized")
        };
        let size = if scale_by_rms {
            rms(&parameter.values).max(LEAST_RMS)
        } else {
            1.0
        };
        let exponent = i32::try_from(self.step).unwrap_or(i32::MAX);
        let (correct1, correct2) = (1.0 - beta1.powi(exponent), 1.0 - beta2.powi(exponent));
        let rate = (self.rate * size / correct1) as f32;
        let (inverse2, scale) = ((1.0 / correct2) as f32, self.scale as f32);
        // 1 − β is rounded after the subtraction: with β = 0.999 in f32 its fifth digit would be
        // wrong.
        let (rest1, rest2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
        let (beta1, beta2, epsilon) = (beta1 as f32, beta2 as f32, epsilon as f32);
        parameter
            .values
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(
                first
                    .par_chunks_mut(CHUNK)
                    .zip(second.par_chunks_mut(CHUNK)),
            )
            .for_each(|((values, gradient), (first, second))| {
                let moments = first.iter_mut().zip(second);
                for ((value, g), (m, v)) in values.iter_mut().zip(gradient).zip(moments) {
                    let g = g * scale;
                    *m = beta1 * *m + rest1 * g;
                    *v = beta2 * *v + rest2 * g * g;
                    *value -= rate * *m / ((*v * inverse2).sqrt() + epsilon);
                }
            });
    }

    /// A step with a learning rate that is relative to the weight's root mean square.
    fn adafactor(
        &self,
        parameter: &mut Parameter,
        gradient: &[f32],
        moments: &mut Vec<Vec<f32>>,
        rate: f64,
    ) {
        let update = if let [rows, columns] = parameter.shape[..] {
            if moments.is_empty() {
                *moments = vec![vec![0.0; rows], vec![0.0; columns]];
            }
            self.adafactor_of_matrix(gradient, moments)
        } else {
            moments.resize_with(1, || vec![0.0; gradient.len()]);
            self.adafactor_of_vector(gradient, &mut moments[0])
        };
        let clip = rms(&update).max(1.0);
        let rate = (rate / clip) as f32;
        let pairs = parameter.values.iter_mut().zip(update);
        pairs.for_each(|(value, u)| *value -= u * rate);
    }

    /// Adafactor's decay of second moments in this step, and one minus the decay.
    fn adafactor_decay(&self) -> (f32, f32) {
        let rest = (self.step as f64).powf(-0.8);
        ((1.0 - rest) as f32, rest as f32)
    }

    fn squared(&self, gradient: f32) -> f32 {
        let scaled = gradient * self.scale as f32;
        scaled * scaled + 1e-30
    }

    /// The update by the means of rows and columns, `moments[0]` and `moments[1]`.
    fn adafactor_of_matrix(&self, gradient: &[f32], moments: &mut [Vec<f32>]) -> Vec<f32> {
        let (rows, columns) = (moments[0].len(), moments[1].len());
        let (beta, rest) = self.adafactor_decay();
        let mut column_sums = vec![0.0f32; columns];
        for (row, values) in gradient.chunks_exact(columns).enumerate() {
            let mut total = 0.0;
            for (sum, g) in column_sums.iter_mut().zip(values) {
                *sum += self.squared(*g);
                total += self.squared(*g);
            }
            let mean = &mut moments[0][row];
            *mean = beta * *mean + rest * total / columns as f32;
        }
        for (mean, sum) in moments[1].iter_mut().zip(column_sums) {
            *mean = beta * *mean + rest * sum / rows as f32;
        }
        let mean = moments[0].iter().sum::<f32>() / rows as f32;
        let (row_means, column_means) = (&moments[0], &moments[1]);
        let update = |(i, g): (usize, &f32)| {
            let moment = row_means[i / columns] / mean * column_means[i % columns];
            g * self.scale as f32 / moment.sqrt()
        };
        gradient.iter().enumerate().map(update).collect()
    }

    fn adafactor_of_vector(&self, gradient: &[f32], moment: &mut [f32]) -> Vec<f32> {
        let (beta, rest) = self.adafactor_decay();
        let pairs = gradient.iter().zip(moment);
        pairs
            .map(|(g, v)| {
                *v = beta * *v + rest * self.squared(*g);
                g * self.scale as f32 / v.sqrt()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(values: &[f32], shape: &[usize]) -> ModelParameters {
        let parameter = Parameter {
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        ModelParameters::from([("w".to_owned(), parameter)])
    }

    fn gradients(values: &[f32]) -> WeightGradients {
        WeightGradients::from([("w".to_owned(), values.to_vec())])
    }

    fn run(
        settings: &OptimizerSettings,
        values: &[f32],
        shape: &[usize],
        gradients_: &[&[f32]],
    ) -> Vec<f32> {
        let (mut parameters, mut moments) = (parameters(values, shape), Moments::new());
        for (i, gradient) in gradients_.iter().enumerate() {
            let update = Update {
                settings,
                rate: settings.learning_rate,
                step: i as u64 + 1,
                scale: 1.0,
            };
            update.apply(&mut parameters, &gradients(gradient), &mut moments);
        }
        parameters.remove("w").unwrap().values
    }

    fn close(got: &[f32], expected: &[f32]) {
        for (g, e) in got.iter().zip(expected) {
            assert!(
                (g - e).abs() <= 1e-6 * e.abs().max(1e-3),
                "{got:?} for {expected:?}"
            );
        }
    }

    const W: [f32; 4] = [0.5, -1.0, 2.0, 0.25];
    const G1: [f32; 4] = [0.1, -0.2, 0.3, 0.0];
    const G2: [f32; 4] = [-0.3, 0.1, 0.2, 0.05];

    #[test]
    fn adamw_equals_pytorch() {
        let settings = OptimizerSettings {
            learning_rate: 0.1,
            beta2: 0.999,
            weight_decay: 0.01,
            scale_by_rms: false,
            ..OptimizerSettings::default()
        };
        // torch.optim.AdamW(lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01), two steps.
        close(&run(&settings, &W, &[4], &[&G1, &G2]), &ADAMW);
    }

    #[test]
    fn adamw_is_scaled_by_the_size_of_the_weight() {
        let plain = OptimizerSettings {
            learning_rate: 0.1,
            scale_by_rms: false,
            ..OptimizerSettings::default()
        };
        let scaled = OptimizerSettings {
            scale_by_rms: true,
            ..plain.clone()
        };
        let (a, b) = (
            run(&plain, &W, &[4], &[&G1]),
            run(&scaled, &W, &[4], &[&G1]),
        );
        let size = (W.iter().map(|w| w * w).sum::<f32>() / 4.0).sqrt();
        for i in 0..4 {
            assert!(((b[i] - W[i]) - (a[i] - W[i]) * size).abs() < 1e-6);
        }
        // A weight of zeros moves too.
        assert!(run(&scaled, &[0.0; 4], &[4], &[&G1])[0] < 0.0);
    }

    #[test]
    fn adafactor_equals_hugging_face() {
        let settings = OptimizerSettings {
            kind: OptimizerKind::Adafactor,
            learning_rate: 0.1,
            ..OptimizerSettings::default()
        };
        // transformers.optimization.Adafactor(lr=0.1, scale_parameter=True, relative_step=False,
        // warmup_init=False), two steps.
        close(&run(&settings, &W, &[4], &[&G1, &G2]), &ADAFACTOR_VECTOR);
        close(&run(&settings, &W, &[2, 2], &[&G1, &G2]), &ADAFACTOR_MATRIX);
    }

    #[test]
    fn weights_decay_as_in_the_references() {
        use serde_json::Value;
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/optimizers.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
        let values = |list: &Value| -> Vec<f32> {
            let list = list.as_array().unwrap().iter();
            list.map(|value| value.as_f64().unwrap() as f32).collect()
        };
        let shape = |list: &Value| -> Vec<usize> {
            let list = list.as_array().unwrap().iter();
            list.map(|size| size.as_u64().unwrap() as usize).collect()
        };
        for run in golden["runs"].as_array().unwrap() {
            let settings = OptimizerSettings {
                kind: serde_json::from_value(run["kind"].clone()).unwrap(),
                learning_rate: 0.1,
                weight_decay: run["weight_decay"].as_f64().unwrap(),
                scale_by_rms: false,
                ..OptimizerSettings::default()
            };
            let mut parameters = ModelParameters::new();
            for (name, initial) in golden["initial"].as_object().unwrap() {
                let parameter = Parameter {
                    shape: shape(&golden["shapes"][name]),
                    values: values(initial),
                };
                parameters.insert(name.clone(), parameter);
            }
            let mut moments = Moments::new();
            for (step, gradients) in (1..).zip(golden["gradients"].as_array().unwrap()) {
                let gradients = gradients.as_object().unwrap().iter();
                let gradients = gradients.map(|(name, list)| (name.clone(), values(list)));
                let update = Update {
                    settings: &settings,
                    rate: settings.learning_rate,
                    step,
                    scale: 1.0,
                };
                update.apply(&mut parameters, &gradients.collect(), &mut moments);
            }
            for (name, parameter) in &parameters {
                let expected = values(&run["weights"][name]);
                for (got, expected) in parameter.values.iter().zip(&expected) {
                    assert!(
                        (got - expected).abs() < 2e-6,
                        "{name}: {got} for {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn norms() {
        assert!((global_norm(&gradients(&[3.0, 4.0])) - 5.0).abs() < 1e-12);
        let many: Vec<f32> = (0..100_000).map(|i| (i % 7) as f32).collect();
        let pool = |n| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(n)
                .build()
                .unwrap()
        };
        let norm = |n| pool(n).install(|| global_norm(&gradients(&many)).to_bits());
        assert_eq!(norm(1), norm(3));
    }

    const ADAMW: [f32; 4] = [0.448_519_5, -0.871_467_35, 1.799_066_9, 0.175_086_59];
    const ADAFACTOR_VECTOR: [f32; 4] = [0.513_064, -0.951_797_9, 1.803_024_6, 0.116_513_42];
    const ADAFACTOR_MATRIX: [f32; 4] = [0.565_952_06, -0.908_433_4, 1.778_858_8, 0.199_221_63];
}
