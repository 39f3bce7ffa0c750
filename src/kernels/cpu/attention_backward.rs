//! Gradients of packed attention on the CPU. Probabilities are recomputed, 96 queries of
//! one segment and head at a time, so that no L × L map is in memory.
//!
//! With `p = softmax(q kᵀ + bias)`, dropout factors `m` and `o = (m p) v`: `dp = m (do vᵀ)`, `ds =
//! p (dp − Σ do·o)`, `dq = ds k`, `dk = dsᵀ q`, `dv = (m p)ᵀ do`, and the gradient of the bias at a
//! distance is the sum of `ds` along its diagonal (Dao et al. 2022, arXiv 2205.14135, appendix
//! B.2). One task is one segment and one head; its sums run in one fixed order, so results do not
//! depend on threads or on the other segments of the batch.
#![expect(
    clippy::inline_always,
    reason = "kernels must be compiled inside the function that enables their instructions"
)]
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

mod block;

use std::cell::RefCell;

use rayon::prelude::*;

use self::block::{DEPTH, QUERIES, QueryBlock, STRIDE, key_gradient, query_gradient, scores};
use super::attention::{Attention, MAX_HEAD};
use super::isa::{Isa, with_isa};
use super::layout::{LANES, PANEL};
use super::shared::SharedMut;
use super::simd::{Lanes, exp};
use crate::kernels::plan::{Segment, Visibility};

/// Gradients of heads inside a wider matrix: row `r`, head `h` starts at `r * stride + offset + h *
/// d_kv`.
#[derive(Clone, Copy)]
pub struct HeadsMut<'a> {
    target: SharedMut,
    stride: usize,
    offset: usize,
    len: usize,
    matrix: std::marker::PhantomData<&'a mut [f32]>,
}

impl<'a> HeadsMut<'a> {
    /// Splits `matrix`, whose rows are `stride` long, into the columns from each offset on. The
    /// parts must not overlap.
    pub fn split<const N: usize>(
        matrix: &'a mut [f32],
        stride: usize,
        offsets: [usize; N],
    ) -> [Self; N] {
        let (target, len) = (SharedMut(matrix.as_mut_ptr()), matrix.len());
        offsets.map(|offset| HeadsMut {
            target,
            stride,
            offset,
            len,
            matrix: std::marker::PhantomData,
        })
    }

    /// Writes one head of a row.
    ///
    /// # Safety
    /// No other thread may write the same row and head.
    unsafe fn write(&self, row: usize, head: usize, values: &[f32]) {
        let first = row * self.stride + self.offset + head * values.len();
        assert!(first + values.len() <= self.len, "rows of the gradient");
        // SAFETY: in bounds as just checked; the caller promises that no other thread writes here.
        unsafe {
            let target = self.target.get().add(first);
            std::ptr::copy_nonoverlapping(values.as_ptr(), target, values.len());
        }
    }
}

/// The operands of the backward pass beside the inputs of the forward pass.
pub struct AttentionGradients<'a> {
    /// The result of the forward pass, `(rows of Q, heads * d_kv)`.
    pub out: &'a [f32],
    /// Gradient of the result.
    pub grad: &'a [f32],
    /// Gradient of the queries. Rows outside every segment keep their values.
    pub dq: HeadsMut<'a>,
    /// Gradient of the keys.
    pub dk: HeadsMut<'a>,
    /// Gradient of the values.
    pub dv: HeadsMut<'a>,
}

/// Working memory of one task.
#[derive(Default)]
pub(super) struct GradientScratch {
    /// `[key / 32][d][key % 32]`.
    key_panels: Vec<f32>,
    value_panels: Vec<f32>,
    /// Keys in rows of `padded_d`.
    key_rows: Vec<f32>,
    /// Queries in rows of [`STRIDE`].
    queries: Vec<f32>,
    grads: Vec<f32>,
    /// `[key / DEPTH][query][STRIDE]`: scores, then probabilities after dropout.
    weights: Vec<f32>,
    /// Gradients of the scores, in the same layout.
    slopes: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    /// Bias by `key - query + last query`.
    bias: Vec<f32>,
    diagonals: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<GradientScratch> = RefCell::new(GradientScratch::default());
}

/// Writes the gradients of queries, keys and values, and returns the gradient of the bias, `(2
/// max_distance + 1, heads)`, empty without a bias.
///
/// # Panics
/// If shapes do not fit, or two segments share keys.
pub fn attend(isa: Isa, attention: &Attention<'_>, gradients: &AttentionGradients<'_>) -> Vec<f32> {
    assert!(
        attention.d_kv <= MAX_HEAD,
        "heads are at most {MAX_HEAD} wide"
    );
    assert!(
        keys_are_disjoint(attention.segments),
        "segments must not share keys"
    );
    let heads = attention.heads;
    let tasks: Vec<(usize, usize)> = (0..attention.segments.len())
        .flat_map(|segment| (0..heads).map(move |head| (segment, head)))
        .collect();
    let distances = attention.bias.map_or(0, |bias| 2 * bias.max_distance + 1);
    let biases: Vec<Vec<f32>> = tasks
        .par_iter()
        .with_max_len(1)
        .map(|&(segment, head)| {
            let task = GradientTask { attention, gradients, segment: &attention.segments[segment], head };
            let mut bias = vec![0.0; distances];
            SCRATCH.with_borrow_mut(|scratch| {
                // SAFETY: `isa` is available; a task writes only rows and columns of its own
                // segment and head.
                unsafe {
                    with_isa!(isa, run(task: &GradientTask<'_>, scratch: &mut GradientScratch, bias: &mut [f32])(&task, scratch, &mut bias));
                }
            });
            bias
        })
        .collect();
    let mut sum = vec![0.0; distances * heads];
    for ((_, head), bias) in tasks.iter().zip(biases) {
        for (distance, value) in bias.into_iter().enumerate() {
            sum[distance * heads + head] += value;
        }
    }
    sum
}

fn keys_are_disjoint(segments: &[Segment]) -> bool {
    let mut ranges: Vec<_> = segments.iter().map(|segment| &segment.keys).collect();
    ranges.sort_by_key(|range| range.start);
    ranges.windows(2).all(|pair| pair[0].end <= pair[1].start)
}

pub(super) struct GradientTask<'a> {
    pub attention: &'a Attention<'a>,
    pub gradients: &'a AttentionGradients<'a>,
    pub segment: &'a Segment,
    pub head: usize,
}

#[inline(always)]
pub(super) unsafe fn run<V: Lanes>(
    task: &GradientTask<'_>,
    scratch: &mut GradientScratch,
    bias: &mut [f32],
) {
    let (d_kv, segment) = (task.attention.d_kv, task.segment);
    let padded_d = d_kv.next_multiple_of(PANEL);
    task.prepare(scratch, padded_d);
    let mut dq_row = [0.0; MAX_HEAD];
    for first in (0..segment.queries.len()).step_by(QUERIES) {
        let rows = QUERIES.min(segment.queries.len() - first);
        let seen = task.attention.seen(segment, first + rows);
        let block = QueryBlock { first, rows, seen };
        task.copy_queries(&block, scratch, padded_d);
        task.spread_bias(&block, &mut scratch.bias);
        // SAFETY: `prepare` made every buffer as large as these shapes need.
        unsafe {
            scores::<V>(
                &block,
                d_kv,
                &scratch.queries,
                &scratch.key_panels,
                &mut scratch.weights,
            );
            scores::<V>(
                &block,
                d_kv,
                &scratch.grads,
                &scratch.value_panels,
                &mut scratch.slopes,
            );
            scratch.diagonals.fill(0.0);
            for row in 0..rows {
                task.soften::<V>(&block, row, scratch);
            }
            query_gradient::<V>(&block, padded_d, scratch);
            let GradientScratch {
                weights,
                slopes,
                queries,
                grads,
                dk,
                dv,
                ..
            } = scratch;
            key_gradient::<V>(&block, padded_d, slopes, queries, dk);
            key_gradient::<V>(&block, padded_d, weights, grads, dv);
            for row in 0..rows {
                dq_row[..d_kv].copy_from_slice(&scratch.dq[row * padded_d..][..d_kv]);
                let target = segment.queries.start + first + row;
                task.gradients.dq.write(target, task.head, &dq_row[..d_kv]);
            }
        }
        task.fold_diagonals(&block, &scratch.diagonals, bias);
    }
    for key in 0..segment.keys.len() {
        let (row, at) = (segment.keys.start + key, key * padded_d);
        // SAFETY: keys of segments are disjoint, so this row and head are this task's.
        unsafe {
            task.gradients
                .dk
                .write(row, task.head, &scratch.dk[at..][..d_kv]);
            task.gradients
                .dv
                .write(row, task.head, &scratch.dv[at..][..d_kv]);
        }
    }
}

impl GradientTask<'_> {
    /// Sizes the buffers and copies keys and values.
    #[inline(always)]
    fn prepare(&self, scratch: &mut GradientScratch, padded_d: usize) {
        let (d_kv, keys) = (self.attention.d_kv, self.segment.keys.len());
        let panels = keys.next_multiple_of(PANEL) * d_kv;
        let maps = keys.div_ceil(DEPTH) * QUERIES * STRIDE;
        let resize = |buffer: &mut Vec<f32>, len: usize| {
            buffer.clear();
            buffer.resize(len, 0.0);
        };
        resize(&mut scratch.key_panels, panels);
        resize(&mut scratch.value_panels, panels);
        resize(&mut scratch.key_rows, keys * padded_d);
        resize(&mut scratch.dk, keys * padded_d);
        resize(&mut scratch.dv, keys * padded_d);
        resize(&mut scratch.diagonals, QUERIES + keys + LANES);
        resize(&mut scratch.bias, QUERIES + keys + LANES);
        // The rest is written before it is read, so old values may stay.
        scratch.weights.resize(maps, 0.0);
        scratch.slopes.resize(maps, 0.0);
        scratch.queries.resize(QUERIES * STRIDE, 0.0);
        scratch.grads.resize(QUERIES * STRIDE, 0.0);
        scratch.dq.resize(QUERIES * padded_d, 0.0);
        for key in 0..keys {
            let row = self.segment.keys.start + key;
            let (k, v) = (
                self.attention.k.at(row, self.head, d_kv),
                self.attention.v.at(row, self.head, d_kv),
            );
            scratch.key_rows[key * padded_d..][..d_kv].copy_from_slice(k);
            let at = key / PANEL * d_kv * PANEL + key % PANEL;
            for d in 0..d_kv {
                scratch.key_panels[at + d * PANEL] = k[d];
                scratch.value_panels[at + d * PANEL] = v[d];
            }
        }
    }

    #[inline(always)]
    fn copy_queries(&self, block: &QueryBlock, scratch: &mut GradientScratch, padded_d: usize) {
        let d_kv = self.attention.d_kv;
        let inner = self.attention.heads * d_kv;
        for row in 0..block.rows {
            let source = self.segment.queries.start + block.first + row;
            let at = row * STRIDE;
            scratch.queries[at..][..d_kv]
                .copy_from_slice(self.attention.q.at(source, self.head, d_kv));
            scratch.queries[at + d_kv..at + padded_d].fill(0.0);
            let grad = &self.gradients.grad[source * inner + self.head * d_kv..][..d_kv];
            scratch.grads[at..][..d_kv].copy_from_slice(grad);
            scratch.grads[at + d_kv..at + padded_d].fill(0.0);
        }
    }

    /// Distance of key 0 from the last query of the block.
    fn first_distance(&self, block: &QueryBlock) -> isize {
        -((self.segment.first_position + block.first + block.rows - 1) as isize)
    }

    #[inline(always)]
    fn spread_bias(&self, block: &QueryBlock, target: &mut [f32]) {
        let Some(bias) = self.attention.bias else {
            return;
        };
        let first = self.first_distance(block);
        for (i, target) in target[..block.rows + block.seen - 1].iter_mut().enumerate() {
            let row = bias.row(first + i as isize);
            *target = bias.by_distance[row * self.attention.heads + self.head];
        }
    }

    fn fold_diagonals(&self, block: &QueryBlock, diagonals: &[f32], target: &mut [f32]) {
        let Some(bias) = self.attention.bias else {
            return;
        };
        let first = self.first_distance(block);
        for (i, value) in diagonals[..block.rows + block.seen - 1].iter().enumerate() {
            target[bias.row(first + i as isize)] += value;
        }
    }

    /// One query: scores become probabilities, `do vᵀ` becomes the gradient of the scores.
    #[inline(always)]
    unsafe fn soften<V: Lanes>(
        &self,
        block: &QueryBlock,
        row: usize,
        scratch: &mut GradientScratch,
    ) {
        let position = self.segment.first_position + block.first + row;
        let visible = match self.attention.visibility {
            Visibility::All => block.seen,
            Visibility::Causal => block.seen.min(position + 1),
        };
        let query = self.segment.queries.start + block.first + row;
        let inner = self.attention.heads * self.attention.d_kv;
        let head = query * inner + self.head * self.attention.d_kv..;
        let dot: f32 = self.gradients.out[head.clone()][..self.attention.d_kv]
            .iter()
            .zip(&self.gradients.grad[head])
            .map(|(o, g)| o * g)
            .sum();
        let mask = self.attention.dropout.map(|dropout| {
            let place = (query * self.attention.heads + self.head) as u64;
            dropout.at(place).mask()
        });
        // Columns of a block of keys that hold visible keys.
        let columns = |block: usize| DEPTH.min(visible.saturating_sub(block * DEPTH));
        // SAFETY: rows of STRIDE hold DEPTH + LANES values; bias and diagonals hold queries + keys
        // + LANES.
        unsafe {
            let mut maximum = V::splat(f32::NEG_INFINITY);
            for (number, keys) in block.key_blocks() {
                let at = (number * QUERIES + row) * STRIDE;
                let scores = &mut scratch.weights[at..][..STRIDE];
                let visible = columns(number);
                let lanes = visible.next_multiple_of(LANES);
                let end = keys.next_multiple_of(LANES).max(lanes);
                let bias = scratch
                    .bias
                    .as_ptr()
                    .add(block.rows - 1 - row + number * DEPTH);
                if self.attention.bias.is_some() {
                    for i in (0..lanes).step_by(LANES) {
                        let score = V::load(scores.as_ptr().add(i)).add(V::load(bias.add(i)));
                        score.store(scores.as_mut_ptr().add(i));
                    }
                }
                scores[visible..end].fill(f32::NEG_INFINITY);
                for i in (0..lanes).step_by(LANES) {
                    maximum = maximum.max(V::load(scores.as_ptr().add(i)));
                }
            }
            let maximum = V::splat(maximum.maximum());
            let mut total = V::splat(0.0);
            for (number, keys) in block.key_blocks() {
                let scores = &mut scratch.weights[(number * QUERIES + row) * STRIDE..][..STRIDE];
                let visible = columns(number);
                for i in (0..visible).step_by(LANES) {
                    let weight = exp(V::load(scores.as_ptr().add(i)).sub(maximum));
                    weight.store(scores.as_mut_ptr().add(i));
                }
                scores[visible..keys.next_multiple_of(LANES)].fill(0.0);
                for i in (0..visible).step_by(LANES) {
                    total = total.add(V::load(scores.as_ptr().add(i)));
                }
            }
            let (scale, dot) = (V::splat(1.0 / total.sum()), V::splat(dot));
            for (number, keys) in block.key_blocks() {
                let at = (number * QUERIES + row) * STRIDE;
                let weights = scratch.weights[at..].as_mut_ptr();
                let slopes = scratch.slopes[at..].as_mut_ptr();
                let diagonals =
                    scratch.diagonals[block.rows - 1 - row + number * DEPTH..].as_mut_ptr();
                for i in (0..keys).step_by(LANES) {
                    let p = V::load(weights.add(i)).mul(scale);
                    let mut dp = V::load(slopes.add(i));
                    if let Some(mask) = mask {
                        let first = (number * DEPTH + i) as u32;
                        let factors: [f32; LANES] =
                            std::array::from_fn(|j| mask.factor(first + j as u32));
                        let factors = V::load(factors.as_ptr());
                        dp = dp.mul(factors);
                        p.mul(factors).store(weights.add(i));
                    } else {
                        p.store(weights.add(i));
                    }
                    let ds = p.mul(dp.sub(dot));
                    ds.store(slopes.add(i));
                    V::load(diagonals.add(i)).add(ds).store(diagonals.add(i));
                }
            }
        }
    }
}
