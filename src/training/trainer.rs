//! The state of a run and one training step: the gradients of several micro-batches are summed,
//! clipped and applied, or skipped where they are not finite.

use std::collections::BTreeMap;

use candle_core::Result;
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::network::{Network, WeightGradients};
use super::optimizer::{Moments, Update, global_norm};
use super::order::{Position, Purpose, stream};
use super::recipe::Recipe;
use super::step::Accumulator;
use super::variables::ModelParameters;
use crate::kernels::dropout::Dropout;

/// The state of a run beside its weights and moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Completed steps, including skipped ones.
    pub step: u64,
    /// The position in the data.
    pub position: Position,
    /// Tokens seen, of encoder and decoder.
    pub tokens: u64,
    /// Steps whose loss or gradient was not finite.
    pub skipped: u64,
    /// Skipped steps since the last applied step.
    pub skipped_in_a_row: u64,
}

/// A training run.
pub struct Pretrainer<'a> {
    /// The network and its device.
    pub network: Network<'a>,
    /// The settings of the run.
    pub recipe: &'a Recipe,
    /// The master weights.
    pub parameters: ModelParameters,
    /// The optimizer's moments.
    pub moments: Moments,
    /// The progress of the run.
    pub state: State,
    /// The gradients of the current step.
    pub accumulator: Accumulator,
}

/// The results of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The number of the step; the first step is 1.
    pub step: u64,
    /// Mean loss per label.
    pub loss: f64,
    /// Norm of the gradient of that mean, before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub rate: f64,
    /// Tokens of encoder and decoder.
    pub tokens: usize,
    /// Number of labels.
    pub labels: usize,
    /// Mean loss per label, by objective.
    pub by_task: BTreeMap<String, f64>,
    /// Why the step was skipped, else empty: the weights whose gradient is not finite, and `loss`
    /// where the loss is not.
    pub not_finite: Vec<String>,
}

impl Pretrainer<'_> {
    /// The losses of the batches; the accumulator sums their gradients.
    fn accumulate(&mut self, batches: &[Batch], dropout: f64) -> Result<Losses> {
        let (network, parameters) = (&self.network, &self.parameters);
        self.accumulator.begin(network, parameters)?;
        let mut losses = Losses::default();
        for (number, batch) in batches.iter().enumerate() {
            let purpose = Purpose::Dropout(number as u32);
            let key = stream(self.recipe.seed, self.state.step, purpose).random();
            let dropout = (dropout > 0.0).then(|| Dropout::new(dropout, key));
            losses.add(
                batch,
                &self.accumulator.add(network, parameters, batch, dropout)?,
            );
        }
        Ok(losses)
    }

    /// Runs one step on its micro-batches.
    ///
    /// # Errors
    /// Batches that do not fit the network.
    pub fn step(&mut self, batches: &[Batch]) -> Result<StepReport> {
        let losses = self.accumulate(batches, self.recipe.dropout)?;
        let gradients = &self.accumulator.sums;
        let labels = losses.labels.max(1) as f64;
        let norm = global_norm(gradients) / labels;
        let settings = &self.recipe.optimizer;
        let factor = self
            .recipe
            .schedule
            .factor(self.state.step, self.recipe.steps);
        let rate = settings.learning_rate * factor;
        let not_finite = not_finite(losses.sum, norm, gradients);
        self.state.step += 1;
        self.state.tokens += losses.tokens as u64;
        if not_finite.is_empty() {
            let clip = if settings.clip_norm > 0.0 {
                (settings.clip_norm / norm).min(1.0)
            } else {
                1.0
            };
            let step = self.state.step - self.state.skipped;
            let update = Update {
                settings,
                rate,
                step,
                scale: clip / labels,
            };
            update.apply(&mut self.parameters, gradients, &mut self.moments);
            self.state.skipped_in_a_row = 0;
        } else {
            self.state.skipped += 1;
            self.state.skipped_in_a_row += 1;
        }
        Ok(StepReport {
            step: self.state.step,
            loss: losses.sum / labels,
            gradient_norm: norm,
            rate,
            tokens: losses.tokens,
            labels: losses.labels,
            by_task: losses.means(),
            not_finite,
        })
    }

    /// Weights whose gradient from these batches, without dropout, is zero or not finite: such
    /// weights would never learn.
    ///
    /// # Errors
    /// Batches that do not fit the network.
    pub fn dead_weights(&mut self, batches: &[Batch]) -> Result<Vec<String>> {
        self.accumulate(batches, 0.0)?;
        let dead = |gradient: &[f32]| {
            gradient.iter().all(|g| *g == 0.0) || gradient.iter().any(|g| !g.is_finite())
        };
        let gradients = self.accumulator.sums.iter();
        let dead = gradients.filter(|(_, gradient)| dead(gradient));
        Ok(dead.map(|(name, _)| name.clone()).collect())
    }
}

/// The sums of a step's losses.
#[derive(Default)]
struct Losses {
    sum: f64,
    labels: usize,
    tokens: usize,
    by_task: BTreeMap<String, (f64, usize)>,
}

impl Losses {
    fn add(&mut self, batch: &Batch, losses: &[f32]) {
        for (task, rows) in batch.tasks.iter().zip(batch.target.segments()) {
            let sum: f64 = losses[rows.clone()]
                .iter()
                .map(|loss| f64::from(*loss))
                .sum();
            let entry = self.by_task.entry(task.to_string()).or_default();
            *entry = (entry.0 + sum, entry.1 + rows.len());
            self.sum += sum;
        }
        self.labels += losses.len();
        self.tokens += batch.tokens();
    }

    fn means(&self) -> BTreeMap<String, f64> {
        let means = self
            .by_task
            .iter()
            .map(|(task, (sum, count))| (task.clone(), sum / *count as f64));
        means.collect()
    }
}

/// The names of weights whose gradient is not finite, and `loss`. Gradients are searched only where
/// their norm is not finite.
fn not_finite(loss: f64, norm: f64, gradients: &WeightGradients) -> Vec<String> {
    let bad = gradients
        .iter()
        .filter(|(_, g)| !norm.is_finite() && g.par_iter().any(|g| !g.is_finite()));
    let loss = (!loss.is_finite()).then(|| "loss".to_owned());
    loss.into_iter()
        .chain(bad.map(|(name, _)| name.clone()))
        .collect()
}
