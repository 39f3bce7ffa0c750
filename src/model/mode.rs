//! Whether the network infers or learns. Both run the same code; learning drops values where T5 does: after the embeddings, in attention weights, in the
//! feed-forward block, on every residual branch and after the final norm.

use candle_core::{Result, Tensor};

use crate::kernels::dropout::Dropout;
use crate::kernels::linear::Weight;

/// How a forward pass is meant.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Nothing is dropped.
    Inference,
    /// Values are dropped by the stream of this place in the network.
    Training(Dropout),
}

impl Mode {
    /// The mode of place `n` below this one.
    pub(super) fn at(self, n: usize) -> Self {
        match self {
            Mode::Inference => Mode::Inference,
            Mode::Training(dropout) => Mode::Training(dropout.at(n as u64)),
        }
    }

    /// The dropout of place `n` below this one.
    pub(super) fn dropout(self, n: usize) -> Option<Dropout> {
        match self.at(n) {
            Mode::Inference => None,
            Mode::Training(dropout) => Some(dropout),
        }
    }

    /// `x`, dropped by place `n`.
    pub(super) fn drop(self, n: usize, x: Tensor) -> Result<Tensor> {
        self.dropout(n)
            .map_or(Ok(x.clone()), |dropout| dropout.apply(&x))
    }

    /// `residual + weight · x`, the product dropped by place `n`.
    pub(super) fn branch(
        self,
        n: usize,
        weight: &Weight,
        x: &Tensor,
        residual: &Tensor,
    ) -> Result<Tensor> {
        match self.dropout(n) {
            None => weight.forward_add(x, residual),
            Some(dropout) => dropout.add(&weight.forward(x)?, residual),
        }
    }
}
