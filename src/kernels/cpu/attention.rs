//! Packed attention on the CPU: each segment attends within itself, tile by tile, with an online softmax; no L × L map in memory.
//!
//! For one segment, one head and up to [`ROWS_PER_TASK`] queries: keys are taken [`DEPTH`] at a time, transposed into panels; scores of 12 queries ×
//! 512 keys stay in L1/L2; the bias is added by distance; the running maximum and sum of the online softmax (Milakov & Gimelshein 2018,
//! arXiv 1805.02867) are kept per query; the weighted sum of the values is accumulated in f32. A query's result is the same chain of operations
//! whatever the other queries, segments, and threads are.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::packed_weight::{PANEL, side_by_side};
use super::simd::{LANES, Lanes, Stored, exp};
use super::single_query::{self, SingleQuery};
use super::tile::{multiply_f32, write_tile};
use super::{Isa, SharedMut, with_isa};
use crate::kernels::dropout::Dropout;

/// Keys in one block.
pub(super) const DEPTH: usize = 512;
/// Floats between rows of scores: keeps them off each other's cache sets.
pub(super) const STRIDE: usize = DEPTH + LANES;
/// Queries in one task.
const ROWS_PER_TASK: usize = 240;
/// Widest head.
pub const MAX_HEAD: usize = 256;

/// Rows of heads inside a wider matrix: row `r`, head `h` starts at `data[r * stride + offset + h * d_kv]`.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a, T = f32> {
    /// The matrix.
    pub data: &'a [T],
    /// Values between rows.
    pub stride: usize,
    /// Column of the first head.
    pub offset: usize,
}

impl<T> Heads<'_, T> {
    pub(super) fn at(&self, row: usize, head: usize, d_kv: usize) -> &[T] {
        &self.data[row * self.stride + self.offset + head * d_kv..][..d_kv]
    }
}

/// Which keys a query may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// All keys of its segment.
    All,
    /// Keys at its own position and before.
    Causal,
}

/// The additive bias by distance: `by_distance[(d + max_distance) * heads + h]` for `d = key - query` clamped to ±`max_distance`.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// Shape `(2 max_distance + 1, heads)`.
    pub by_distance: &'a [f32],
    /// Distance from which the bias no longer changes.
    pub max_distance: usize,
}

/// One segment: rows of queries, rows of keys and values, and the position of the first query among the keys (0 but for decoding with a cache).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Rows of Q and of the result.
    pub queries: Range<usize>,
    /// Rows of K and V.
    pub keys: Range<usize>,
    /// Position of the first query in its sequence.
    pub first_position: usize,
}

/// Everything the kernel reads; keys and values lie in memory as `T`.
#[derive(Debug)]
pub struct Attention<'a, T = f32> {
    /// Queries.
    pub q: Heads<'a>,
    /// Keys.
    pub k: Heads<'a, T>,
    /// Values.
    pub v: Heads<'a, T>,
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub d_kv: usize,
    /// Bias by distance, where the stack has one.
    pub bias: Option<Bias<'a>>,
    /// What a query sees.
    pub visibility: Visibility,
    /// The segments; their query rows must not overlap.
    pub segments: &'a [Segment],
    /// Dropout of the weights, in training.
    pub dropout: Option<Dropout>,
}

impl<T> Attention<'_, T> {
    /// Whether a segment takes the form for one query.
    fn is_single(&self, segment: &Segment) -> bool {
        segment.queries.len() == 1 && self.dropout.is_none()
    }
}

struct Task {
    segment: usize,
    head: usize,
    /// One, but for single queries.
    num_heads: usize,
    /// Queries relative to the segment's first.
    queries: Range<usize>,
}

/// Room for one task.
struct Scratch {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
    maxima: Vec<f32>,
    totals: Vec<f32>,
    bias: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

impl Scratch {
    fn new() -> Self {
        let panels = MAX_HEAD / PANEL;
        Scratch {
            queries: vec![0.0; 12 * STRIDE],
            keys: vec![0.0; DEPTH * MAX_HEAD],
            values: vec![0.0; DEPTH * panels * PANEL],
            scores: vec![0.0; 12 * STRIDE],
            sums: vec![0.0; ROWS_PER_TASK * MAX_HEAD],
            maxima: vec![0.0; ROWS_PER_TASK],
            totals: vec![0.0; ROWS_PER_TASK],
            bias: vec![0.0; ROWS_PER_TASK + DEPTH + LANES],
        }
    }
}

/// `out (rows of Q, heads * d_kv)`: softmax(q·kᵀ + bias)·v per segment and head. Scores are not scaled (T5).
///
/// # Panics
/// If `d_kv` exceeds [`MAX_HEAD`] or `out` does not hold the segments' rows.
pub fn attend<T: Stored>(isa: Isa, attention: &Attention<'_, T>, out: &mut [f32]) {
    let width = attention.heads * attention.d_kv;
    assert!(
        attention.d_kv <= MAX_HEAD,
        "heads are at most {MAX_HEAD} wide"
    );
    let last_row = attention
        .segments
        .iter()
        .map(|s| s.queries.end)
        .max()
        .unwrap_or(0);
    assert!(
        out.len() >= last_row * width,
        "the result must hold every query's row"
    );
    let tasks = tasks(attention);
    let out = SharedMut(out.as_mut_ptr());
    let run = |task: &Task| {
        SCRATCH.with_borrow_mut(|scratch| {
            let scratch = scratch.get_or_insert_with(Scratch::new);
            // SAFETY: `isa` is available; tasks own disjoint (rows, head) blocks of `out`, whose size was checked above.
            unsafe {
                with_isa!(isa, attend_task<T: Stored>(attention: &Attention<'_, T>, task: &Task, scratch: &mut Scratch, out: SharedMut)(attention, task, scratch, out));
            }
        });
    };
    if tasks.len() == 1 || rayon::current_num_threads() == 1 {
        tasks.iter().for_each(run);
    } else {
        tasks.par_iter().with_max_len(1).for_each(run);
    }
}

fn tasks<T>(attention: &Attention<'_, T>) -> Vec<Task> {
    let singles = attention.segments.iter().filter(|s| attention.is_single(s));
    // Heads that lie together are read together, as long as every thread has something to do.
    let wanted = (2 * rayon::current_num_threads()).div_ceil(singles.count().max(1));
    let together = match rayon::current_num_threads() {
        1 => attention.heads,
        _ => attention.heads.div_ceil(wanted),
    };
    let mut tasks = Vec::new();
    for (number, segment) in attention.segments.iter().enumerate() {
        let together = if attention.is_single(segment) {
            together.clamp(1, single_query::MAX_HEADS)
        } else {
            1
        };
        for head in (0..attention.heads).step_by(together) {
            for first in (0..segment.queries.len()).step_by(ROWS_PER_TASK) {
                tasks.push(Task {
                    segment: number,
                    head,
                    num_heads: together.min(attention.heads - head),
                    queries: first..(first + ROWS_PER_TASK).min(segment.queries.len()),
                });
            }
        }
    }
    tasks
}

#[inline(always)]
unsafe fn attend_task<V: Lanes, T: Stored>(
    attention: &Attention<'_, T>,
    task: &Task,
    scratch: &mut Scratch,
    out: SharedMut,
) {
    let segment = &attention.segments[task.segment];
    let (d_kv, rows) = (attention.d_kv, task.queries.len());
    let padded_d = d_kv.next_multiple_of(PANEL);
    let seen = match attention.visibility {
        Visibility::All => segment.keys.len(),
        Visibility::Causal => segment
            .keys
            .len()
            .min(segment.first_position + task.queries.end),
    };
    if attention.is_single(segment) {
        let query = SingleQuery {
            attention,
            segment,
            heads: task.head..task.head + task.num_heads,
            seen,
        };
        let target = segment.queries.start * attention.heads + task.head;
        // SAFETY: this row and these heads of `out` belong to this task alone.
        unsafe {
            let out = out.get().add(target * d_kv);
            let out = std::slice::from_raw_parts_mut(out, task.num_heads * d_kv);
            query.run::<V>(&mut scratch.scores, out);
        }
        return;
    }
    scratch.sums[..rows * padded_d].fill(0.0);
    scratch.maxima[..rows].fill(f32::NEG_INFINITY);
    scratch.totals[..rows].fill(0.0);
    for first_key in (0..seen).step_by(DEPTH) {
        let block = KeyBlock {
            attention,
            segment,
            head: task.head,
            keys: first_key..(first_key + DEPTH).min(seen),
        };
        block.copy_keys(&mut scratch.keys);
        block.copy_values(&mut scratch.values, padded_d);
        block.spread_bias(task.queries.clone(), &mut scratch.bias);
        for row in (0..rows).step_by(V::TILE_ROWS) {
            let rows = row..(row + V::TILE_ROWS).min(rows);
            // SAFETY: the scratch holds every row and key of the block.
            unsafe { block.add_rows::<V>(task, rows, padded_d, scratch) };
        }
    }
    for row in 0..rows {
        let target =
            (segment.queries.start + task.queries.start + row) * attention.heads + task.head;
        let scale = 1.0 / scratch.totals[row];
        for (i, sum) in scratch.sums[row * padded_d..][..d_kv].iter().enumerate() {
            // SAFETY: this row and head of `out` belong to this task alone.
            unsafe { *out.get().add(target * d_kv + i) = sum * scale };
        }
    }
}

/// Up to [`DEPTH`] keys of one segment and head.
struct KeyBlock<'a, T> {
    attention: &'a Attention<'a, T>,
    segment: &'a Segment,
    head: usize,
    /// Relative to the segment's first key.
    keys: Range<usize>,
}

impl<T: Stored> KeyBlock<'_, T> {
    /// Keys transposed into panels: `[key / 32][d][key % 32]`.
    #[inline(always)]
    fn copy_keys(&self, target: &mut [f32]) {
        let d_kv = self.attention.d_kv;
        let first = self.segment.keys.start + self.keys.start;
        let panels = target.chunks_exact_mut(d_kv * PANEL);
        for (from, panel) in (0..self.keys.len()).step_by(PANEL).zip(panels) {
            let height = PANEL.min(self.keys.len() - from);
            if height < PANEL {
                // Columns beyond the last key are multiplied too (and ignored): they must not hold old NaNs or denormals.
                panel.fill(0.0);
            }
            let key = |i: usize| self.attention.k.at(first + from + i, self.head, d_kv);
            side_by_side::<PANEL, T>(key, height, panel);
        }
    }

    /// Values as rows of `padded_d`, zero beyond `d_kv`.
    #[inline(always)]
    fn copy_values(&self, target: &mut [f32], padded_d: usize) {
        let d_kv = self.attention.d_kv;
        for (key, target) in self.keys.clone().zip(target.chunks_exact_mut(padded_d)) {
            let row = self.segment.keys.start + key;
            let values = self.attention.v.at(row, self.head, d_kv);
            for (target, value) in target.iter_mut().zip(values) {
                *target = value.value();
            }
            target[d_kv..].fill(0.0);
        }
    }

    /// The bias of every (query, key) of the task and block by `key - query`: `target[key - query + last query]`, all relative to the block.
    #[inline(always)]
    fn spread_bias(&self, queries: Range<usize>, target: &mut [f32]) {
        let Some(bias) = self.attention.bias else {
            return;
        };
        let limit = bias.max_distance as isize;
        let first =
            self.keys.start as isize - (self.segment.first_position + queries.end - 1) as isize;
        let count = queries.len() + self.keys.len() - 1;
        for (i, target) in target[..count].iter_mut().enumerate() {
            let distance = (first + i as isize).clamp(-limit, limit);
            *target =
                bias.by_distance[(distance + limit) as usize * self.attention.heads + self.head];
        }
        target[count..count + LANES].fill(0.0);
    }

    /// Adds this block of keys to the online softmax of `rows` (relative to the task's first query; at most a tile of them).
    #[inline(always)]
    unsafe fn add_rows<V: Lanes>(
        &self,
        task: &Task,
        rows: Range<usize>,
        padded_d: usize,
        scratch: &mut Scratch,
    ) {
        let d_kv = self.attention.d_kv;
        let first_query = self.segment.queries.start + task.queries.start;
        for (row, target) in rows.clone().zip(scratch.queries.chunks_exact_mut(STRIDE)) {
            target[..d_kv].copy_from_slice(self.attention.q.at(first_query + row, self.head, d_kv));
        }
        // SAFETY: queries: up to 12 rows of STRIDE; keys: whole panels of d_kv rows; scores: 12 rows of STRIDE ≥ DEPTH; see each callee.
        unsafe {
            for panel in 0..self.keys.len().div_ceil(PANEL) {
                let keys = scratch.keys.as_ptr().add(panel * d_kv * PANEL);
                let scores = scratch.scores.as_mut_ptr().add(panel * PANEL);
                product::<V>(
                    rows.len(),
                    scratch.queries.as_ptr(),
                    keys,
                    d_kv,
                    PANEL,
                    scores,
                    STRIDE,
                    false,
                );
            }
            for (i, row) in rows.clone().enumerate() {
                self.soften::<V>(task, row, i, padded_d, scratch);
            }
            for column in (0..padded_d).step_by(PANEL) {
                let values = scratch.values.as_ptr().add(column);
                let sums = scratch
                    .sums
                    .as_mut_ptr()
                    .add(rows.start * padded_d + column);
                product::<V>(
                    rows.len(),
                    scratch.scores.as_ptr(),
                    values,
                    self.keys.len(),
                    padded_d,
                    sums,
                    padded_d,
                    true,
                );
            }
        }
    }

    /// Scores of one row become weights `exp(score + bias - maximum)`; earlier sums are rescaled to the new maximum.
    #[inline(always)]
    unsafe fn soften<V: Lanes>(
        &self,
        task: &Task,
        row: usize,
        tile_row: usize,
        padded_d: usize,
        scratch: &mut Scratch,
    ) {
        let position = self.segment.first_position + task.queries.start + row;
        let visible = match self.attention.visibility {
            Visibility::All => self.keys.len(),
            Visibility::Causal => (position + 1)
                .saturating_sub(self.keys.start)
                .min(self.keys.len()),
        };
        let scores = &mut scratch.scores[tile_row * STRIDE..][..DEPTH];
        scores[visible..].fill(0.0);
        if visible == 0 {
            return;
        }
        scores[visible..visible.next_multiple_of(LANES)].fill(f32::NEG_INFINITY);
        let lanes = visible.next_multiple_of(LANES);
        let pointer = scores.as_mut_ptr();
        // SAFETY: `lanes` ≤ DEPTH scores; the spread bias holds queries + keys + LANES values.
        unsafe {
            let mut maximum = V::splat(f32::NEG_INFINITY);
            if self.attention.bias.is_some() {
                let bias = scratch.bias.as_ptr().add(task.queries.len() - 1 - row);
                for i in (0..lanes).step_by(LANES) {
                    let score = V::load(pointer.add(i)).add(V::load(bias.add(i)));
                    score.store(pointer.add(i));
                    maximum = maximum.max(score);
                }
            } else {
                for i in (0..lanes).step_by(LANES) {
                    maximum = maximum.max(V::load(pointer.add(i)));
                }
            }
            let old = scratch.maxima[row];
            let maximum = old.max(maximum.maximum());
            let mut total = V::splat(0.0);
            for i in (0..lanes).step_by(LANES) {
                let weight = exp(V::load(pointer.add(i)).sub(V::splat(maximum)));
                weight.store(pointer.add(i));
                total = total.add(weight);
            }
            // `exp` of -inf is 1e-38, not zero: nothing beside the maximum's 1 in the sum, but no weight for a value.
            scores[visible..lanes].fill(0.0);
            if old > f32::NEG_INFINITY && old < maximum {
                let scale = (old - maximum).exp();
                scratch.totals[row] *= scale;
                scratch.sums[row * padded_d..][..padded_d]
                    .iter_mut()
                    .for_each(|sum| *sum *= scale);
            }
            scratch.totals[row] += total.sum();
            scratch.maxima[row] = maximum;
        }
        if let Some(dropout) = self.attention.dropout {
            let query = self.segment.queries.start + task.queries.start + row;
            let place = (query * self.attention.heads + self.head) as u64;
            let mask = dropout.at(place).mask();
            for (i, weight) in scratch.scores[tile_row * STRIDE..][..visible]
                .iter_mut()
                .enumerate()
            {
                *weight *= mask.factor((self.keys.start + i) as u32);
            }
        }
    }
}

/// `c[rows × 32] (+)= a · b` with rows of A [`STRIDE`] apart, rows of B `b_stride` and rows of C `c_stride` floats apart.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the shape of a matrix product")]
unsafe fn product<V: Lanes>(
    rows: usize,
    a: *const f32,
    b: *const f32,
    depth: usize,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        match rows {
            1 => product_tile::<V, 1>(a, b, depth, b_stride, c, c_stride, add),
            2 => product_tile::<V, 2>(a, b, depth, b_stride, c, c_stride, add),
            3 => product_tile::<V, 3>(a, b, depth, b_stride, c, c_stride, add),
            _ if V::TILE_ROWS == 3 => unreachable!("tiles have up to three rows"),
            4 => product_tile::<V, 4>(a, b, depth, b_stride, c, c_stride, add),
            _ if V::TILE_ROWS == 4 => unreachable!("tiles have up to four rows"),
            5 => product_tile::<V, 5>(a, b, depth, b_stride, c, c_stride, add),
            6 => product_tile::<V, 6>(a, b, depth, b_stride, c, c_stride, add),
            7 => product_tile::<V, 7>(a, b, depth, b_stride, c, c_stride, add),
            8 => product_tile::<V, 8>(a, b, depth, b_stride, c, c_stride, add),
            9 => product_tile::<V, 9>(a, b, depth, b_stride, c, c_stride, add),
            10 => product_tile::<V, 10>(a, b, depth, b_stride, c, c_stride, add),
            11 => product_tile::<V, 11>(a, b, depth, b_stride, c, c_stride, add),
            _ => product_tile::<V, 12>(a, b, depth, b_stride, c, c_stride, add),
        }
    }
}

#[inline(always)]
unsafe fn product_tile<V: Lanes, const MR: usize>(
    a: *const f32,
    b: *const f32,
    depth: usize,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    // SAFETY: the caller's `a` has MR rows, `b` `depth` rows of 32, `c` MR rows of 32.
    unsafe {
        let mut sums = [[[V::splat(0.0); 2]; 1]; MR];
        if add {
            for (r, row) in sums.iter_mut().enumerate() {
                row[0] = [
                    V::load(c.add(r * c_stride)),
                    V::load(c.add(r * c_stride + LANES)),
                ];
            }
        }
        multiply_f32::<V, MR, 1, STRIDE, 1>(&mut sums, a, [b], depth, b_stride);
        write_tile(&sums, c, c_stride, PANEL);
    }
}
