//! `activation(x · gatesᵀ) · (x · upᵀ)`: both input layers of a gated feed-forward block and the
//! gate, as one operation on the CPU's kernels. Must equal `T5DenseGatedActDense` of Hugging Face
//! up to its output layer.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::cpu::layout::{interleaved, interleaved_width};
use super::cpu::product::Arithmetic;
use super::cpu::weight::CpuWeight;
use super::elementwise::gated;
use super::linear::{Weight, rows_of_input};
use super::plan::Activation;

/// The weights of both layers, `(d_ff, k)` each.
#[derive(Clone, Debug)]
pub enum GatedWeight {
    /// For the CPU's kernels: one weight whose panels alternate ([`super::cpu::layout`]).
    Interleaved {
        /// Both layers.
        weight: CpuWeight,
        /// Outputs of one layer.
        d_ff: usize,
    },
    /// One matrix above the other, multiplied as any layer: in training, and on a GPU.
    Stacked(Weight),
}

impl GatedWeight {
    /// Packs both layers for the CPU's kernels; `fill(layer, row, values)` writes row `row` of the
    /// gates (layer 0) or of the ups (layer 1).
    pub fn interleaved(
        arithmetic: Arithmetic,
        d_ff: usize,
        k: usize,
        fill: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Self {
        let fill = |row, values: &mut [f32]| {
            let (layer, row) = interleaved(row);
            if row < d_ff {
                fill(layer, row, values);
            } else {
                values.fill(0.0);
            }
        };
        let weight = CpuWeight::new(arithmetic, interleaved_width(d_ff), k, fill);
        GatedWeight::Interleaved { weight, d_ff }
    }

    /// `x (tokens, k)` to `(tokens, d_ff)`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            GatedWeight::Interleaved { weight, d_ff } => x.apply_op1(GatedLinear {
                weight: weight.clone(),
                d_ff: *d_ff,
                activation,
            }),
            GatedWeight::Stacked(weight) => gated(activation, &weight.forward(x)?),
        }
    }
}

struct GatedLinear {
    weight: CpuWeight,
    d_ff: usize,
    activation: Activation,
}

impl CustomOp1 for GatedLinear {
    fn name(&self) -> &'static str {
        "gated-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, rows) = rows_of_input(x, layout, self.weight.k())?;
        let out = self.weight.gated(x, self.d_ff, self.activation);
        Ok((CpuStorage::F32(out), Shape::from((rows, self.d_ff))))
    }
}
