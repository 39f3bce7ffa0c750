//! One layer of ConvBERT (arXiv 2008.02496): half of the heads attend, the other half convolve with
//! kernels that depend on the position.
//!
//! ```text
//! q, k, v       linear(x), width/2 each, in 2 heads
//! kernel        softmax over 7 of linear(q · separable_convolution(x)), one kernel per position and head
//! convolved     Σ_t kernel_t · linear(x)_{position + t − 3}
//! attended      softmax(q kᵀ / √head) v
//! y             norm(x + linear([attended, convolved] of each head))
//! out           norm(y + linear(gelu(linear(y))))
//! ```
//!
//! Must equal Hugging Face's `ConvBertLayer` of 4 heads with `head_ratio` 2, kernel 7, intermediate
//! width/2, one group (`tests/it/probe.rs` against `tests/golden/probe`). The layer is written in
//! candle's own operations, which have gradients; `candle_nn`'s fused norm and softmax have none.

use candle_core::{D, Result, Tensor};

use super::dense::Dense;
use super::weights::{HeadWeights, Init, WeightSpec};
use crate::kernels::dropout::Dropout;

/// Number of heads that attend, and of heads that convolve.
const HEADS: usize = 2;
/// Positions per kernel.
pub const KERNEL: usize = 7;
const EPSILON: f64 = 1e-12;
const HIDDEN_DROPOUT: f64 = 0.2;
const ATTENTION_DROPOUT: f64 = 0.1;
/// Rows of the attention map that exist at once, except in training.
const ROWS: usize = 512;

/// Standardised over the width, then scaled and shifted.
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

/// The weights of a layer for inputs of `width`, by the names of Hugging Face's `ConvBertLayer`
/// behind `convbert.`.
pub fn specs(width: usize) -> Vec<WeightSpec> {
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
        WeightSpec::new(
            own(&format!("{convolution}.depthwise.weight")),
            &[width, 1, KERNEL],
            normal,
        ),
        WeightSpec::new(
            own(&format!("{convolution}.pointwise.weight")),
            &[half, width, 1],
            normal,
        ),
        WeightSpec::new(
            own(&format!("{convolution}.bias")),
            &[half, 1],
            Init::Constant(0.0),
        ),
    ]);
    for norm in ["attention.output", "output"] {
        for (part, value) in [("weight", 1.0), ("bias", 0.0)] {
            let name = format!("convbert.{norm}.LayerNorm.{part}");
            specs.push(WeightSpec::new(name, &[width], Init::Constant(value)));
        }
    }
    specs
}

impl ConvBert {
    /// The layer over these weights.
    ///
    /// # Errors
    /// A weight that is missing.
    pub fn new(weights: &HeadWeights) -> Result<Self> {
        let own = |part: &str| format!("convbert.attention.self.{part}");
        let norm = |name: &str| {
            let get = |part: &str| weights.get(&format!("convbert.{name}.LayerNorm.{part}"));
            Ok::<_, candle_core::Error>(LayerNorm {
                weight: get("weight")?,
                bias: get("bias")?,
            })
        };
        let convolution = |part: &str| weights.get(&own(&format!("key_conv_attn_layer.{part}")));
        Ok(Self {
            query: Dense::new(weights, &own("query"))?,
            key: Dense::new(weights, &own("key"))?,
            value: Dense::new(weights, &own("value"))?,
            depthwise: convolution("depthwise.weight")?,
            pointwise: Dense {
                weight: convolution("pointwise.weight")?,
                bias: convolution("bias")?,
            },
            kernel: Dense::new(weights, &own("conv_kernel_layer"))?,
            convolved: Dense::new(weights, &own("conv_out_layer"))?,
            attention_output: Dense::new(weights, "convbert.attention.output.dense")?,
            attention_norm: norm("attention.output")?,
            intermediate: Dense::new(weights, "convbert.intermediate.dense")?,
            output: Dense::new(weights, "convbert.output.dense")?,
            output_norm: norm("output")?,
        })
    }

    /// One protein, `(length, width)` to `(length, width)`. A key means training: dropout takes its
    /// random stream from the key.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn forward(&self, x: &Tensor, key: Option<u64>) -> Result<Tensor> {
        let q = self.query.forward(x)?;
        let drop = |rate: f64, place: u64| key.map(|key| Dropout::new(rate, key).at(place));
        let attended = self.attend(&q, x, drop(ATTENTION_DROPOUT, 0))?;
        let convolved = self.convolve(&q, x)?;
        // The heads that attend come first, then the heads that convolve.
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
        sum.expect("a kernel has positions").reshape((length, half))
    }
}

/// `x` after dropout, if any.
pub(super) fn dropped(x: &Tensor, dropout: Option<Dropout>) -> Result<Tensor> {
    match dropout {
        Some(dropout) => dropout.apply(&x.contiguous()?),
        None => Ok(x.clone()),
    }
}
