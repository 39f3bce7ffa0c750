//! Packed attention as candle operations: segments attend within themselves, with T5's bias by distance.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::cpu::Isa;
use super::cpu::attention::{self as cpu, Attention, Bias, Heads};
use super::cpu_f32;

pub use super::cpu::attention::{Segment, Visibility};

/// Shape and segments of one attention.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub d_kv: usize,
    /// What a query sees.
    pub visibility: Visibility,
    /// Which rows belong together.
    pub segments: Arc<[Segment]>,
}

struct SelfAttention(Plan);

impl CustomOp2 for SelfAttention {
    fn name(&self) -> &'static str {
        "packed-self-attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Plan {
            heads,
            d_kv,
            visibility,
            segments,
        } = &self.0;
        let (rows, stride) = layout.shape().dims2()?;
        let inner = heads * d_kv;
        if stride != 3 * inner {
            candle_core::bail!(
                "self-attention of {heads} heads of {d_kv} needs rows of {}, not {stride}",
                3 * inner
            );
        }
        let data = cpu_f32(qkv, layout)?;
        let by_distance = cpu_f32(bias, bias_layout)?;
        let part = |which: usize| Heads {
            data,
            stride,
            offset: which * inner,
        };
        let attention = Attention {
            q: part(0),
            k: part(1),
            v: part(2),
            heads: *heads,
            d_kv: *d_kv,
            bias: Some(Bias {
                by_distance,
                max_distance: bias_layout.shape().dims2()?.0 / 2,
            }),
            visibility: *visibility,
            segments,
        };
        let mut out = vec![0.0; rows * inner];
        cpu::attend(Isa::current(), &attention, &mut out);
        Ok((CpuStorage::F32(out), Shape::from((rows, inner))))
    }
}

/// Self-attention within each segment of `qkv (tokens, 3 heads d_kv)` = queries beside keys beside values, with the bias
/// `(2 max_distance + 1, heads)` by `key - query`; shape `(tokens, heads d_kv)`. Scores are not scaled.
///
/// # Errors
/// Where shapes do not fit the plan.
pub fn self_attention(qkv: &Tensor, bias: &Tensor, plan: &Plan) -> Result<Tensor> {
    qkv.apply_op2_no_bwd(bias, &SelfAttention(plan.clone()))
}

struct CrossAttention(Plan);

impl CustomOp2 for CrossAttention {
    fn name(&self) -> &'static str {
        "packed-cross-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Plan {
            heads,
            d_kv,
            visibility,
            segments,
        } = &self.0;
        let (rows, inner) = q_layout.shape().dims2()?;
        let (_, stride) = kv_layout.shape().dims2()?;
        if inner != heads * d_kv || stride != 2 * inner {
            candle_core::bail!(
                "cross-attention of {heads} heads of {d_kv} was given rows of {inner} and {stride}"
            );
        }
        let data = cpu_f32(kv, kv_layout)?;
        let attention = Attention {
            q: Heads {
                data: cpu_f32(q, q_layout)?,
                stride: inner,
                offset: 0,
            },
            k: Heads {
                data,
                stride,
                offset: 0,
            },
            v: Heads {
                data,
                stride,
                offset: inner,
            },
            heads: *heads,
            d_kv: *d_kv,
            bias: None,
            visibility: *visibility,
            segments,
        };
        let mut out = vec![0.0; rows * inner];
        cpu::attend(Isa::current(), &attention, &mut out);
        Ok((CpuStorage::F32(out), Shape::from((rows, inner))))
    }
}

/// Queries `q (target tokens, heads d_kv)` of each segment attend to `kv (source tokens, 2 heads d_kv)` = keys beside values of the same
/// segment; no bias; shape of `q`.
///
/// # Errors
/// Where shapes do not fit the plan.
pub fn cross_attention(q: &Tensor, kv: &Tensor, plan: &Plan) -> Result<Tensor> {
    q.apply_op2_no_bwd(kv, &CrossAttention(plan.clone()))
}
