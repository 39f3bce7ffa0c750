//! `activation(x · gatesᵀ) · (x · upᵀ)`: both input layers of a gated feed-forward block and what becomes of them, one operation on the CPU's kernels.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::cpu::integer_weight::IntegerWeight;
use super::cpu::packed_weight::PackedWeight;
use super::cpu::{Isa, gemm, integer_product};
use super::cpu_f32;
use super::elementwise::{Activation, gated};
use super::linear::Weight;

pub use super::cpu::output::{interleaved, interleaved_width};

/// The weights of both layers, `(d_ff, k)` each.
#[derive(Clone, Debug)]
pub enum GatedWeight {
    /// Packed for the CPU's kernels, [`interleaved`].
    Packed(Arc<PackedWeight>, usize),
    /// The same in integers.
    Integer(Arc<IntegerWeight>, usize),
    /// One above the other, multiplied as any layer: in training, and on a GPU.
    Stacked(Weight),
}

impl GatedWeight {
    /// `x (tokens, k)` to `(tokens, d_ff)`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            GatedWeight::Packed(weight, d_ff) => x.apply_op1(Product {
                weight: weight.clone(),
                d_ff: *d_ff,
                activation,
            }),
            GatedWeight::Integer(weight, d_ff) => x.apply_op1(Product {
                weight: weight.clone(),
                d_ff: *d_ff,
                activation,
            }),
            GatedWeight::Stacked(weight) => gated(activation, &weight.forward(x)?),
        }
    }
}

struct Product<W> {
    weight: Arc<W>,
    d_ff: usize,
    activation: Activation,
}

impl<W> Product<W> {
    fn run(
        &self,
        (x, layout): (&CpuStorage, &Layout),
        k: usize,
        product: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = layout.shape().dims2()?;
        if k != inputs {
            candle_core::bail!("a linear layer of {k} inputs was given {inputs}");
        }
        let out = product(cpu_f32(x, layout)?);
        Ok((CpuStorage::F32(out), Shape::from((rows, self.d_ff))))
    }
}

impl CustomOp1 for Product<PackedWeight> {
    fn name(&self) -> &'static str {
        "gated-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run((x, layout), self.weight.k(), |x| {
            gemm::gated(Isa::current(), x, &self.weight, self.d_ff, self.activation)
        })
    }
}

impl CustomOp1 for Product<IntegerWeight> {
    fn name(&self) -> &'static str {
        "integer-gated-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run((x, layout), self.weight.k(), |x| {
            integer_product::gated(Isa::current(), x, &self.weight, self.d_ff, self.activation)
        })
    }
}
