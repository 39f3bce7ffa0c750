//! RMS norm, activations and gated activations as candle operations, with their gradients. Must
//! equal Hugging Face's `T5LayerNorm` and the activations of `T5DenseActDense` and
//! `T5DenseGatedActDense`.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::cpu::{Isa, elementwise, elementwise_backward};
#[cfg(feature = "cuda")]
use super::cuda;
use super::plan::Activation;
use super::{cpu_f32, cpu_tensor, has_kernels, on_values, plain, same_as_input};

struct RmsNorm {
    epsilon: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (cpu_f32(x, x_layout)?, cpu_f32(w, w_layout)?);
        let mut out = vec![0.0; x.len()];
        elementwise::rms_norm(Isa::current(), x, w, self.epsilon, &mut out);
        Ok(same_as_input(out, x_layout))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        cuda::ops::rms_norm((x, x_layout), (w, w_layout), self.epsilon)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let (dx, dw) = cuda::ops::rms_norm_backward([x, w, grad], self.epsilon)?;
            return Ok((Some(dx), Some(dw)));
        }
        let (dx, dw) = on_values([x, w, &grad.contiguous()?], |[x, w, grad]| {
            let mut dx = vec![0.0; x.len()];
            let isa = Isa::current();
            let dw = elementwise_backward::rms_norm(isa, x, w, self.epsilon, grad, &mut dx);
            (dx, dw)
        })?;
        Ok((
            Some(cpu_tensor(dx, x.shape())?),
            Some(cpu_tensor(dw, w.shape())?),
        ))
    }
}

/// T5's layer norm: `x / √(mean(x²) + ε) · weight`, without mean and bias. `x (tokens, d_model)`,
/// `weight (d_model)`.
///
/// # Errors
/// Where the tensors are not contiguous f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    if !has_kernels(x) {
        return plain::rms_norm(x, weight, epsilon);
    }
    x.apply_op2(
        weight,
        RmsNorm {
            epsilon: epsilon as f32,
        },
    )
}

struct GatedActivation(Activation);

impl CustomOp1 for GatedActivation {
    fn name(&self) -> &'static str {
        "gated-activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let x = cpu_f32(x, layout)?;
        let mut out = vec![0.0; rows * width / 2];
        elementwise::gated(Isa::current(), self.0, x, width / 2, &mut out);
        Ok((CpuStorage::F32(out), Shape::from((rows, width / 2))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::ops::gated(self.0, (x, layout))
    }

    fn bwd(&self, x: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return cuda::ops::gated_backward(self.0, x, grad).map(Some);
        }
        let d_ff = x.dims2()?.1 / 2;
        let dx = on_values([x, &grad.contiguous()?], |[x, grad]| {
            let mut dx = vec![0.0; x.len()];
            elementwise_backward::gated(Isa::current(), self.0, x, d_ff, grad, &mut dx);
            dx
        })?;
        Ok(Some(cpu_tensor(dx, x.shape())?))
    }
}

/// `activation(gate) · up`, `(tokens, d_ff)`, of `x (tokens, 2 d_ff)`, whose rows are a gate beside
/// an up.
///
/// # Errors
/// Where `x` is not a contiguous f32 matrix.
pub fn gated(activation: Activation, x: &Tensor) -> Result<Tensor> {
    if !has_kernels(x) {
        return plain::gated(activation, x);
    }
    x.apply_op1(GatedActivation(activation))
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = cpu_f32(x, layout)?;
        let mut out = vec![0.0; x.len()];
        elementwise::activate(Isa::current(), self.0, x, &mut out);
        Ok(same_as_input(out, layout))
    }

    fn bwd(&self, x: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dx = on_values([x, &grad.contiguous()?], |[x, grad]| {
            let mut dx = vec![0.0; x.len()];
            elementwise_backward::activate(Isa::current(), self.0, x, grad, &mut dx);
            dx
        })?;
        Ok(Some(cpu_tensor(dx, x.shape())?))
    }
}

/// `activation(x)`, same shape.
///
/// # Errors
/// Where `x` is not contiguous f32.
pub fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return plain::activate(activation, x);
    }
    x.apply_op1(Activate(activation))
}
