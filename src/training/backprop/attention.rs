//! The forward and backward pass of both attentions: `x + o(attention(q, k, v of norm(x)))`, where
//! keys and values come from `norm(x)` or from the encoder's output. Must equal Hugging Face's
//! `T5LayerSelfAttention` and `T5LayerCrossAttention`, and their gradients.

use super::arena::Buffer;
use super::pass::{BatchPass, SubLayer, add};
use super::weights::{CrossAttentionMatrices, SelfAttentionMatrices};
use crate::kernels::cpu::attend as forward;
use crate::kernels::cpu::attention::{Attention, Heads};
use crate::kernels::cpu::attention_backward::{
    self as backward, AttentionGradients as Gradients, HeadsMut,
};
use crate::kernels::dropout::Dropout;
use crate::kernels::plan::{Bias, Precision, Segment, Visibility};
use crate::model::Config;

/// The segments of a batch: which queries attend to which keys.
pub(super) struct SegmentPlan {
    pub visibility: Visibility,
    pub segments: Vec<Segment>,
}

/// The position bias that all layers of a stack share, `(2 max_distance + 1, heads)`, and its
/// gradient.
pub(super) struct PositionBias {
    pub by_distance: Vec<f32>,
    pub gradient: Vec<f32>,
}

/// The encoder's output, which the decoder attends to, and the gradient of that output.
pub(super) struct EncodedSource<'a> {
    pub encoded: &'a [f32],
    pub plan: SegmentPlan,
    pub gradient: Buffer,
}

/// The values of self-attention that its backward pass reads.
pub(super) struct SelfAttentionActivations {
    qkv: Buffer,
    mixed: Buffer,
}

/// The values of cross-attention that its backward pass reads.
pub(super) struct CrossAttentionActivations {
    q: Buffer,
    kv: Buffer,
    mixed: Buffer,
}

/// Columns of a matrix from `offset` on.
fn columns(data: &[f32], stride: usize, offset: usize) -> Heads<'_> {
    Heads {
        data,
        stride,
        offset,
    }
}

fn kernel<'a>(
    config: &Config,
    [q, k, v]: [Heads<'a>; 3],
    bias: Option<&'a PositionBias>,
    plan: &'a SegmentPlan,
    dropout: Option<Dropout>,
) -> Attention<'a> {
    Attention {
        q,
        k,
        v,
        heads: config.num_heads,
        d_kv: config.d_kv,
        bias: bias.map(|bias| Bias {
            by_distance: &bias.by_distance,
            max_distance: config.relative_attention_max_distance,
        }),
        visibility: plan.visibility,
        segments: &plan.segments,
        dropout,
        precision: Precision::F32,
    }
}

fn self_heads(qkv: &[f32], inner: usize) -> [Heads<'_>; 3] {
    [0, inner, 2 * inner].map(|offset| columns(qkv, 3 * inner, offset))
}

fn cross_heads<'a>(q: &'a [f32], kv: &'a [f32], inner: usize) -> [Heads<'a>; 3] {
    let [k, v] = [0, inner].map(|offset| columns(kv, 2 * inner, offset));
    [columns(q, inner, 0), k, v]
}

impl BatchPass<'_> {
    /// Self-attention without its output projection.
    pub fn self_attention(
        &self,
        layer: &SubLayer<'_, SelfAttentionMatrices>,
        bias: &PositionBias,
        plan: &SegmentPlan,
    ) -> SelfAttentionActivations {
        let inner = self.config.inner_dim();
        let qkv = self.product(&self.norm(layer.x, &layer.weights.norm), &layer.weights.qkv);
        let mut mixed = self.arena.buffer(qkv.len() / 3);
        let heads = self_heads(&qkv, inner);
        let attention = kernel(self.config, heads, Some(bias), plan, layer.dropout.inside);
        forward::attend(self.isa, &attention, &mut mixed);
        SelfAttentionActivations { qkv, mixed }
    }

    /// `x + output(attention)`.
    pub fn self_attention_output(
        &self,
        layer: &SubLayer<'_, SelfAttentionMatrices>,
        activations: &SelfAttentionActivations,
    ) -> Buffer {
        let output = &layer.weights.output;
        self.branch(&activations.mixed, output, layer.x, layer.dropout.branch)
    }

    /// Turns `d`, the gradient of [`BatchPass::self_attention_output`], into the gradient of `x`.
    pub fn self_attention_backward(
        &mut self,
        layer: &SubLayer<'_, SelfAttentionMatrices>,
        activations: SelfAttentionActivations,
        bias: &mut PositionBias,
        plan: &SegmentPlan,
        d: &mut [f32],
    ) {
        let (weights, inner) = (layer.weights, self.config.inner_dim());
        let SelfAttentionActivations { qkv, mixed } = activations;
        let d_mixed = self.branch_backward(&mixed, &weights.output, d, layer.dropout.branch);
        let mut d_qkv = self.arena.buffer(qkv.len());
        let [dq, dk, dv] = HeadsMut::split(&mut d_qkv, 3 * inner, [0, inner, 2 * inner]);
        let heads = self_heads(&qkv, inner);
        let attention = kernel(self.config, heads, Some(bias), plan, layer.dropout.inside);
        let gradients = Gradients {
            out: &mixed,
            grad: &d_mixed,
            dq,
            dk,
            dv,
        };
        let d_bias = backward::attend(self.isa, &attention, &gradients);
        add(&mut bias.gradient, &d_bias);
        drop((d_mixed, mixed, qkv));
        let normed = self.norm(layer.x, &weights.norm);
        let d_normed = self.product_backward(&normed, &weights.qkv, &d_qkv);
        self.norm_backward(layer.x, &weights.norm, &d_normed, d);
    }

    /// Attention to the source without its output projection.
    pub fn cross_attention(
        &self,
        layer: &SubLayer<'_, CrossAttentionMatrices>,
        source: &EncodedSource<'_>,
    ) -> CrossAttentionActivations {
        let weights = layer.weights;
        let q = self.product(&self.norm(layer.x, &weights.norm), &weights.q);
        let kv = self.product(source.encoded, &weights.kv);
        let mut mixed = self.arena.buffer(q.len());
        let heads = cross_heads(&q, &kv, self.config.inner_dim());
        let dropout = layer.dropout.inside;
        let attention = kernel(self.config, heads, None, &source.plan, dropout);
        forward::attend(self.isa, &attention, &mut mixed);
        CrossAttentionActivations { q, kv, mixed }
    }

    /// `x + output(attention)`.
    pub fn cross_attention_output(
        &self,
        layer: &SubLayer<'_, CrossAttentionMatrices>,
        activations: &CrossAttentionActivations,
    ) -> Buffer {
        let output = &layer.weights.output;
        self.branch(&activations.mixed, output, layer.x, layer.dropout.branch)
    }

    /// Turns `d`, the gradient of [`BatchPass::cross_attention_output`], into the gradient of `x`,
    /// and adds the gradient of the source.
    pub fn cross_attention_backward(
        &mut self,
        layer: &SubLayer<'_, CrossAttentionMatrices>,
        activations: CrossAttentionActivations,
        source: &mut EncodedSource<'_>,
        d: &mut [f32],
    ) {
        let (weights, inner) = (layer.weights, self.config.inner_dim());
        let CrossAttentionActivations { q, kv, mixed } = activations;
        let d_mixed = self.branch_backward(&mixed, &weights.output, d, layer.dropout.branch);
        let mut d_q = self.arena.buffer(q.len());
        let mut d_kv = self.arena.buffer(kv.len());
        let [dq] = HeadsMut::split(&mut d_q, inner, [0]);
        let [dk, dv] = HeadsMut::split(&mut d_kv, 2 * inner, [0, inner]);
        let heads = cross_heads(&q, &kv, inner);
        let dropout = layer.dropout.inside;
        let attention = kernel(self.config, heads, None, &source.plan, dropout);
        let gradients = Gradients {
            out: &mixed,
            grad: &d_mixed,
            dq,
            dk,
            dv,
        };
        backward::attend(self.isa, &attention, &gradients);
        drop((d_mixed, mixed, q, kv));
        self.product_backward_onto(source.encoded, &weights.kv, &d_kv, &mut source.gradient);
        drop(d_kv);
        let normed = self.norm(layer.x, &weights.norm);
        let d_normed = self.product_backward(&normed, &weights.q, &d_q);
        self.norm_backward(layer.x, &weights.norm, &d_normed, d);
    }
}
