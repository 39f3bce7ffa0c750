//! Trains a head: one protein at a time, the gradients of a group averaged, one step of AdamW per
//! group; after every epoch the validation set is evaluated, and the weights of the best epoch are
//! kept.
//!
//! The proteins of a group run on several threads; their gradients are added in order, so that the
//! numbers do not depend on threads.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::error::ProbeError;
use super::features::Features;
use super::head::{Head, HeadShape};
use super::loss::{Label, loss};
use super::settings::FitSettings;
use super::weights::{HeadWeights, stream};
use crate::sequence::counted;

/// Training proteins: their rows, and one label per protein.
#[derive(Debug)]
pub struct Examples<'a> {
    /// The rows of each protein.
    pub features: Features<'a>,
    /// The label of each protein.
    pub labels: &'a [Label],
}

/// A head, and how to train it.
#[derive(Clone, Debug)]
pub struct FitPlan {
    /// The form of the head.
    pub shape: HeadShape,
    /// How the head is trained.
    pub settings: FitSettings,
    /// Where the head runs.
    pub device: Device,
    /// The name of the measure that decides between epochs, for the log.
    pub measure: &'static str,
}

/// Measures a head on the validation set; higher is better, none where nothing can be measured.
pub type Judge<'a> = dyn Fn(&Head) -> Result<Option<f64>, ProbeError> + 'a;

/// A trained head.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The head with the weights of the best epoch; of the last epoch where no validation set
    /// decides.
    pub head: Head,
    /// The weights of the head.
    pub weights: HeadWeights,
    /// How every epoch went.
    pub epochs: Vec<Epoch>,
}

/// How one epoch went.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Epoch {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean loss of the proteins with labels.
    pub loss: f64,
    /// The measure on the validation set; none without such a set.
    pub validation: Option<f64>,
}

/// Trains a head from weights that are drawn at random.
///
/// # Errors
/// A shape that cannot be, embeddings that cannot be read, a loss that is not finite, or labels
/// that never count.
pub fn fit(
    plan: &FitPlan,
    examples: &Examples<'_>,
    judge: Option<&Judge<'_>>,
) -> Result<Fitted, ProbeError> {
    plan.shape.check()?;
    let specs = plan.shape.specs(mean_number(examples.labels));
    let weights = HeadWeights::drawn(&specs, plan.settings.seed, &plan.device)?;
    let head = Head::new(plan.shape, &weights)?;
    tracing::info!(
        "training a head of {} weights on {}",
        weights.count(),
        counted(examples.labels.len(), "protein")
    );
    if judge.is_none() {
        tracing::warn!("no validation set: the last epoch is kept; add --valid");
    }
    let trainer = HeadTrainer {
        plan,
        head: &head,
        weights: &weights,
        variables: weights.variables(),
    };
    let epochs = trainer.run(examples, judge)?;
    Ok(Fitted {
        head,
        weights,
        epochs,
    })
}

/// The mean of the numbers among the labels, 0 without any.
fn mean_number(labels: &[Label]) -> f64 {
    let numbers = labels.iter().filter_map(|label| match label {
        Label::Value(value) => Some(*value),
        _ => None,
    });
    let numbers: Vec<f64> = numbers.collect();
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

/// A run of training.
struct HeadTrainer<'a> {
    plan: &'a FitPlan,
    head: &'a Head,
    weights: &'a HeadWeights,
    variables: Vec<Var>,
}

/// The sum of the gradients of several proteins, one per variable, and of their losses.
struct GradientSum {
    gradients: Vec<Option<Tensor>>,
    loss: f64,
    proteins: usize,
}

/// The loss of one protein and its gradients, one per variable.
struct ProteinGradient {
    loss: f64,
    gradients: Vec<Option<Tensor>>,
}

impl HeadTrainer<'_> {
    /// All epochs; leaves the weights of the best one in place.
    fn run(
        &self,
        examples: &Examples<'_>,
        judge: Option<&Judge<'_>>,
    ) -> Result<Vec<Epoch>, ProbeError> {
        let parameters = ParamsAdamW {
            weight_decay: 0.0,
            ..ParamsAdamW::default()
        };
        let mut optimizer = AdamW::new(self.variables.clone(), parameters)?;
        let mut epochs: Vec<Epoch> = Vec::new();
        let mut best: Option<(f64, BTreeMap<String, Tensor>)> = None;
        for number in 1..=self.plan.settings.epochs {
            let loss = self.epoch(number, examples, &mut optimizer)?;
            let validation = judge.map_or(Ok(None), |judge| judge(self.head))?;
            let epoch = Epoch {
                epoch: number,
                loss,
                validation,
            };
            self.log(&epoch);
            epochs.push(epoch);
            if let Some(value) = validation
                && best.as_ref().is_none_or(|(best, _)| value > *best)
            {
                best = Some((value, self.weights.snapshot()?));
            }
        }
        if let Some((_, weights)) = best {
            self.weights.restore(&weights)?;
        }
        Ok(epochs)
    }

    /// One epoch, in an order that the seed decides; the mean loss of the proteins with labels.
    fn epoch(
        &self,
        number: usize,
        examples: &Examples<'_>,
        optimizer: &mut AdamW,
    ) -> Result<f64, ProbeError> {
        let settings = &self.plan.settings;
        let per_epoch = settings.steps_per_epoch(examples.labels.len());
        let mut order: Vec<usize> = (0..examples.labels.len()).collect();
        order.shuffle(&mut stream(settings.seed, &format!("order {number}")));
        let (mut total, mut proteins) = (0.0, 0);
        for (group, step) in order
            .chunks(settings.accumulation.max(1))
            .zip((number - 1) * per_epoch..)
        {
            optimizer.set_learning_rate(settings.rate(step, per_epoch * settings.epochs));
            let sum = self.gradients(number, examples, group)?;
            total += sum.loss;
            proteins += sum.proteins;
            if sum.proteins > 0 {
                optimizer.step(&self.mean(&sum)?)?;
            }
        }
        if proteins == 0 {
            return Err(ProbeError::NoLabels);
        }
        Ok(total / proteins as f64)
    }

    fn log(&self, epoch: &Epoch) {
        let Epoch {
            epoch,
            loss,
            validation,
        } = epoch;
        let validation = validation.map_or(String::new(), |value| {
            format!(", validation {} {value:.4}", self.plan.measure)
        });
        tracing::info!("epoch {epoch}: loss {loss:.4}{validation}");
    }

    /// The gradients of a group, added in order.
    fn gradients(
        &self,
        epoch: usize,
        examples: &Examples<'_>,
        group: &[usize],
    ) -> Result<GradientSum, ProbeError> {
        let one = |number: &usize| self.gradient(epoch, examples, *number);
        let each: Vec<_> = if self.plan.device.is_cpu() {
            group.par_iter().map(one).collect()
        } else {
            group.iter().map(one).collect()
        };
        let mut sum = GradientSum {
            gradients: vec![None; self.variables.len()],
            loss: 0.0,
            proteins: 0,
        };
        for protein in each {
            if let Some(protein) = protein? {
                sum.add(protein)?;
            }
        }
        Ok(sum)
    }

    /// The gradients of one protein; none where nothing has a label.
    fn gradient(
        &self,
        epoch: usize,
        examples: &Examples<'_>,
        number: usize,
    ) -> Result<Option<ProteinGradient>, ProbeError> {
        let key = self.plan.settings.seed
            ^ (((epoch as u64) << 40) + number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let rows = examples.features.tensor(number, &self.plan.device)?;
        let output = self.head.forward(&rows, Some(key))?;
        let Some(loss) = loss(&output, &examples.labels[number])? else {
            return Ok(None);
        };
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Err(ProbeError::LossNotFinite(number + 1));
        }
        let store = loss.backward()?;
        let each = self.variables.iter();
        Ok(Some(ProteinGradient {
            loss: value,
            gradients: each.map(|variable| store.get(variable).cloned()).collect(),
        }))
    }

    /// The mean over proteins, scaled down to the largest norm allowed.
    fn mean(&self, sum: &GradientSum) -> candle_core::Result<GradStore> {
        let mut squares = 0.0;
        for gradient in sum.gradients.iter().flatten() {
            squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let mut scale = 1.0 / sum.proteins as f64;
        let norm = squares.sqrt() * scale;
        let clip_norm = self.plan.settings.clip_norm;
        if clip_norm > 0.0 && norm > clip_norm {
            scale *= clip_norm / norm;
        }
        let mut store = GradStore::default();
        for (variable, gradient) in self.variables.iter().zip(&sum.gradients) {
            if let Some(gradient) = gradient {
                store.insert(variable, (gradient * scale)?.detach());
            }
        }
        Ok(store)
    }
}

impl GradientSum {
    fn add(&mut self, protein: ProteinGradient) -> candle_core::Result<()> {
        self.loss += protein.loss;
        self.proteins += 1;
        for (sum, gradient) in self.gradients.iter_mut().zip(protein.gradients) {
            *sum = match (sum.take(), gradient) {
                (Some(sum), Some(gradient)) => Some((sum + gradient)?),
                (sum, gradient) => sum.or(gradient),
            };
        }
        Ok(())
    }
}
