//! The kernels as candle's own operations: on any device, in any float type, with gradients. They
//! run where a device has no kernel of its own, and they are the reference that kernels are checked
//! against.

use std::ops::Range;

use candle_core::{D, DType, Result, Tensor};

use super::dropout::Dropout;
use super::plan::{Activation, AttentionPlan, Pool, Segment, Visibility};

/// See [`super::elementwise::rms_norm`]. The mean of squares is f32; the scaled values are rounded
/// to the working type before the weight.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let variance = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let scaled = wide.broadcast_div(&(variance + epsilon)?.sqrt()?)?;
    scaled
        .to_dtype(x.dtype())?
        .broadcast_mul(&weight.to_dtype(x.dtype())?)
}

/// See [`super::elementwise::activate`].
pub fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Relu => x.relu(),
        Activation::GeluNew => x.gelu(),
        Activation::Silu => x.silu(),
    }
}

/// See [`super::elementwise::gated`].
pub fn gated(activation: Activation, x: &Tensor) -> Result<Tensor> {
    let d_ff = x.dim(D::Minus1)? / 2;
    let gate = activate(activation, &x.narrow(D::Minus1, 0, d_ff)?.contiguous()?)?;
    gate * x.narrow(D::Minus1, d_ff, d_ff)?
}

/// See [`super::pool::pool`]. Segment by segment.
pub fn pool(x: &Tensor, segments: &[Range<usize>], kind: Pool) -> Result<Tensor> {
    let pooled = segments.iter().map(|segment| {
        let rows = x
            .narrow(0, segment.start, segment.len())?
            .to_dtype(DType::F32)?;
        let mean = rows.mean(0)?;
        match kind {
            Pool::Mean => Ok(mean),
            Pool::Max => rows.max(0),
            Pool::Min => rows.min(0),
            Pool::Std => rows.broadcast_sub(&mean)?.sqr()?.mean(0)?.sqrt(),
        }
    });
    Tensor::stack(&pooled.collect::<Result<Vec<_>>>()?, 0)
}

/// See [`super::attention::attention`]. Segment by segment, each with its whole map of scores.
pub fn attention(
    q: &Tensor,
    kv: &Tensor,
    bias: Option<&Tensor>,
    plan: &AttentionPlan,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let inner = plan.heads * plan.d_kv;
    let mut outputs = Vec::with_capacity(plan.segments.len());
    for segment in plan.segments.iter() {
        // (heads, rows, d_kv)
        let heads = |x: &Tensor, rows: &Range<usize>, column: usize| {
            x.narrow(0, rows.start, rows.len())?
                .narrow(1, column, inner)?
                .reshape((rows.len(), plan.heads, plan.d_kv))?
                .transpose(0, 1)?
                .contiguous()
        };
        let q = heads(q, &segment.queries, 0)?;
        let (k, v) = (
            heads(kv, &segment.keys, 0)?,
            heads(kv, &segment.keys, inner)?,
        );
        let mut scores = q.matmul(&k.t()?)?.to_dtype(DType::F32)?;
        if let Some(bias) = bias {
            scores = scores.add(&spread_bias(bias, segment)?)?;
        }
        if plan.visibility == Visibility::Causal {
            scores = scores.broadcast_add(&causal_mask(segment, scores.device())?)?;
        }
        let mut weights = softmax(&scores)?;
        if let Some(dropout) = dropout {
            weights = (weights * dropout_factors(dropout, plan, segment, scores.device())?)?;
        }
        let weights = weights.to_dtype(v.dtype())?;
        let mixed = weights.matmul(&v)?.transpose(0, 1)?.contiguous()?;
        outputs.push(mixed.reshape((segment.queries.len(), inner))?);
    }
    Tensor::cat(&outputs, 0)
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let exponentials = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
        .exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)
}

/// Dropout factors of the segment, `(heads, queries, keys)`.
fn dropout_factors(
    dropout: Dropout,
    plan: &AttentionPlan,
    segment: &Segment,
    device: &candle_core::Device,
) -> Result<Tensor> {
    let keys = segment.keys.len();
    let mut factors = Vec::with_capacity(plan.heads * segment.queries.len() * keys);
    for head in 0..plan.heads {
        for query in segment.queries.clone() {
            let mask = dropout.at((query * plan.heads + head) as u64).mask();
            factors.extend((0..keys as u32).map(|key| mask.factor(key)));
        }
    }
    Tensor::from_vec(factors, (plan.heads, segment.queries.len(), keys), device)
}

/// The weights `(queries, keys)`, f32, with which one head of one segment attends: by which
/// [`attention`] averages values. Computed only to be shown.
///
/// # Errors
/// Where shapes do not fit the plan.
pub fn attention_map(
    q: &Tensor,
    k: &Tensor,
    bias: &Tensor,
    plan: &AttentionPlan,
    segment: &Segment,
    head: usize,
) -> Result<Tensor> {
    let part = |x: &Tensor, rows: &Range<usize>| {
        x.narrow(0, rows.start, rows.len())?
            .narrow(1, head * plan.d_kv, plan.d_kv)?
            .contiguous()
    };
    let (q, k) = (part(q, &segment.queries)?, part(k, &segment.keys)?);
    let scores = q.matmul(&k.t()?)?.to_dtype(DType::F32)?;
    let bias = spread_bias(&bias.narrow(1, head, 1)?.contiguous()?, segment)?;
    softmax(&(scores + bias.squeeze(0)?)?)
}

/// The bias of the segment, `(heads, queries, keys)`, in f32.
fn spread_bias(bias: &Tensor, segment: &Segment) -> Result<Tensor> {
    let limit = (bias.dim(0)? / 2) as i64;
    let (queries, keys) = (segment.queries.len(), segment.keys.len());
    let rows: Vec<u32> = (0..queries * keys)
        .map(|i| {
            let distance = (i % keys) as i64 - (i / keys + segment.first_position) as i64;
            (distance.clamp(-limit, limit) + limit) as u32
        })
        .collect();
    let rows = Tensor::new(rows, bias.device())?;
    let spread = bias.to_dtype(DType::F32)?.index_select(&rows, 0)?;
    spread
        .reshape((queries, keys, ()))?
        .permute((2, 0, 1))?
        .contiguous()
}

/// `(1, queries, keys)`: 0 where a query may see a key, -∞ elsewhere.
fn causal_mask(segment: &Segment, device: &candle_core::Device) -> Result<Tensor> {
    let (queries, keys) = (segment.queries.len(), segment.keys.len());
    let mask: Vec<f32> = (0..queries * keys)
        .map(|i| {
            if i % keys > i / keys + segment.first_position {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        })
        .collect();
    Tensor::from_vec(mask, (1, queries, keys), device)
}
