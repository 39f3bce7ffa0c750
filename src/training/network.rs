//! A network in training: its shape, its settings and its forward pass.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::variables::Variables;
use crate::kernels::cross_entropy::cross_entropy;
use crate::kernels::dropout::Dropout;
use crate::kernels::plan::WeightForm;
use crate::model::names::Stack;
use crate::model::{Config, Decoder, Encoder, Loader, Mode};

/// The activations that a forward pass keeps for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activations {
    /// All activations: the fastest.
    #[default]
    Keep,
    /// The input of every layer.
    Layers,
    /// The inputs of √n of n layers: the least memory.
    Sqrt,
}

impl Activations {
    /// Layers from one kept input to the next; `None` where all activations are kept.
    pub fn stride(self, layers: usize) -> Option<usize> {
        match self {
            Activations::Keep => None,
            Activations::Layers => Some(1),
            Activations::Sqrt => Some((layers as f64).sqrt().ceil().max(1.0) as usize),
        }
    }
}

/// The shape of a network in training, its device and its settings.
#[derive(Clone, Debug)]
pub struct Network<'a> {
    /// The shape.
    pub config: &'a Config,
    /// The device that computes.
    pub device: &'a Device,
    /// The type of matrix products.
    pub dtype: DType,
    /// Weight of the z-loss.
    pub z_loss: f64,
    /// The activations kept in memory between the forward and the backward pass.
    pub activations: Activations,
}

/// The gradient of a sum of losses, by the names of the weights.
pub type WeightGradients = BTreeMap<String, Vec<f32>>;

impl Network<'_> {
    pub(super) fn loader<'a>(&'a self, variables: &'a Variables) -> Loader<'a> {
        Loader {
            source: variables,
            device: self.device,
            dtype: self.dtype,
            weights: WeightForm::Full,
        }
    }

    /// Logits `(labels, vocab)` of a batch.
    ///
    /// # Errors
    /// Weights or tokens that do not fit the shape.
    pub fn logits(
        &self,
        variables: &Variables,
        batch: &Batch,
        dropout: Option<Dropout>,
    ) -> Result<Tensor> {
        let loader = self.loader(variables);
        let mode = |stack| Mode::new(dropout, stack, self.config);
        let encoder = Encoder::load(&loader, self.config)?;
        let decoder = Decoder::load(&loader, self.config)?;
        let encoded = encoder.forward_in(&batch.source, mode(Stack::Encoder))?;
        let source = decoder.source(&encoded, &batch.source)?;
        let numbers: Vec<usize> = (0..batch.tasks.len()).collect();
        decoder.forward_in(&batch.target, &numbers, &source, mode(Stack::Decoder))
    }

    /// The loss of every label and the most likely token in its place, without dropout.
    ///
    /// # Errors
    /// Weights or tokens that do not fit the shape.
    pub fn evaluate(&self, variables: &Variables, batch: &Batch) -> Result<(Vec<f32>, Vec<u32>)> {
        let logits = self.logits(variables, batch, None)?;
        let losses = cross_entropy(&logits, &batch.labels, 0.0)?;
        Ok((losses.to_vec1()?, logits.argmax(1)?.to_vec1()?))
    }
}

/// A gradient's values; zeros where nothing depends on the variable.
pub(super) fn flat(variable: &Tensor, gradient: Option<Tensor>) -> Result<Vec<f32>> {
    match gradient {
        Some(gradient) => gradient.flatten_all()?.to_vec1(),
        None => Ok(vec![0.0; variable.elem_count()]),
    }
}
