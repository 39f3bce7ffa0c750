//! What both stacks are made of: embedding, pre-norm residual sub-layers, attention, feed-forward.
//!
//! Every sub-layer is `x + f(norm(x))`. Projections of the same input are one matrix product: queries, keys and values; both inputs of a gated
//! feed-forward. The residual is added inside the last product.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::{Config, FeedForward, Loader, Mode, Packed};
use crate::kernels::attention::{Precision, attention, self_attention};
use crate::kernels::elementwise::{activate, rms_norm};
use crate::kernels::gated_linear::GatedWeight;
use crate::kernels::linear::Weight;
use crate::kernels::plan::{Activation, AttentionPlan as Plan, Segment, Visibility};

/// T5's layer norm: root mean square only.
#[derive(Clone, Debug)]
pub struct Norm {
    weight: Tensor,
    epsilon: f64,
}

impl Norm {
    /// Reads `NAME.weight`.
    pub(super) fn load(loader: &Loader<'_>, config: &Config, name: &str) -> Result<Self> {
        let weight = loader.tensor_f32(&format!("{name}.weight"), &[config.d_model])?;
        Ok(Self {
            weight,
            epsilon: config.layer_norm_epsilon,
        })
    }

    /// `(tokens, d_model)` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.weight, self.epsilon)
    }
}

/// Self-attention with its norm.
#[derive(Debug)]
pub struct SelfAttention {
    norm: Norm,
    qkv: Weight,
    output: Weight,
    inner: usize,
}

impl SelfAttention {
    pub(super) fn load(loader: &Loader<'_>, config: &Config, layer: &str) -> Result<Self> {
        let inner = config.inner_dim();
        let [q, k, v, o] =
            ["q", "k", "v", "o"].map(|part| format!("{layer}.SelfAttention.{part}.weight"));
        Ok(Self {
            norm: Norm::load(loader, config, &format!("{layer}.layer_norm"))?,
            // T5 does not scale its scores: what queries and keys lose by rounding, the softmax magnifies.
            qkv: loader.precise_linear(&[(&q, inner), (&k, inner), (&v, inner)], config.d_model)?,
            output: loader.linear(&[(&o, config.d_model)], inner)?,
            inner,
        })
    }

    /// The type of its products.
    pub(super) fn precision(&self) -> Precision {
        self.output.precision()
    }

    /// Queries and, side by side, keys and values of `x (tokens, d_model)`.
    pub(super) fn project(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let qkv = self.qkv.forward(&self.norm.forward(x)?)?;
        Ok((
            qkv.narrow(1, 0, self.inner)?,
            qkv.narrow(1, self.inner, 2 * self.inner)?,
        ))
    }

    /// `x + output(attention)`.
    pub(super) fn finish(&self, mixed: &Tensor, x: &Tensor) -> Result<Tensor> {
        self.output.forward_add(mixed, x)
    }

    /// `x + attention(norm(x))`.
    pub fn forward(&self, x: &Tensor, bias: &Tensor, plan: &Plan, mode: Mode) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm.forward(x)?)?;
        let mixed = self_attention(&qkv, bias, plan, mode.dropout(0))?;
        mode.branch(1, &self.output, &mixed, x)
    }
}

/// Attention from a target to its source, with its norm.
#[derive(Debug)]
pub struct CrossAttention {
    norm: Norm,
    q: Weight,
    kv: Weight,
    output: Weight,
}

impl CrossAttention {
    pub(super) fn load(loader: &Loader<'_>, config: &Config, layer: &str) -> Result<Self> {
        let inner = config.inner_dim();
        let [q, k, v, o] =
            ["q", "k", "v", "o"].map(|part| format!("{layer}.EncDecAttention.{part}.weight"));
        Ok(Self {
            norm: Norm::load(loader, config, &format!("{layer}.layer_norm"))?,
            q: loader.precise_linear(&[(&q, inner)], config.d_model)?,
            kv: loader.precise_linear(&[(&k, inner), (&v, inner)], config.d_model)?,
            output: loader.linear(&[(&o, config.d_model)], inner)?,
        })
    }

    /// Keys beside values of the encoder's output `(source tokens, d_model)`: the same for every target position.
    pub fn source(&self, encoded: &Tensor) -> Result<Tensor> {
        self.kv.forward(encoded)
    }

    /// `x + attention(norm(x), source)`.
    pub fn forward(&self, x: &Tensor, source: &Tensor, plan: &Plan, mode: Mode) -> Result<Tensor> {
        let q = self.q.forward(&self.norm.forward(x)?)?;
        let mixed = attention(&q, source, None, plan, mode.dropout(0))?;
        mode.branch(1, &self.output, &mixed, x)
    }
}

/// The feed-forward block with its norm.
#[derive(Debug)]
pub struct FeedForwardLayer {
    norm: Norm,
    input: Input,
    output: Weight,
}

/// From `norm(x)` to what the output layer reads.
#[derive(Debug)]
enum Input {
    Plain(Weight, Activation),
    Gated(GatedWeight, Activation),
}

impl Input {
    fn load(loader: &Loader<'_>, config: &Config, layer: &str) -> Result<Self> {
        let (d_model, d_ff) = (config.d_model, config.d_ff);
        let name = |part: &str| format!("{layer}.DenseReluDense.{part}.weight");
        let gated = || loader.gated([&name("wi_0"), &name("wi_1")], d_ff, d_model);
        Ok(match config.feed_forward_proj {
            FeedForward::Relu => Self::Plain(
                loader.linear(&[(&name("wi"), d_ff)], d_model)?,
                Activation::Relu,
            ),
            FeedForward::GatedGelu => Self::Gated(gated()?, Activation::GeluNew),
            FeedForward::GatedSilu => Self::Gated(gated()?, Activation::Silu),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Plain(weight, activation) => activate(*activation, &weight.forward(x)?),
            Self::Gated(weight, activation) => weight.forward(x, *activation),
        }
    }
}

impl FeedForwardLayer {
    pub(super) fn load(loader: &Loader<'_>, config: &Config, layer: &str) -> Result<Self> {
        let output = format!("{layer}.DenseReluDense.wo.weight");
        Ok(Self {
            norm: Norm::load(loader, config, &format!("{layer}.layer_norm"))?,
            input: Input::load(loader, config, layer)?,
            output: loader.linear(&[(&output, config.d_model)], config.d_ff)?,
        })
    }

    /// `x + wo(act(wi_0 norm(x)) · wi_1 norm(x))`, or without the gate.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let hidden = self.input.forward(&self.norm.forward(x)?)?;
        mode.branch(1, &self.output, &mode.drop(0, &hidden)?, x)
    }
}

/// The plan of a self-attention: every segment by itself.
pub(super) fn self_plan(
    config: &Config,
    packed: &Packed,
    visibility: Visibility,
    precision: Precision,
) -> Plan {
    let segments: Arc<[Segment]> = packed
        .segments()
        .map(|rows| Segment {
            queries: rows.clone(),
            keys: rows,
            first_position: 0,
        })
        .collect();
    Plan {
        heads: config.num_heads,
        d_kv: config.d_kv,
        visibility,
        segments,
        precision,
    }
}
