//! Attention of several queries on the CPU: one query per lane, so that the softmax never sums
//! across lanes.
//!
//! A block is up to [`QUERIES`] queries and [`KEYS`] keys. Scores are `keys · queriesᵀ`, stored as
//! `[key][query]`. The bias, by distance and reversed, is added while the scores are in registers;
//! the running maximum and sum of the online softmax (Milakov & Gimelshein 2018, arXiv 1805.02867)
//! are lanes too. The result grows as `valuesᵀ · weights`, `[d][query]`, and is transposed once at
//! the end. Keys and values are read row by row, without a transpose.
//!
//! Where the CPU multiplies pairs of bf16 and the plan allows it, weights and values are rounded to
//! bf16 ([`Pairs`]): the error of an embedding grows by an eighth of the error of rounding the
//! activations of bf16 products. Scores stay f32, because T5 does not scale them and the softmax
//! would magnify their error.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use std::cell::RefCell;
use std::ops::Range;

use super::attention::{Attention, MAX_HEAD};
use super::isa::{Isa, with_isa};
use super::layout::{LANES, PANEL, Spacing};
#[cfg(target_arch = "x86_64")]
use super::mix::Pairs;
use super::mix::{Floats, Mix};
#[cfg(target_arch = "x86_64")]
use super::shared::SharedMut;
use super::simd::{Lanes, StoredFloat, exp};
use super::tile::{by_rows, lanes, multiply_f32, store};
use super::transpose::side_by_side;
use crate::kernels::plan::{Precision, Segment, Visibility};

/// Queries in one task; a multiple of [`QUERIES`].
pub(super) const ROWS_PER_TASK: usize = 8 * QUERIES;
/// Queries in one block: two vectors.
const QUERIES: usize = PANEL;
/// Keys in one block: a multiple of every tile's height, whose scores fit the first-level cache.
const KEYS: usize = 240;

/// Working memory of one task, which grows to the largest task.
#[derive(Default)]
pub(super) struct AttentionScratch {
    /// `[query / 32][d][query % 32]`.
    queries: Vec<f32>,
    /// Keys in rows of `ROW` values.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `[key][query % 32]`: scores, then weights.
    weights: Vec<f32>,
    /// `[query / 32][d][query % 32]`.
    sums: Vec<f32>,
    maxima: Vec<f32>,
    totals: Vec<f32>,
    /// Bias by `query - key + last key`, relative to the task and the block.
    bias: Vec<f32>,
    /// Results of 32 queries, row by row.
    rows: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<AttentionScratch> = RefCell::new(AttentionScratch::default());
}

#[inline(always)]
fn widen<T: StoredFloat>(row: &[T], target: &mut [f32]) {
    for (target, value) in target.iter_mut().zip(row) {
        *target = value.value();
    }
}

/// One task: some queries of a segment, one head.
pub(super) struct ManyQueries<'a, T> {
    pub attention: &'a Attention<'a, T>,
    pub segment: &'a Segment,
    pub head: usize,
    /// Queries counted from the segment's first; at most [`ROWS_PER_TASK`].
    pub queries: Range<usize>,
}

/// # Safety
/// As [`Lanes`]; `out` as in [`ManyQueries::run`].
#[inline(always)]
pub(super) unsafe fn run<V: Lanes, T: StoredFloat, M: Mix<V>>(
    task: &ManyQueries<'_, T>,
    scratch: &mut AttentionScratch,
    out: SharedMut,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        if task.attention.d_kv <= 64 {
            task.run_in::<V, M, 64>(scratch, out);
        } else {
            task.run_in::<V, M, MAX_HEAD>(scratch, out);
        }
    }
}

#[inline(always)]
unsafe fn run_in_floats<V: Lanes, T: StoredFloat>(
    task: &ManyQueries<'_, T>,
    scratch: &mut AttentionScratch,
    out: SharedMut,
) {
    // SAFETY: passed on from the caller.
    unsafe { run::<V, T, Floats>(task, scratch, out) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
unsafe fn run_in_pairs<T: StoredFloat>(
    task: &ManyQueries<'_, T>,
    scratch: &mut AttentionScratch,
    out: SharedMut,
) {
    // SAFETY: passed on from the caller.
    unsafe { run::<super::simd::x86::Avx512, T, Pairs>(task, scratch, out) };
}

impl<T: StoredFloat> ManyQueries<'_, T> {
    /// Writes `softmax(q·kᵀ + bias)·v` of the task's queries and head to `out (rows of Q, heads *
    /// d_kv)`.
    ///
    /// # Safety
    /// `isa` is available; `out` holds the task's rows, and this head's columns of them are this
    /// task's alone.
    pub(super) unsafe fn run(&self, isa: Isa, out: SharedMut) {
        SCRATCH.with_borrow_mut(|scratch| {
            // SAFETY: passed on from the caller.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                if isa.rounds_activations() && self.attention.precision == Precision::Bf16 {
                    return run_in_pairs(self, scratch, out);
                }
                with_isa!(isa, run_in_floats<T: StoredFloat>(task: &ManyQueries<'_, T>, scratch: &mut AttentionScratch, out: SharedMut)(self, scratch, out));
            }
        });
    }

    #[inline(always)]
    unsafe fn run_in<V: Lanes, M: Mix<V>, const ROW: usize>(
        &self,
        scratch: &mut AttentionScratch,
        out: SharedMut,
    ) {
        let tiles = self.queries.len().div_ceil(QUERIES);
        self.prepare::<ROW>(scratch, tiles);
        let seen = self.seen(self.queries.len());
        for first in (0..seen).step_by(KEYS) {
            let keys = first..(first + KEYS).min(seen);
            // SAFETY: `prepare` made room for every query of the task and every key of a block.
            unsafe {
                self.copy_keys::<ROW>(keys.clone(), scratch);
                let values = scratch.values.as_mut_ptr();
                M::round::<ROW>(values, keys.len(), self.attention.d_kv);
                self.spread_bias(&keys, tiles, &mut scratch.bias);
                for tile in 0..tiles {
                    let queries = tile * QUERIES..((tile + 1) * QUERIES).min(self.queries.len());
                    let seen = self.seen(queries.end).min(keys.end);
                    let block = ScoreBlock {
                        task: self,
                        first_query: queries.start,
                        first_key: keys.start,
                        keys: seen.saturating_sub(keys.start),
                        bias: keys.len() - 1 + queries.start,
                    };
                    if block.keys == 0 {
                        continue;
                    }
                    // One vector of queries where one is enough, or where the registers hold no
                    // more.
                    if V::TILE_WIDTH == 2 && queries.len() > LANES {
                        block.run::<V, M, ROW, 2>(scratch, 0);
                        continue;
                    }
                    for lane in (0..queries.len()).step_by(LANES) {
                        block.run::<V, M, ROW, 1>(scratch, lane);
                    }
                }
            }
        }
        // SAFETY: passed on from the caller.
        unsafe { self.write::<V, ROW>(scratch, out) };
    }

    /// Number of keys, from the first one, that any of the task's first `queries` queries sees.
    #[inline(always)]
    fn seen(&self, queries: usize) -> usize {
        self.attention
            .seen(self.segment, self.queries.start + queries)
    }

    /// Sizes the working memory and writes the queries side by side.
    #[inline(always)]
    fn prepare<const ROW: usize>(&self, scratch: &mut AttentionScratch, tiles: usize) {
        let d_kv = self.attention.d_kv;
        let panel = d_kv * QUERIES;
        let resize = |room: &mut Vec<f32>, len: usize| {
            if room.len() < len {
                room.resize(len, 0.0);
            }
        };
        resize(&mut scratch.queries, tiles * panel);
        resize(&mut scratch.sums, tiles * panel);
        resize(&mut scratch.keys, KEYS * ROW);
        resize(&mut scratch.values, KEYS * ROW);
        resize(&mut scratch.weights, KEYS * QUERIES);
        resize(&mut scratch.maxima, tiles * QUERIES);
        resize(&mut scratch.totals, tiles * QUERIES);
        resize(&mut scratch.bias, tiles * QUERIES + KEYS);
        resize(&mut scratch.rows, QUERIES * ROW);
        scratch.sums[..tiles * panel].fill(0.0);
        scratch.maxima[..tiles * QUERIES].fill(f32::NEG_INFINITY);
        scratch.totals[..tiles * QUERIES].fill(0.0);
        let first = self.segment.queries.start + self.queries.start;
        let panels = scratch.queries.chunks_exact_mut(panel);
        for (tile, panel) in (0..self.queries.len()).step_by(QUERIES).zip(panels) {
            let count = QUERIES.min(self.queries.len() - tile);
            if count < QUERIES {
                // Lanes beyond the last query are computed and ignored, so they must not hold old
                // NaNs or denormals.
                panel.fill(0.0);
            }
            let query = |i: usize| self.attention.q.at(first + tile + i, self.head, d_kv);
            side_by_side::<QUERIES, f32>(query, count, panel);
        }
    }

    /// Copies the keys and values of one block.
    #[inline(always)]
    fn copy_keys<const ROW: usize>(&self, keys: Range<usize>, scratch: &mut AttentionScratch) {
        let Attention { k, v, d_kv, .. } = *self.attention;
        let (key_rows, value_rows) = (&mut scratch.keys, &mut scratch.values);
        let targets = key_rows
            .chunks_exact_mut(ROW)
            .zip(value_rows.chunks_exact_mut(ROW));
        for (key, (key_row, value_row)) in keys.zip(targets) {
            let row = self.segment.keys.start + key;
            widen(k.at(row, self.head, d_kv), key_row);
            widen(v.at(row, self.head, d_kv), value_row);
        }
    }

    /// The bias of every query of `tiles` and every key of the block by `query - key + last key`;
    /// -∞ for keys that a query does not see.
    #[inline(always)]
    fn spread_bias(&self, keys: &Range<usize>, tiles: usize, target: &mut [f32]) {
        let last = keys.end as isize - 1;
        let first_query = (self.segment.first_position + self.queries.start) as isize;
        let target = &mut target[..tiles * QUERIES + keys.len() - 1];
        let causal = self.attention.visibility == Visibility::Causal;
        for (i, target) in target.iter_mut().enumerate() {
            let distance = last - first_query - i as isize;
            *target = match self.attention.bias {
                _ if causal && distance > 0 => f32::NEG_INFINITY,
                Some(bias) => {
                    bias.by_distance[bias.row(distance) * self.attention.heads + self.head]
                }
                None => 0.0,
            };
        }
    }

    /// Divides the sums by the totals and writes them to the result, transposed.
    #[inline(always)]
    unsafe fn write<V: Lanes, const ROW: usize>(
        &self,
        scratch: &mut AttentionScratch,
        out: SharedMut,
    ) {
        let Attention { d_kv, heads, .. } = *self.attention;
        for tile in (0..self.queries.len()).step_by(QUERIES) {
            let sums = &mut scratch.sums[tile * d_kv..][..QUERIES * d_kv];
            // SAFETY: 32 totals per tile, 32 sums per row.
            unsafe {
                let totals = scratch.totals[tile..][..QUERIES].as_ptr();
                let totals: [V; 2] = lanes(totals);
                for row in sums.chunks_exact_mut(QUERIES) {
                    for (half, total) in row.chunks_exact_mut(LANES).zip(totals) {
                        let scale = V::splat(1.0).div(total);
                        V::load(half.as_ptr()).mul(scale).store(half.as_mut_ptr());
                    }
                }
            }
            let rows = &mut scratch.rows[..QUERIES * ROW];
            side_by_side::<ROW, f32>(|d| &sums[d * QUERIES..][..QUERIES], d_kv, rows);
            let rows = rows.chunks_exact(ROW);
            for (query, row) in (tile..self.queries.len()).zip(rows).take(QUERIES) {
                let row_of_out = self.segment.queries.start + self.queries.start + query;
                let target = (row_of_out * heads + self.head) * d_kv;
                // SAFETY: this row and head of `out` belong to this task alone.
                unsafe {
                    let target = out.get().add(target);
                    std::ptr::copy_nonoverlapping(row.as_ptr(), target, d_kv);
                }
            }
        }
    }
}

/// Up to [`QUERIES`] queries of a task and up to [`KEYS`] keys.
struct ScoreBlock<'a, T> {
    task: &'a ManyQueries<'a, T>,
    /// First query, counted from the task's first.
    first_query: usize,
    /// First key, counted from the segment's first.
    first_key: usize,
    keys: usize,
    /// Index of the spread bias of the first query and key.
    bias: usize,
}

impl<T: StoredFloat> ScoreBlock<'_, T> {
    /// Adds the block's keys to the online softmax of its queries, `W` registers of them from
    /// `lane` on.
    #[inline(always)]
    unsafe fn run<V: Lanes, M: Mix<V>, const ROW: usize, const W: usize>(
        &self,
        scratch: &mut AttentionScratch,
        lane: usize,
    ) {
        let query = self.first_query + lane;
        let d_kv = self.task.attention.d_kv;
        // SAFETY: the scratch holds every query of the task and every key of the block, see
        // `prepare`; the callees say what they touch.
        unsafe {
            let old: [V; W] = lanes(scratch.maxima.as_ptr().add(query));
            let mut maxima = old;
            let panel = self.first_query * d_kv + lane;
            let queries = scratch.queries.as_ptr().add(panel);
            let weights = scratch.weights.as_mut_ptr().add(lane);
            for key in (0..self.keys).step_by(V::TILE_ROWS) {
                let keys = scratch.keys.as_ptr().add(key * ROW);
                let bias = scratch.bias.as_ptr().add(self.bias + lane - key);
                let scores = weights.add(key * QUERIES);
                by_rows!(V::TILE_ROWS.min(self.keys - key), up to V::TILE_ROWS, MR =>
                    score::<V, MR, ROW, W>(keys, queries, d_kv, bias, scores, &mut maxima));
            }
            store(&maxima, scratch.maxima.as_mut_ptr().add(query));
            let new = self.soften::<V, W>(maxima, weights);
            let totals = scratch.totals.as_mut_ptr().add(query);
            let mut total: [V; W] = lanes(totals);
            let mut scales = [V::splat(1.0); W];
            for w in 0..W {
                scales[w] = exp(old[w].sub(maxima[w]));
                total[w] = total[w].mul_add(scales[w], new[w]);
            }
            store(&total, totals);
            self.drop(&mut scratch.weights[lane..], lane..lane + W * LANES);
            M::round::<QUERIES>(weights, self.keys, W * LANES);
            let sums = scratch.sums.as_mut_ptr().add(panel);
            for d in (0..d_kv).step_by(V::TILE_ROWS) {
                let values = scratch.values.as_ptr().add(d);
                let sums = sums.add(d * QUERIES);
                by_rows!(V::TILE_ROWS.min(d_kv - d), up to V::TILE_ROWS, MR =>
                    mix::<V, M, MR, ROW, W>(values, weights, self.keys, scales, sums));
            }
        }
    }

    /// Turns scores into weights `exp(score - maximum)` and returns the sums of the weights.
    #[inline(always)]
    unsafe fn soften<V: Lanes, const W: usize>(&self, maxima: [V; W], scores: *mut f32) -> [V; W] {
        let causal = self.task.attention.visibility == Visibility::Causal;
        // SAFETY: `keys` rows of 32 scores.
        unsafe {
            let mut totals = [V::splat(0.0); W];
            for key in 0..self.keys {
                for w in 0..W {
                    let place = scores.add(key * QUERIES + w * LANES);
                    let score = V::load(place).sub(maxima[w]);
                    let weight = if causal { visible(score) } else { exp(score) };
                    weight.store(place);
                    totals[w] = totals[w].add(weight);
                }
            }
            totals
        }
    }

    /// Applies dropout to the weights of the queries of some lanes.
    #[inline(always)]
    fn drop(&self, weights: &mut [f32], lanes: Range<usize>) {
        let ManyQueries {
            attention,
            segment,
            head,
            ref queries,
        } = *self.task;
        let Some(dropout) = attention.dropout else {
            return;
        };
        let last = queries.len() - self.first_query;
        for lane in lanes.start..lanes.end.min(last) {
            let query = segment.queries.start + queries.start + self.first_query + lane;
            let mask = dropout.at((query * attention.heads + head) as u64).mask();
            let weights = weights.iter_mut().skip(lane - lanes.start);
            let weights = weights.step_by(QUERIES);
            for (key, weight) in weights.take(self.keys).enumerate() {
                *weight *= mask.factor((self.first_key + key) as u32);
            }
        }
    }
}

/// `exp(score)`, and zero where the score is -∞: [`exp`] alone gives 1e-38, which would let a value
/// that is not finite through.
#[inline(always)]
unsafe fn visible<V: Lanes>(score: V) -> V {
    // SAFETY: passed on from the caller. Operands in this order keep a NaN a NaN.
    unsafe {
        let one = V::splat(1.0);
        let seen = V::splat(0.0).max(score.add(V::splat(88.0)));
        exp(score).mul(one.min(seen))
    }
}

/// Computes the scores of `MR` keys, with the bias, and updates the maxima. The bias of the next
/// key lies one value before.
#[inline(always)]
unsafe fn score<V: Lanes, const MR: usize, const ROW: usize, const W: usize>(
    keys: *const f32,
    queries: *const f32,
    d_kv: usize,
    bias: *const f32,
    scores: *mut f32,
    maxima: &mut [V; W],
) {
    // SAFETY: the caller's keys are MR rows of ROW, queries `d_kv` rows of 32; the bias begins MR -
    // 1 values before its pointer at the latest.
    unsafe {
        let mut sums = [[[V::splat(0.0); W]; 1]; MR];
        multiply_f32::<V, MR, 1, ROW, 1, W>(
            &mut sums,
            keys,
            [queries],
            d_kv,
            Spacing::rows(QUERIES),
            None,
        );
        for (r, [sums]) in sums.iter().enumerate() {
            for (w, sum) in sums.iter().enumerate() {
                let score = sum.add(V::load(bias.sub(r).add(w * LANES)));
                score.store(scores.add(r * QUERIES + w * LANES));
                maxima[w] = maxima[w].max(score);
            }
        }
    }
}

/// `sums = sums · scales + valuesᵀ · weights` for `MR` values of d. The product is summed by
/// itself first, so that rounding errors grow with the length of a block of keys and not with that
/// of the segment.
#[inline(always)]
unsafe fn mix<V: Lanes, M: Mix<V>, const MR: usize, const ROW: usize, const W: usize>(
    values: *const f32,
    weights: *const f32,
    keys: usize,
    scales: [V; W],
    sums: *mut f32,
) {
    // SAFETY: the caller's sums are MR rows of 32; values and weights hold `keys` keys.
    unsafe {
        let mut tile = [[[V::splat(0.0); W]; 1]; MR];
        M::add::<MR, ROW, W>(&mut tile, values, weights, keys);
        for (r, [row]) in tile.iter_mut().enumerate() {
            let sums = sums.add(r * QUERIES);
            let old: [V; W] = lanes(sums);
            for ((sum, old), scale) in row.iter_mut().zip(old).zip(scales) {
                *sum = old.mul_add(scale, *sum);
            }
            store(row, sums);
        }
    }
}
