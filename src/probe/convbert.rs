//! One layer of ConvBERT (arXiv 2008.02496): half of the heads attend, the other half convolve with kernels that depend on the place.
//!
//! ```text
//! q, k, v       linear(x), width/2 each, in 2 heads
//! kernel        softmax over 7 of linear(q · separable_convolution(x)), one a place and head
//! convolved     Σ_t kernel_t · linear(x)_{place + t − 3}
//! attended      softmax(q kᵀ / √head) v
//! y             norm(x + linear([attended, convolved] of each head))
//! out           norm(y + linear(gelu(linear(y))))
//! ```
//!
//! Must equal Hugging Face's `ConvBertLayer` of 4 heads with `head_ratio` 2, kernel 7, intermediate width/2, one group (`tests/it/probe.rs` against
//! `tests/golden/probe`). Written in candle's own operations, whose gradients it learns by; `candle_nn`'s fused norm and softmax have none.

use candle_core::{D, Result, Tensor};

use super::dense::Dense;
use super::parameters::{Init, Parameters, Spec};
use crate::kernels::dropout::Dropout;

/// Heads that attend; as many convolve.
const HEADS: usize = 2;
/// Places a kernel spans.
pub const KERNEL: usize = 7;
const EPSILON: f64 = 1e-12;
const HIDDEN_DROPOUT: f64 = 0.2;
const ATTENTION_DROPOUT: f64 = 0.1;
/// Rows of the attention map that exist at once when nothing is learnt.
const ROWS: usize = 512;

/// Mean and variance taken away, scaled and shifted.
#[derive(Clone, Debug)]
struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
        normed
            .broadcast_mul(&self.weight)?
            .broadcast_add(&self.bias)
    }
}

/// The layer.
#[derive(Clone, Debug)]
pub struct ConvBert {
    query: Dense,
    key: Dense,
    value: Dense,
    /// `(7, width)`.
    depthwise: Tensor,
    pointwise: Dense,
    kernel: Dense,
    convolved: Dense,
    attention_output: Dense,
    attention_norm: LayerNorm,
    intermediate: Dense,
    output: Dense,
    output_norm: LayerNorm,
}

/// The weights of a layer for inputs of `width`, by the names of Hugging Face's `ConvBertLayer` behind `convbert.`.
pub fn specs(width: usize) -> Vec<Spec> {
    let half = width / 2;
    let own = |part: &str| format!("convbert.attention.self.{part}");
    let mut specs = Vec::new();
    let mut dense = |name: String, input, output| specs.extend(Dense::specs(&name, input, output));
    for part in ["query", "key", "value", "conv_out_layer"] {
        dense(own(part), width, half);
    }
    dense(own("conv_kernel_layer"), half, HEADS * KERNEL);
    dense("convbert.attention.output.dense".into(), width, width);
    dense("convbert.intermediate.dense".into(), width, half);
    dense("convbert.output.dense".into(), half, width);
    let convolution = "key_conv_attn_layer";
    let normal = Init::Normal(0.02);
    specs.extend([
        Spec::new(
            own(&format!("{convolution}.depthwise.weight")),
            &[width, 1, KERNEL],
            normal,
        ),
        Spec::new(
            own(&format!("{convolution}.pointwise.weight")),
            &[half, width, 1],
            normal,
        ),
        Spec::new(
            own(&format!("{convolution}.bias")),
            &[half, 1],
            Init::Constant(0.0),
        ),
    ]);
    for norm in ["attention.output", "output"] {
        for (part, value) in [("weight", 1.0), ("bias", 0.0)] {
            let name = format!("convbert.{norm}.LayerNorm.{part}");
            specs.push(Spec::new(name, &[width], Init::Constant(value)));
        }
    }
    specs
}

impl ConvBert {
    /// The layer over these weights.
    ///
    /// # Errors
    /// Where one is missing.
    pub fn new(parameters: &Parameters) -> Result<Self> {
        let own = |part: &str| format!("convbert.attention.self.{part}");
        let norm = |name: &str| {
            let get = |part: &str| parameters.get(&format!("convbert.{name}.LayerNorm.{part}"));
            Ok::<_, candle_core::Error>(LayerNorm {
                weight: get("weight")?,
                bias: get("bias")?,
            })
        };
        let convolution = |part: &str| parameters.get(&own(&format!("key_conv_attn_layer.{part}")));
        Ok(Self {
            query: Dense::new(parameters, &own("query"))?,
            key: Dense::new(parameters, &own("key"))?,
            value: Dense::new(parameters, &own("value"))?,
            depthwise: convolution("depthwise.weight")?,
            pointwise: Dense {
                weight: convolution("pointwise.weight")?,
                bias: convolution("bias")?,
            },
            kernel: Dense::new(parameters, &own("conv_kernel_layer"))?,
            convolved: Dense::new(parameters, &own("conv_out_layer"))?,
            attention_output: Dense::new(parameters, "convbert.attention.output.dense")?,
            attention_norm: norm("attention.output")?,
            intermediate: Dense::new(parameters, "convbert.intermediate.dense")?,
            output: Dense::new(parameters, "convbert.output.dense")?,
            output_norm: norm("output")?,
        })
    }

    /// One protein, `(length, width)` to the same; in training values are dropped by the stream of `key`.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn forward(&self, x: &Tensor, key: Option<u64>) -> Result<Tensor> {
        let q = self.query.forward(x)?;
        let drop = |rate: f64, place: u64| key.map(|key| Dropout::new(rate, key).at(place));
        let attended = self.attend(&q, x, drop(ATTENTION_DROPOUT, 0))?;
        let convolved = self.convolve(&q, x)?;
        // Heads: those that attend, then those that convolve.
        let mixed = Tensor::cat(&[attended, convolved], 1)?;
        let y = dropped(
            &self.attention_output.forward(&mixed)?,
            drop(HIDDEN_DROPOUT, 1),
        )?;
        let y = self.attention_norm.forward(&(y + x)?)?;
        let z = self
            .output
            .forward(&self.intermediate.forward(&y)?.gelu_erf()?)?;
        let z = dropped(&z, drop(HIDDEN_DROPOUT, 2))?;
        self.output_norm.forward(&(z + y)?)
    }

    /// `(length, width / 2)`.
    fn attend(&self, q: &Tensor, x: &Tensor, dropout: Option<Dropout>) -> Result<Tensor> {
        let (length, half) = q.dims2()?;
        let heads = |x: &Tensor| {
            x.reshape((length, HEADS, half / HEADS))?
                .transpose(0, 1)?
                .contiguous()
        };
        let scale = 1.0 / ((half / HEADS) as f64).sqrt();
        let q = heads(&(q * scale)?)?;
        let (k, v) = (
            heads(&self.key.forward(x)?)?,
            heads(&self.value.forward(x)?)?,
        );
        let k = k.t()?.contiguous()?;
        let rows = if dropout.is_some() { length } else { ROWS };
        let mut parts = Vec::new();
        for first in (0..length).step_by(rows.max(1)) {
            let q = q.narrow(1, first, rows.min(length - first))?.contiguous()?;
            let weights = candle_nn::ops::softmax(&q.matmul(&k)?, D::Minus1)?;
            parts.push(dropped(&weights, dropout)?.matmul(&v)?);
        }
        let mixed = Tensor::cat(&parts, 1)?;
        mixed.transpose(0, 1)?.contiguous()?.reshape((length, half))
    }

    /// `(length, width / 2)`.
    fn convolve(&self, q: &Tensor, x: &Tensor) -> Result<Tensor> {
        let (length, half) = q.dims2()?;
        let (width, side) = (x.dim(1)?, KERNEL / 2);
        let padded = x.pad_with_zeros(0, side, side)?;
        let taps = self.depthwise.reshape((width, KERNEL))?.t()?.contiguous()?;
        let mut separate = padded
            .narrow(0, 0, length)?
            .broadcast_mul(&taps.narrow(0, 0, 1)?)?;
        for t in 1..KERNEL {
            let shifted = padded.narrow(0, t, length)?;
            separate = (separate + shifted.broadcast_mul(&taps.narrow(0, t, 1)?)?)?;
        }
        let pointwise = self.pointwise.weight.reshape((half, width))?;
        let bias = self.pointwise.bias.reshape(half)?;
        let keys = separate.matmul(&pointwise.t()?)?.broadcast_add(&bias)?;
        let kernels = self.kernel.forward(&(keys * q)?)?;
        let kernels = kernels.reshape((length, HEADS, KERNEL))?;
        let kernels = candle_nn::ops::softmax(&kernels, D::Minus1)?;
        let values = self.convolved.forward(x)?.pad_with_zeros(0, side, side)?;
        let mut sum: Option<Tensor> = None;
        for t in 0..KERNEL {
            let shifted = values
                .narrow(0, t, length)?
                .reshape((length, HEADS, half / HEADS))?;
            let term = shifted.broadcast_mul(&kernels.narrow(2, t, 1)?)?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
        sum.expect("a kernel has places").reshape((length, half))
    }
}

/// `x`, in training with values dropped.
pub(super) fn dropped(x: &Tensor, dropout: Option<Dropout>) -> Result<Tensor> {
    match dropout {
        Some(dropout) => dropout.apply(&x.contiguous()?),
        None => Ok(x.clone()),
    }
}
