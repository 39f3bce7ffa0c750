//! The sub-layers of both stacks: self-attention, attention to the source, feed-forward, each with
//! its norm.
//!
//! Every sub-layer is `x + f(norm(x))`. Projections of the same input are one matrix product:
//! queries, keys and values; both inputs of a gated feed-forward block. The residual is added
//! inside the last product.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::mode::SubLayerDropout;
use super::names::{AttentionNames, FeedForwardNames};
use super::{Config, Loader, Packed};
use crate::kernels::attention::{attention, self_attention};
use crate::kernels::elementwise::{activate, rms_norm};
use crate::kernels::gated_linear::GatedWeight;
use crate::kernels::linear::Weight;
use crate::kernels::plan::{Activation, AttentionPlan, Precision, Segment, Visibility};

/// T5's layer norm: division by the root mean square, without a mean or a bias.
#[derive(Clone, Debug)]
pub struct Norm {
    weight: Tensor,
    epsilon: f64,
}

impl Norm {
    pub(super) fn load(loader: &Loader<'_>, config: &Config, name: &str) -> Result<Self> {
        let weight = loader.tensor_f32(name, &[config.d_model])?;
        Ok(Self {
            weight,
            epsilon: config.layer_norm_epsilon,
        })
    }

    /// The norm of every row of `x (tokens, d_model)`.
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
    pub(super) fn load(
        loader: &Loader<'_>,
        config: &Config,
        names: &AttentionNames,
    ) -> Result<Self> {
        let inner = config.inner_dim();
        let AttentionNames { norm, q, k, v, o } = names;
        Ok(Self {
            norm: Norm::load(loader, config, norm)?,
            // T5 does not scale its scores, so the softmax magnifies the rounding errors of queries
            // and keys.
            qkv: loader.precise_linear(&[(q, inner), (k, inner), (v, inner)], config.d_model)?,
            output: loader.linear(&[(o, config.d_model)], inner)?,
            inner,
        })
    }

    /// The precision of the products.
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
    pub fn forward(
        &self,
        x: &Tensor,
        bias: &Tensor,
        plan: &AttentionPlan,
        dropout: SubLayerDropout,
    ) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm.forward(x)?)?;
        let mixed = self_attention(&qkv, bias, plan, dropout.inside)?;
        dropout.add_branch(&self.output, &mixed, x)
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
    pub(super) fn load(
        loader: &Loader<'_>,
        config: &Config,
        names: &AttentionNames,
    ) -> Result<Self> {
        let inner = config.inner_dim();
        let AttentionNames { norm, q, k, v, o } = names;
        Ok(Self {
            norm: Norm::load(loader, config, norm)?,
            q: loader.precise_linear(&[(q, inner)], config.d_model)?,
            kv: loader.precise_linear(&[(k, inner), (v, inner)], config.d_model)?,
            output: loader.linear(&[(o, config.d_model)], inner)?,
        })
    }

    /// Keys and values, side by side, of the encoder's output `(source tokens, d_model)`. They are
    /// the same for every target position.
    pub fn source(&self, encoded: &Tensor) -> Result<Tensor> {
        self.kv.forward(encoded)
    }

    /// `x + attention(norm(x), source)`.
    pub fn forward(
        &self,
        x: &Tensor,
        source: &Tensor,
        plan: &AttentionPlan,
        dropout: SubLayerDropout,
    ) -> Result<Tensor> {
        let q = self.q.forward(&self.norm.forward(x)?)?;
        let mixed = attention(&q, source, None, plan, dropout.inside)?;
        dropout.add_branch(&self.output, &mixed, x)
    }
}

/// The feed-forward block with its norm.
#[derive(Debug)]
pub struct FeedForwardLayer {
    norm: Norm,
    input: Input,
    output: Weight,
}

/// The input projections and the activation: from `norm(x)` to the input of the output projection.
#[derive(Debug)]
enum Input {
    Plain(Weight, Activation),
    Gated(GatedWeight, Activation),
}

impl Input {
    fn load(loader: &Loader<'_>, config: &Config, names: &FeedForwardNames) -> Result<Self> {
        let (d_model, d_ff) = (config.d_model, config.d_ff);
        let gated = || loader.gated([&names.wi_0, &names.wi_1], d_ff, d_model);
        let activation = config.feed_forward_proj.activation();
        Ok(if config.feed_forward_proj.is_gated() {
            Self::Gated(gated()?, activation)
        } else {
            Self::Plain(loader.linear(&[(&names.wi, d_ff)], d_model)?, activation)
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
    pub(super) fn load(
        loader: &Loader<'_>,
        config: &Config,
        names: &FeedForwardNames,
    ) -> Result<Self> {
        Ok(Self {
            norm: Norm::load(loader, config, &names.norm)?,
            input: Input::load(loader, config, names)?,
            output: loader.linear(&[(&names.wo, config.d_model)], config.d_ff)?,
        })
    }

    /// `x + wo(act(wi_0 norm(x)) · wi_1 norm(x))`, or without the gate.
    pub fn forward(&self, x: &Tensor, dropout: SubLayerDropout) -> Result<Tensor> {
        let hidden = self.input.forward(&self.norm.forward(x)?)?;
        dropout.add_branch(&self.output, &dropout.drop_inside(&hidden)?, x)
    }
}

/// The plan of a self-attention: every segment attends to itself.
pub(super) fn self_plan(
    config: &Config,
    packed: &Packed,
    visibility: Visibility,
    precision: Precision,
) -> AttentionPlan {
    let segments: Arc<[Segment]> = packed
        .segments()
        .map(|rows| Segment {
            queries: rows.clone(),
            keys: rows,
            first_position: 0,
        })
        .collect();
    AttentionPlan {
        heads: config.num_heads,
        d_kv: config.d_kv,
        visibility,
        segments,
        precision,
    }
}
