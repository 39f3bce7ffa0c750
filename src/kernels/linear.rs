//! `y = x · Wᵀ (+ residual)`: a linear layer without bias, as a candle operation over weights that
//! are packed once at load or, in training, at every product.
//!
//! Gradients: `dx = dy · W`, `dW = dyᵀ · x`, both by the same matrix product; the gradient of the
//! residual is `dy` itself.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::cpu::Isa;
use super::cpu::gemm;
use super::cpu::packed_weight::PackedWeight;
use super::cpu::product::Left;
use super::cpu::weight::CpuWeight;
use super::plan::Precision;
use super::{CpuMatrix, cpu_f32, cpu_tensor, on_values};

/// A linear layer's weight `(n, k)`, in the form and at the place that the device needs.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Packed for the CPU's kernels.
    Packed(CpuWeight),
    /// A plain tensor `(n, k)`, multiplied by candle: on a GPU.
    Dense(Tensor),
    /// A tensor `(n, k)` that learns, on a CPU: every product packs it again, rounded to that
    /// precision.
    Trained(Tensor, Precision),
}

impl Weight {
    /// The type that the CPU's kernels may round both operands to: bf16 only for weights that were
    /// packed in bf16, once.
    pub fn precision(&self) -> Precision {
        match self {
            Weight::Packed(weight) => weight.precision(),
            Weight::Dense(_) | Weight::Trained(..) => Precision::F32,
        }
    }

    /// `x (tokens, k)` to `(tokens, n)`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Packed(weight) => x.apply_op1(Linear(weight.clone())),
            Weight::Dense(weight) => x.matmul(&weight.t()?),
            Weight::Trained(weight, precision) => x.apply_op2(weight, TrainedLinear(*precision)),
        }
    }

    /// `residual + x · Wᵀ`, `residual (tokens, n)`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Packed(weight) => x.apply_op2(residual, Linear(weight.clone())),
            Weight::Dense(weight) => residual + x.matmul(&weight.t()?)?,
            Weight::Trained(weight, precision) => {
                x.apply_op3(weight, residual, TrainedLinear(*precision))
            }
        }
    }
}

/// The values and the number of rows of `x (rows, k)`.
pub(super) fn rows_of_input<'a>(
    x: &'a CpuStorage,
    layout: &Layout,
    k: usize,
) -> Result<(&'a [f32], usize)> {
    let (rows, inputs) = layout.shape().dims2()?;
    if k != inputs {
        candle_core::bail!("a linear layer of {k} inputs was given {inputs}");
    }
    Ok((cpu_f32(x, layout)?, rows))
}

struct Linear(CpuWeight);

impl Linear {
    fn run(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        residual: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, rows) = rows_of_input(x, layout, self.0.k())?;
        let out = self.0.product(x, residual);
        Ok((CpuStorage::F32(out), Shape::from((rows, self.0.n()))))
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(x, layout, None)
    }
}

impl CustomOp2 for Linear {
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

struct TrainedLinear(Precision);

impl TrainedLinear {
    fn run(
        &self,
        x: CpuMatrix<'_>,
        w: CpuMatrix<'_>,
        residual: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, k) = w.layout.shape().dims2()?;
        let (x, rows) = rows_of_input(x.storage, x.layout, k)?;
        let w = cpu_f32(w.storage, w.layout)?;
        let packed = PackedWeight::new(n, k, self.0, |row, values| {
            values.copy_from_slice(&w[row * k..][..k]);
        });
        let out = gemm::product(Isa::current(), x, &packed, residual);
        Ok((CpuStorage::F32(out), Shape::from((rows, n))))
    }

    /// Gradients of the input `(rows, k)` and of the weight `(n, k)`.
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

impl CustomOp2 for TrainedLinear {
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
        self.run(
            CpuMatrix {
                storage: x,
                layout: x_layout,
            },
            CpuMatrix {
                storage: w,
                layout: w_layout,
            },
            None,
        )
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

impl CustomOp3 for TrainedLinear {
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
        let residual = cpu_f32(r, r_layout)?;
        let x = CpuMatrix {
            storage: x,
            layout: x_layout,
        };
        let w = CpuMatrix {
            storage: w,
            layout: w_layout,
        };
        self.run(x, w, Some(residual))
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
