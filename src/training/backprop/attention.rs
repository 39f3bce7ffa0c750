//! The two attentions, there and back: `x + o(attention(q, k, v of norm(x)))`, or with keys and values of the encoder's output. Must equal Hugging Face's
//! `T5LayerSelfAttention` and `T5LayerCrossAttention`, and their gradients.

use super::arena::Buffer;
use super::pass::{Pass, add, at};
use super::weights::{CrossAttention, SelfAttention};
use crate::kernels::cpu::attend as forward;
use crate::kernels::cpu::attention::{Attention, Heads};
use crate::kernels::cpu::attention_backward::{
    self as backward, AttentionGradients as Gradients, HeadsMut,
};
use crate::kernels::cpu::packed_weight::Precision;
use crate::kernels::dropout::Dropout;
use crate::kernels::plan::{Bias, Segment, Visibility};
use crate::model::Config;

/// Who attends to whom.
pub(super) struct Plan {
    pub visibility: Visibility,
    pub segments: Vec<Segment>,
}

/// The position bias that all layers of a stack share, `(2 max_distance + 1, heads)`, and its gradient.
pub(super) struct PositionBias {
    pub by_distance: Vec<f32>,
    pub gradient: Vec<f32>,
}

/// The encoder's output and its gradient.
pub(super) struct Source<'a> {
    pub encoded: &'a [f32],
    pub plan: Plan,
    pub gradient: Buffer,
}

/// What self-attention keeps for its way back.
pub(super) struct Attended {
    qkv: Buffer,
    mixed: Buffer,
}

/// What attention to the source keeps.
pub(super) struct Crossed {
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
    plan: &'a Plan,
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

impl Pass<'_> {
    /// Self-attention up to its output projection.
    pub fn attend(
        &self,
        weights: &SelfAttention,
        x: &[f32],
        bias: &PositionBias,
        plan: &Plan,
        dropout: Option<Dropout>,
    ) -> Attended {
        let inner = self.config.inner_dim();
        let qkv = self.product(&self.norm(x, &weights.norm), &weights.qkv);
        let mut mixed = self.arena.buffer(qkv.len() / 3);
        let heads = self_heads(&qkv, inner);
        let attention = kernel(self.config, heads, Some(bias), plan, at(dropout, 0));
        forward::attend(self.isa, &attention, &mut mixed);
        Attended { qkv, mixed }
    }

    /// `x + output(attention)`.
    pub fn attended(
        &self,
        weights: &SelfAttention,
        kept: &Attended,
        x: &[f32],
        dropout: Option<Dropout>,
    ) -> Buffer {
        self.branch(&kept.mixed, &weights.output, x, at(dropout, 1))
    }

    /// `d` becomes the gradient of `x` from that of [`Pass::attended`].
    #[expect(
        clippy::too_many_arguments,
        reason = "what the way there had, and the gradient"
    )]
    pub fn attend_back(
        &mut self,
        weights: &SelfAttention,
        kept: Attended,
        x: &[f32],
        bias: &mut PositionBias,
        plan: &Plan,
        dropout: Option<Dropout>,
        d: &mut [f32],
    ) {
        let inner = self.config.inner_dim();
        let Attended { qkv, mixed } = kept;
        let d_mixed = self.branch_back(&mixed, &weights.output, d, at(dropout, 1));
        let mut d_qkv = self.arena.buffer(qkv.len());
        let [dq, dk, dv] = HeadsMut::split(&mut d_qkv, 3 * inner, [0, inner, 2 * inner]);
        let heads = self_heads(&qkv, inner);
        let attention = kernel(self.config, heads, Some(bias), plan, at(dropout, 0));
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
        let normed = self.norm(x, &weights.norm);
        let d_normed = self.product_back(&normed, &weights.qkv, &d_qkv);
        self.norm_back(x, &weights.norm, &d_normed, d);
    }

    /// Attention to the source up to its output projection.
    pub fn cross(
        &self,
        weights: &CrossAttention,
        x: &[f32],
        source: &Source<'_>,
        dropout: Option<Dropout>,
    ) -> Crossed {
        let q = self.product(&self.norm(x, &weights.norm), &weights.q);
        let kv = self.product(source.encoded, &weights.kv);
        let mut mixed = self.arena.buffer(q.len());
        let heads = cross_heads(&q, &kv, self.config.inner_dim());
        let attention = kernel(self.config, heads, None, &source.plan, at(dropout, 0));
        forward::attend(self.isa, &attention, &mut mixed);
        Crossed { q, kv, mixed }
    }

    /// `x + output(attention)`.
    pub fn crossed(
        &self,
        weights: &CrossAttention,
        kept: &Crossed,
        x: &[f32],
        dropout: Option<Dropout>,
    ) -> Buffer {
        self.branch(&kept.mixed, &weights.output, x, at(dropout, 1))
    }

    /// `d` becomes the gradient of `x` from that of [`Pass::crossed`]; adds that of the source.
    pub fn cross_back(
        &mut self,
        weights: &CrossAttention,
        kept: Crossed,
        x: &[f32],
        source: &mut Source<'_>,
        dropout: Option<Dropout>,
        d: &mut [f32],
    ) {
        let inner = self.config.inner_dim();
        let Crossed { q, kv, mixed } = kept;
        let d_mixed = self.branch_back(&mixed, &weights.output, d, at(dropout, 1));
        let mut d_q = self.arena.buffer(q.len());
        let mut d_kv = self.arena.buffer(kv.len());
        let [dq] = HeadsMut::split(&mut d_q, inner, [0]);
        let [dk, dv] = HeadsMut::split(&mut d_kv, 2 * inner, [0, inner]);
        let heads = cross_heads(&q, &kv, inner);
        let attention = kernel(self.config, heads, None, &source.plan, at(dropout, 0));
        let gradients = Gradients {
            out: &mixed,
            grad: &d_mixed,
            dq,
            dk,
            dv,
        };
        backward::attend(self.isa, &attention, &gradients);
        drop((d_mixed, mixed, q, kv));
        self.product_back_onto(source.encoded, &weights.kv, &d_kv, &mut source.gradient);
        drop(d_kv);
        let normed = self.norm(x, &weights.norm);
        let d_normed = self.product_back(&normed, &weights.q, &d_q);
        self.norm_back(x, &weights.norm, &d_normed, d);
    }
}
