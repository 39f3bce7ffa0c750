//! The loss of a batch and its gradients. Must equal Hugging Face's
//! `T5ForConditionalGeneration(labels=…).loss` and PyTorch's gradients of it, as
//! `tests/it/gradients.rs` checks.

use candle_core::Result;
use rayon::prelude::*;

use super::backprop::Backprop;
use super::batch::Batch;
use super::network::{Activations, Network, WeightGradients, flat};
use super::recompute;
use super::variables::{ModelParameters, Variables};
use crate::kernels::cross_entropy::cross_entropy;
use crate::kernels::dropout::Dropout;

/// Values given to one thread at a time.
const CHUNK: usize = 1 << 14;

impl Network<'_> {
    /// The loss of every label, and the gradient of the sum of losses with respect to every weight.
    ///
    /// # Errors
    /// Weights or tokens that do not fit the shape.
    pub fn gradients(
        &self,
        parameters: &ModelParameters,
        batch: &Batch,
        dropout: Option<Dropout>,
    ) -> Result<(Vec<f32>, WeightGradients)> {
        let mut accumulator = Accumulator::default();
        accumulator.begin(self, parameters)?;
        let losses = accumulator.add(self, parameters, batch, dropout)?;
        Ok((losses, accumulator.sums))
    }

    /// [`Network::gradients`] by candle's tape: used on a GPU, and on a CPU as the reference of
    /// `backprop`.
    ///
    /// # Errors
    /// Weights or tokens that do not fit the shape.
    pub fn taped(
        &self,
        parameters: &ModelParameters,
        batch: &Batch,
        dropout: Option<Dropout>,
    ) -> Result<(Vec<f32>, WeightGradients)> {
        let variables = Variables::recorded(parameters, self.device)?;
        if self.activations != Activations::Keep {
            return recompute::gradients(self, &variables, batch, dropout, self.activations);
        }
        let logits = self.logits(&variables, batch, dropout)?;
        let losses = cross_entropy(&logits, &batch.labels, self.z_loss)?;
        let mut store = losses.sum_all()?.backward()?;
        let losses = losses.to_vec1()?;
        let gradients = variables
            .iter()
            .map(|(name, variable)| {
                let gradient = store.remove(variable);
                Ok((name.to_owned(), flat(variable, gradient)?))
            })
            .collect::<Result<_>>()?;
        Ok((losses, gradients))
    }
}

/// The gradients of one step, summed over its micro-batches. The accumulator and its memory are
/// reused from step to step.
#[derive(Default)]
pub struct Accumulator {
    backprop: Backprop,
    /// The gradient of the sum of all losses so far.
    pub sums: WeightGradients,
}

impl Accumulator {
    /// Starts a step with these weights.
    ///
    /// # Errors
    /// Weights that do not fit the shape.
    pub fn begin(&mut self, network: &Network<'_>, parameters: &ModelParameters) -> Result<()> {
        self.sums.retain(|name, _| parameters.contains_key(name));
        for (name, parameter) in parameters {
            let sum = self.sums.entry(name.clone()).or_default();
            sum.resize(parameter.values.len(), 0.0);
            sum.par_chunks_mut(CHUNK).for_each(|sum| sum.fill(0.0));
        }
        if network.device.is_cpu() {
            self.backprop.begin(network, parameters)?;
        }
        Ok(())
    }

    /// The loss of every label of a batch; adds the gradients of the sum of losses.
    ///
    /// # Errors
    /// Tokens that do not fit the shape.
    pub fn add(
        &mut self,
        network: &Network<'_>,
        parameters: &ModelParameters,
        batch: &Batch,
        dropout: Option<Dropout>,
    ) -> Result<Vec<f32>> {
        let sums = &mut self.sums;
        if network.device.is_cpu() {
            return self.backprop.add(network, parameters, batch, dropout, sums);
        }
        let (losses, gradients) = network.taped(parameters, batch, dropout)?;
        for (sum, gradient) in sums.values_mut().zip(gradients.values()) {
            sum.par_iter_mut()
                .zip(gradient)
                .for_each(|(sum, g)| *sum += g);
        }
        Ok(losses)
    }
}
