//! RMS norm and activations as candle operations.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::cpu::{Isa, elementwise};
use super::{cpu_f32, plain, same_as_input};

pub use super::cpu::elementwise::Activation;

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
}

/// T5's layer norm: `x / √(mean(x²) + ε) · weight`; no mean, no bias. `x (tokens, d_model)`, `weight (d_model)`. Equals Hugging Face's `T5LayerNorm`.
///
/// # Errors
/// Where the tensors are not contiguous f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    x.apply_op2_no_bwd(
        weight,
        &RmsNorm {
            epsilon: epsilon as f32,
        },
    )
}

struct Gated(Activation);

impl CustomOp1 for Gated {
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
}

/// `activation(gate) · up` of `x (tokens, 2 d_ff)` = gate beside up; shape `(tokens, d_ff)`.
///
/// # Errors
/// Where `x` is not a contiguous f32 matrix.
pub fn gated(activation: Activation, x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return plain::gated(activation, x);
    }
    x.apply_op1_no_bwd(&Gated(activation))
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
}

/// `activation(x)`, same shape.
///
/// # Errors
/// Where `x` is not contiguous f32.
pub fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return plain::activate(activation, x);
    }
    x.apply_op1_no_bwd(&Activate(activation))
}
