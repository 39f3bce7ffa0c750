//! A head learns: proteins one at a time, gradients of a group put together, one step of AdamW a group; after every epoch the validation set, and the best
//! epoch is kept.
//!
//! The proteins of a group run on several threads; their gradients are added in order, so that the numbers do not depend on threads.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use thiserror::Error;

use super::head::Head;
use super::loss::{Target, loss};
use super::parameters::{Parameters, stream};
use super::settings::Settings;

/// Why a head does not learn.
#[derive(Debug, Error)]
pub enum TrainError {
    /// An embedding is not to be had.
    #[error("{0}")]
    Features(Box<dyn std::error::Error + Send + Sync>),
    /// The network failed.
    #[error(transparent)]
    Model(#[from] candle_core::Error),
    /// The loss is NaN or infinite.
    #[error(
        "the loss of protein {0} (counted from 1) is not finite; are its embedding and label numbers? Else try a lower --learning-rate"
    )]
    NotFinite(usize),
    /// There is nothing to learn from.
    #[error("none of the training proteins has a label that counts")]
    NoLabels,
}

/// Embeddings of numbered proteins, `(length, width)` row-major; read whenever they are needed.
pub trait Features: Sync {
    /// Values in a row.
    fn width(&self) -> usize;

    /// The rows of protein `number`.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn rows(
        &self,
        number: usize,
    ) -> std::result::Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>>;
}

/// The rows of a protein as a tensor `(length, width)`.
///
/// # Errors
/// Embeddings that cannot be read.
pub fn tensor(
    features: &dyn Features,
    number: usize,
    device: &Device,
) -> std::result::Result<Tensor, TrainError> {
    let rows = features.rows(number).map_err(TrainError::Features)?;
    let shape = (rows.len() / features.width(), features.width());
    Ok(Tensor::from_vec(rows, shape, device)?)
}

/// A head, its weights, and how it learns.
pub struct Trainer<'a> {
    /// Over [`Trainer::parameters`].
    pub head: &'a Head,
    /// What is moved.
    pub parameters: &'a Parameters,
    /// How.
    pub settings: &'a Settings,
    /// Where.
    pub device: &'a Device,
}

/// One epoch as it was.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Mean over the proteins with labels.
    pub loss: f64,
    /// The validation set's measure, higher is better; none without such a set.
    pub validation: Option<f64>,
}

/// Of several proteins.
struct Gradients {
    sums: Vec<Option<Tensor>>,
    loss: f64,
    counted: usize,
}

impl Trainer<'_> {
    /// Learns from `targets`, one a protein of `features`; `judge` measures the head after each epoch. Leaves the best epoch's weights in place and
    /// tells how all epochs were.
    ///
    /// # Errors
    /// Embeddings that cannot be read, a loss that is not finite, or the network's failure.
    pub fn run(
        &self,
        features: &dyn Features,
        targets: &[Target],
        mut judge: impl FnMut(&Head) -> std::result::Result<Option<f64>, TrainError>,
        mut tell: impl FnMut(&Epoch),
    ) -> std::result::Result<Vec<Epoch>, TrainError> {
        let variables = self.parameters.variables();
        let steps = self.settings.steps_per_epoch(targets.len()) * self.settings.epochs;
        let mut optimizer = AdamW::new(
            variables.clone(),
            ParamsAdamW {
                weight_decay: 0.0,
                ..ParamsAdamW::default()
            },
        )?;
        let mut epochs: Vec<Epoch> = Vec::new();
        let mut best: Option<(f64, BTreeMap<String, Tensor>)> = None;
        let mut step = 0;
        for epoch in 1..=self.settings.epochs {
            let mut order: Vec<usize> = (0..targets.len()).collect();
            order.shuffle(&mut stream(self.settings.seed, &format!("order {epoch}")));
            let (mut total, mut counted) = (0.0, 0);
            for group in order.chunks(self.settings.accumulation.max(1)) {
                optimizer.set_learning_rate(self.settings.rate(step, steps));
                let gradients = self.gradients(features, targets, group, (epoch, &variables))?;
                total += gradients.loss;
                counted += gradients.counted;
                if gradients.counted > 0 {
                    optimizer.step(&self.mean(&gradients, &variables)?)?;
                }
                step += 1;
            }
            if counted == 0 {
                return Err(TrainError::NoLabels);
            }
            let validation = judge(self.head)?;
            let done = Epoch {
                epoch,
                loss: total / counted as f64,
                validation,
            };
            tell(&done);
            epochs.push(done);
            if let Some(value) = validation
                && best.as_ref().is_none_or(|(best, _)| value > *best)
            {
                best = Some((value, self.parameters.snapshot()?));
            }
        }
        if let Some((_, weights)) = best {
            self.parameters.restore(&weights)?;
        }
        Ok(epochs)
    }

    /// The gradients of a group, added in order.
    fn gradients(
        &self,
        features: &dyn Features,
        targets: &[Target],
        group: &[usize],
        (epoch, variables): (usize, &[Var]),
    ) -> std::result::Result<Gradients, TrainError> {
        let one = |number: &usize| {
            let number = *number;
            let key = self.settings.seed
                ^ (((epoch as u64) << 40) + number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let rows = tensor(features, number, self.device)?;
            let output = self.head.forward(&rows, Some(key))?;
            let Some(loss) = loss(&output, &targets[number])? else {
                return Ok(None);
            };
            let value = f64::from(loss.to_scalar::<f32>()?);
            if !value.is_finite() {
                return Err(TrainError::NotFinite(number + 1));
            }
            let gradients = loss.backward()?;
            let each = variables
                .iter()
                .map(|variable| gradients.get(variable).cloned());
            Ok(Some((value, each.collect::<Vec<_>>())))
        };
        let results: Vec<_> = if self.device.is_cpu() {
            group.par_iter().map(one).collect()
        } else {
            group.iter().map(one).collect()
        };
        let mut sum = Gradients {
            sums: vec![None; variables.len()],
            loss: 0.0,
            counted: 0,
        };
        for result in results {
            let Some((value, gradients)) = result? else {
                continue;
            };
            sum.loss += value;
            sum.counted += 1;
            for (sum, gradient) in sum.sums.iter_mut().zip(gradients) {
                *sum = match (sum.take(), gradient) {
                    (Some(sum), Some(gradient)) => Some((sum + gradient)?),
                    (sum, gradient) => sum.or(gradient),
                };
            }
        }
        Ok(sum)
    }

    /// The mean over proteins, its norm kept within bounds.
    fn mean(&self, gradients: &Gradients, variables: &[Var]) -> Result<GradStore> {
        let mut squares = 0.0;
        for gradient in gradients.sums.iter().flatten() {
            squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let mut scale = 1.0 / gradients.counted as f64;
        let norm = squares.sqrt() * scale;
        if self.settings.clip_norm > 0.0 && norm > self.settings.clip_norm {
            scale *= self.settings.clip_norm / norm;
        }
        let mut store = GradStore::default();
        for (variable, gradient) in variables.iter().zip(&gradients.sums) {
            if let Some(gradient) = gradient {
                store.insert(variable, (gradient * scale)?.detach());
            }
        }
        Ok(store)
    }
}
