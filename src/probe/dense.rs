//! A linear layer with a bias, initialised as PyTorch's `nn.Linear`.

use candle_core::{Result, Tensor};

use super::weights::{HeadWeights, Init, WeightSpec};

/// `x Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Dense {
    /// `(output, input)`.
    pub weight: Tensor,
    /// `(output)`.
    pub bias: Tensor,
}

impl Dense {
    /// `NAME.weight` and `NAME.bias`, uniform in ±1/√input.
    pub fn specs(name: &str, input: usize, output: usize) -> [WeightSpec; 2] {
        let init = Init::Uniform(1.0 / (input as f64).sqrt());
        [
            WeightSpec::new(format!("{name}.weight"), &[output, input], init),
            WeightSpec::new(format!("{name}.bias"), &[output], init),
        ]
    }

    /// The layer called `name`.
    ///
    /// # Errors
    /// Where a weight is missing.
    pub fn new(weights: &HeadWeights, name: &str) -> Result<Self> {
        Ok(Self {
            weight: weights.get(&format!("{name}.weight"))?,
            bias: weights.get(&format!("{name}.bias"))?,
        })
    }

    /// `(rows, input)` to `(rows, output)`.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?
            .matmul(&self.weight.t()?)?
            .broadcast_add(&self.bias)
    }
}
