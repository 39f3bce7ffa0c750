//! The weights of a model in training: f32 master copies by Hugging Face name, and their tensors on
//! a device for one step.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, Var};

use crate::model::{TensorView, WeightSource};

/// One weight with its values in f32, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The shape of the weight.
    pub shape: Vec<usize>,
    /// The values in row-major order.
    pub values: Vec<f32>,
}

/// All weights of a model, by name.
pub type ModelParameters = BTreeMap<String, Parameter>;

/// Tensors of all weights on a device, for the loader.
pub struct Variables {
    tensors: BTreeMap<String, Tensor>,
}

impl Variables {
    /// Variables whose gradients are recorded.
    ///
    /// # Errors
    /// A device that runs out of memory.
    pub fn recorded(parameters: &ModelParameters, device: &Device) -> Result<Self> {
        Self::new(parameters, |parameter| {
            let values = Tensor::from_slice(&parameter.values, &parameter.shape[..], device)?;
            Ok(Var::from_tensor(&values)?.into_inner())
        })
    }

    /// Tensors without recorded gradients, for evaluation.
    ///
    /// # Errors
    /// A device that runs out of memory.
    pub fn plain(parameters: &ModelParameters, device: &Device) -> Result<Self> {
        Self::new(parameters, |parameter| {
            Tensor::from_slice(&parameter.values, &parameter.shape[..], device)
        })
    }

    fn new(
        parameters: &ModelParameters,
        tensor: impl Fn(&Parameter) -> Result<Tensor>,
    ) -> Result<Self> {
        let tensors = parameters
            .iter()
            .map(|(name, parameter)| Ok((name.clone(), tensor(parameter)?)))
            .collect::<Result<_>>()?;
        Ok(Variables { tensors })
    }

    /// Names and tensors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }
}

impl WeightSource for Variables {
    fn tensor(&self, name: &str, _shape: &[usize]) -> Result<TensorView<'_>> {
        candle_core::bail!("the model in training has no tensor `{name}`")
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn variable(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }
}
