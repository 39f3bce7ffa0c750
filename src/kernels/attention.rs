//! Packed attention as a candle operation: segments attend within themselves, or targets to their sources, with T5's bias by distance.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::cpu::Isa;
use super::cpu::attention::{self as cpu, Attention, Bias, Heads};
use super::{cpu_f32, plain};

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
    /// Which rows belong together; query rows ascend without a gap.
    pub segments: Arc<[Segment]>,
}

/// Queries `q (rows, heads d_kv)` of each segment attend to its keys and values `kv (rows, 2 heads d_kv)`, keys beside values; columns may be
/// part of a wider matrix. `bias (2 max_distance + 1, heads)` is added by `key - query`. Scores are not scaled. Returns `(rows of q, heads d_kv)`.
///
/// # Errors
/// Where shapes do not fit the plan.
pub fn attention(q: &Tensor, kv: &Tensor, bias: Option<&Tensor>, plan: &Plan) -> Result<Tensor> {
    let inner = plan.heads * plan.d_kv;
    if q.dims2()?.1 != inner || kv.dims2()?.1 != 2 * inner {
        let (q, kv) = (q.shape(), kv.shape());
        candle_core::bail!(
            "attention of {} heads of {} was given {q:?} and {kv:?}",
            plan.heads,
            plan.d_kv
        );
    }
    if !q.device().is_cpu() {
        return plain::attention(q, kv, bias, plan);
    }
    match bias {
        Some(bias) => q.apply_op3_no_bwd(kv, bias, &PackedAttention(plan.clone())),
        None => q.apply_op2_no_bwd(kv, &PackedAttention(plan.clone())),
    }
}

struct PackedAttention(Plan);

impl PackedAttention {
    fn run(
        &self,
        q: Heads<'_>,
        rows: usize,
        kv: Heads<'_>,
        bias: Option<Bias<'_>>,
    ) -> (CpuStorage, Shape) {
        let Plan {
            heads,
            d_kv,
            visibility,
            segments,
        } = &self.0;
        let inner = heads * d_kv;
        let v = Heads {
            offset: kv.offset + inner,
            ..kv
        };
        let (heads, d_kv, visibility) = (*heads, *d_kv, *visibility);
        let attention = Attention {
            q,
            k: kv,
            v,
            heads,
            d_kv,
            bias,
            visibility,
            segments,
        };
        let mut out = vec![0.0; rows * inner];
        cpu::attend(Isa::current(), &attention, &mut out);
        (CpuStorage::F32(out), Shape::from((rows, inner)))
    }
}

/// A matrix whose rows are contiguous, though other columns may lie between them.
fn heads<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Heads<'a>> {
    let &[stride, 1] = layout.stride() else {
        candle_core::bail!(
            "attention needs rows that are contiguous, not strides {:?}",
            layout.stride()
        );
    };
    Ok(Heads {
        data: storage.as_slice::<f32>()?,
        stride,
        offset: layout.start_offset(),
    })
}

impl CustomOp2 for PackedAttention {
    fn name(&self) -> &'static str {
        "packed-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.run(
            heads(q, q_layout)?,
            q_layout.dims()[0],
            heads(kv, kv_layout)?,
            None,
        ))
    }
}

impl CustomOp3 for PackedAttention {
    fn name(&self) -> &'static str {
        "packed-attention-with-bias"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let by_distance = cpu_f32(bias, bias_layout)?;
        let bias = Bias {
            by_distance,
            max_distance: bias_layout.dims()[0] / 2,
        };
        Ok(self.run(
            heads(q, q_layout)?,
            q_layout.dims()[0],
            heads(kv, kv_layout)?,
            Some(bias),
        ))
    }
}
