//! The weight of a linear layer as the CPU's kernels multiply it: floats or integers, as
//! [`Arithmetic`] says.

use std::sync::Arc;

use super::gemm;
use super::integer_product;
use super::integer_weight::{Bits, IntegerWeight};
use super::isa::{IntegerIsa, Isa};
use super::packed_weight::PackedWeight;
use super::product::Arithmetic;
use crate::kernels::plan::{Activation, Precision};

/// A weight `(n, k)` in panels ([`super::layout`]).
#[derive(Clone, Debug)]
pub enum CpuWeight {
    /// In f32 or bf16.
    Float(Arc<PackedWeight>),
    /// In 8-bit or 16-bit integers.
    Integer(Arc<IntegerWeight>),
}

impl CpuWeight {
    /// Packs `n` rows of `k` values; `fill(row, values)` writes row `row`, in parallel.
    pub fn new(
        arithmetic: Arithmetic,
        n: usize,
        k: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let floats = |precision| PackedWeight::new(n, k, precision, &fill);
        let integers = |bits| CpuWeight::Integer(Arc::new(IntegerWeight::new(bits, n, k, &fill)));
        let weight = match arithmetic {
            Arithmetic::Int8 => return integers(Bits::Eight),
            Arithmetic::Int16 => return integers(Bits::Sixteen),
            Arithmetic::F32 => floats(Precision::F32),
            Arithmetic::Bf16 => floats(Precision::Bf16),
        };
        CpuWeight::Float(Arc::new(weight))
    }

    /// Width of the outputs.
    pub fn n(&self) -> usize {
        match self {
            CpuWeight::Float(weight) => weight.n(),
            CpuWeight::Integer(weight) => weight.n(),
        }
    }

    /// Width of the inputs.
    pub fn k(&self) -> usize {
        match self {
            CpuWeight::Float(weight) => weight.k(),
            CpuWeight::Integer(weight) => weight.k(),
        }
    }

    /// The type that both operands may be rounded to: bf16 only for weights in bf16.
    pub fn precision(&self) -> Precision {
        match self {
            CpuWeight::Float(weight) => weight.precision(),
            CpuWeight::Integer(_) => Precision::F32,
        }
    }

    /// `x (m, k) · weightᵀ`, plus `residual (m, n)` where given: `(m, n)`.
    ///
    /// # Panics
    /// If a slice's length does not fit the shapes.
    pub fn product(&self, x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let isa = Isa::current();
        match self {
            CpuWeight::Float(weight) => gemm::product(isa, x, weight, residual),
            CpuWeight::Integer(weight) => {
                integer_product::product(IntegerIsa::of(isa), x, weight, residual)
            }
        }
    }

    /// `activation(x · gatesᵀ) · (x · upᵀ)`, `(m, d_ff)`, of an interleaved weight.
    ///
    /// # Panics
    /// If a length does not fit the shapes.
    pub fn gated(&self, x: &[f32], d_ff: usize, activation: Activation) -> Vec<f32> {
        let isa = Isa::current();
        match self {
            CpuWeight::Float(weight) => gemm::gated(isa, x, weight, d_ff, activation),
            CpuWeight::Integer(weight) => integer_product::gated(isa, x, weight, d_ff, activation),
        }
    }
}
