//! `y = x · Wᵀ (+ residual)`: a linear layer without bias, as a candle operation over weights packed once at load.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::cpu::Isa;
use super::cpu::gemm::{self, PackedWeight};
use super::cpu_f32;

/// A linear layer's weight `(n, k)`, where and how the device wants it.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Repacked for the CPU's kernels.
    Packed(Arc<PackedWeight>),
    /// A plain tensor `(n, k)`, multiplied by candle: CUDA.
    Dense(Tensor),
}

impl Weight {
    /// `x (tokens, k)` to `(tokens, n)`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Packed(weight) => x.apply_op1_no_bwd(&Product(weight.clone())),
            Weight::Dense(weight) => x.matmul(&weight.t()?),
        }
    }

    /// `residual + x · Wᵀ`, `residual (tokens, n)`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Packed(weight) => x.apply_op2_no_bwd(residual, &Product(weight.clone())),
            Weight::Dense(weight) => residual + x.matmul(&weight.t()?)?,
        }
    }
}

struct Product(Arc<PackedWeight>);

impl Product {
    fn run(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        residual: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, k) = layout.shape().dims2()?;
        if k != self.0.k() {
            candle_core::bail!("a linear layer of {} inputs was given {k}", self.0.k());
        }
        let x = cpu_f32(x, layout)?;
        let mut out = vec![0.0; rows * self.0.n()];
        gemm::matmul(Isa::current(), x, &self.0, residual, &mut out);
        Ok((CpuStorage::F32(out), Shape::from((rows, self.0.n()))))
    }
}

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(x, layout, None)
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        r: &CpuStorage,
        r_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run(x, layout, Some(cpu_f32(r, r_layout)?))
    }
}
