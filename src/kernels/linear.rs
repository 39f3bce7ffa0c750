//! `y = x · Wᵀ (+ residual)`: a linear layer without bias, as a candle operation over weights packed once at load, or, in training, at every product.
//!
//! Gradients: `dx = dy · W`, `dW = dyᵀ · x`, both by the same matrix product; the residual's is `dy` itself.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::cpu::gemm::{self, Left};
use super::cpu::integer_product;
use super::cpu::integer_weight::{Bits, IntegerWeight};
use super::cpu::packed_weight::{PackedWeight, Precision};
use super::cpu::{IntegerIsa, Isa};
use super::{cpu_f32, cpu_tensor, on_values};

/// How linear layers keep their weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum WeightForm {
    /// The number type of the matrix products
    #[default]
    Full,
    /// 8-bit integers with one scale per output; activations are rounded to 8 bits before each product. CPU only
    Int8,
}

/// A linear layer's weight `(n, k)`, where and how the device wants it.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Repacked for the CPU's kernels.
    Packed(Arc<PackedWeight>),
    /// In integers for the CPU's kernels.
    Integer(Arc<IntegerWeight>),
    /// A plain tensor `(n, k)`, multiplied by candle: CUDA.
    Dense(Tensor),
    /// A tensor `(n, k)` that learns, on a CPU: packed anew by every product, rounded to that precision.
    Trained(Tensor, Precision),
}

impl Weight {
    /// For the CPU's kernels: `n` rows of `k` values, of outputs that are better than products in bf16 make them, also where other products are that;
    /// `fill(row, values)` writes row `row`.
    ///
    /// Where the CPU multiplies pairs of 16-bit integers as fast as pairs of bf16, weights and inputs are such integers. Matrix tiles multiply none: there
    /// [`PackedWeight::precise`] has its price.
    pub fn precise(
        precision: Precision,
        n: usize,
        k: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let isa = Isa::current();
        let in_integers = isa == Isa::Avx512Bf16 && IntegerIsa::of(isa) == IntegerIsa::Vnni;
        if precision == Precision::Bf16 && in_integers {
            return Weight::Integer(Arc::new(IntegerWeight::new(Bits::Sixteen, n, k, fill)));
        }
        let weight = PackedWeight::new(n, k, precision, fill);
        Weight::Packed(Arc::new(weight.precise()))
    }

    /// What the CPU's kernels may round both operands to: bf16 only for weights that were packed so, once.
    pub fn precision(&self) -> Precision {
        match self {
            Weight::Packed(weight) => weight.precision(),
            Weight::Integer(_) | Weight::Dense(_) | Weight::Trained(..) => Precision::F32,
        }
    }

    /// `x (tokens, k)` to `(tokens, n)`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Packed(weight) => x.apply_op1(Product(weight.clone())),
            Weight::Integer(weight) => x.apply_op1(IntegerProduct(weight.clone())),
            Weight::Dense(weight) => x.matmul(&weight.t()?),
            Weight::Trained(weight, precision) => x.apply_op2(weight, Trained(*precision)),
        }
    }

    /// `residual + x · Wᵀ`, `residual (tokens, n)`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Packed(weight) => x.apply_op2(residual, Product(weight.clone())),
            Weight::Integer(weight) => x.apply_op2(residual, IntegerProduct(weight.clone())),
            Weight::Dense(weight) => residual + x.matmul(&weight.t()?)?,
            Weight::Trained(weight, precision) => {
                x.apply_op3(weight, residual, Trained(*precision))
            }
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
        let out = gemm::product(Isa::current(), x, &self.0, residual);
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

struct IntegerProduct(Arc<IntegerWeight>);

impl IntegerProduct {
    fn run(
        &self,
        x: (&CpuStorage, &Layout),
        residual: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, k) = x.1.shape().dims2()?;
        if k != self.0.k() {
            candle_core::bail!("a linear layer of {} inputs was given {k}", self.0.k());
        }
        let isa = IntegerIsa::of(Isa::current());
        let out = integer_product::product(isa, cpu_f32(x.0, x.1)?, &self.0, residual);
        Ok((CpuStorage::F32(out), Shape::from((rows, self.0.n()))))
    }
}

impl CustomOp1 for IntegerProduct {
    fn name(&self) -> &'static str {
        "integer-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run((x, layout), None)
    }
}

impl CustomOp2 for IntegerProduct {
    fn name(&self) -> &'static str {
        "integer-linear-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        r: &CpuStorage,
        r_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, layout), Some(cpu_f32(r, r_layout)?))
    }
}

struct Trained(Precision);

impl Trained {
    fn run(
        &self,
        x: (&CpuStorage, &Layout),
        w: (&CpuStorage, &Layout),
        residual: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, k) = x.1.shape().dims2()?;
        let (n, inputs) = w.1.shape().dims2()?;
        if k != inputs {
            candle_core::bail!("a linear layer of {inputs} inputs was given {k}");
        }
        let w = cpu_f32(w.0, w.1)?;
        let packed = PackedWeight::new(n, k, self.0, |row, values| {
            values.copy_from_slice(&w[row * k..][..k]);
        });
        let x = cpu_f32(x.0, x.1)?;
        let out = gemm::product(Isa::current(), x, &packed, residual);
        Ok((CpuStorage::F32(out), Shape::from((rows, n))))
    }

    /// Gradients of input `(rows, k)` and weight `(n, k)`.
    fn gradients(&self, x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, k) = w.dims2()?;
        let rows = x.dim(0)?;
        let (dx, dw) = on_values([x, w, &grad.contiguous()?], |[x, w, grad]| {
            let packed = PackedWeight::from_transposed(k, n, self.0, w);
            let mut dx = vec![0.0; x.len()];
            gemm::matmul(Isa::current(), grad, &packed, None, &mut dx);
            let packed = PackedWeight::from_transposed(k, rows, self.0, x);
            let mut dw = vec![0.0; w.len()];
            gemm::multiply(Isa::current(), Left::Columns(grad), &packed, None, &mut dw);
            (dx, dw)
        })?;
        Ok((cpu_tensor(dx, x.shape())?, cpu_tensor(dw, w.shape())?))
    }
}

impl CustomOp2 for Trained {
    fn name(&self) -> &'static str {
        "trained-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), (w, w_layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = self.gradients(x, w, grad)?;
        Ok((Some(dx), Some(dw)))
    }
}

impl CustomOp3 for Trained {
    fn name(&self) -> &'static str {
        "trained-linear-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        r: &CpuStorage,
        r_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), (w, w_layout), Some(cpu_f32(r, r_layout)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _residual: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = self.gradients(x, w, grad)?;
        Ok((Some(dx), Some(dw), Some(grad.clone())))
    }
}
