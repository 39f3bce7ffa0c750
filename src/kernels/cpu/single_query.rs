//! Attention of one query on the CPU, as in a step of decoding. Keys and values are read once, in
//! the order of memory: all heads of one key, then all heads of the next key. Nothing is packed,
//! because nothing is used twice.
//!
//! Keys are taken in blocks of up to [`BLOCK`], with an online softmax. Each block is summed by
//! itself, so that rounding errors grow with the length of a block and not with that of the
//! segment. The result of a head is the same chain of operations whatever other heads share its
//! task, and the form of a segment depends on its own number of queries alone.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use std::cell::RefCell;
use std::ops::Range;

use super::attention::{Attention, MAX_HEAD};
use super::isa::{Isa, with_isa};
use super::layout::LANES;
use super::shared::SharedMut;
use super::simd::{Lanes, StoredFloat, exp, prefetch};
use crate::kernels::plan::Segment;

/// Keys in one block.
const BLOCK: usize = 128;
/// Most heads in one task.
pub(super) const MAX_HEADS: usize = 32;
/// Bytes of one cache line.
const LINE: usize = 64;
/// Keys whose values are added in one pass.
const KEYS: usize = 4;
/// Rows of keys and values that are prefetched: each row is read once per step, mostly from main
/// memory.
const AHEAD: usize = 4;

/// One task: one query and some heads.
pub(super) struct SingleQuery<'a, T> {
    pub attention: &'a Attention<'a, T>,
    pub segment: &'a Segment,
    /// At most [`MAX_HEADS`].
    pub heads: Range<usize>,
}

/// Working memory of one task.
struct QueryScratch {
    /// [`BLOCK`] scores of each head.
    scores: Vec<f32>,
    /// The weighted sum of a block's values, `d_kv` values per head.
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<QueryScratch> = RefCell::new(QueryScratch {
        scores: vec![0.0; MAX_HEADS * BLOCK],
        sums: vec![0.0; MAX_HEADS * MAX_HEAD],
    });
}

#[inline(always)]
unsafe fn run<V: Lanes, T: StoredFloat>(
    query: &SingleQuery<'_, T>,
    scratch: &mut QueryScratch,
    out: &mut [f32],
) {
    // SAFETY: passed on from the caller.
    unsafe { query.run_in::<V>(scratch, out) }
}

impl<T: StoredFloat> SingleQuery<'_, T> {
    /// Writes `softmax(q·kᵀ + bias)·v` of the heads to `out (rows of Q, heads * d_kv)`.
    ///
    /// # Safety
    /// `isa` is available; `out` holds the query's row, and these heads' columns of it are this
    /// task's alone.
    pub(super) unsafe fn run(&self, isa: Isa, out: SharedMut) {
        let Attention { heads, d_kv, .. } = *self.attention;
        let target = (self.segment.queries.start * heads + self.heads.start) * d_kv;
        // SAFETY: passed on from the caller.
        unsafe {
            let out = out.get().add(target);
            let out = std::slice::from_raw_parts_mut(out, self.heads.len() * d_kv);
            SCRATCH.with_borrow_mut(|scratch| {
                with_isa!(isa, run<T: StoredFloat>(query: &SingleQuery<'_, T>, scratch: &mut QueryScratch, out: &mut [f32])(self, scratch, out));
            });
        }
    }

    #[inline(always)]
    unsafe fn run_in<V: Lanes>(&self, scratch: &mut QueryScratch, out: &mut [f32]) {
        let d_kv = self.attention.d_kv;
        let scores = &mut scratch.scores;
        let sums = &mut scratch.sums[..out.len()];
        let seen = self.attention.seen(self.segment, 1);
        let (mut maxima, mut totals) = ([f32::NEG_INFINITY; MAX_HEADS], [0.0; MAX_HEADS]);
        out.fill(0.0);
        for first in (0..seen).step_by(BLOCK) {
            let keys = first..(first + BLOCK).min(seen);
            // SAFETY: passed on from the caller; see each callee.
            unsafe {
                self.scores::<V>(keys.clone(), scores);
                for head in 0..self.heads.len() {
                    let old = maxima[head];
                    let scores = &mut scores[head * BLOCK..][..keys.len()];
                    let total = soften::<V>(scores, &mut maxima[head]);
                    if first > 0 && old < maxima[head] {
                        let scale = (old - maxima[head]).exp();
                        totals[head] *= scale;
                        scaled(&mut out[head * d_kv..][..d_kv], scale);
                    }
                    totals[head] += total;
                }
                sums.fill(0.0);
                self.add_values::<V>(keys, scores, sums);
            }
            for (out, sum) in out.iter_mut().zip(sums.iter()) {
                *out += sum;
            }
        }
        for (head, out) in out.chunks_exact_mut(d_kv).enumerate() {
            scaled(out, 1.0 / totals[head]);
        }
    }

    /// `scores[head][i] = q · keys[i] + bias`.
    #[inline(always)]
    unsafe fn scores<V: Lanes>(&self, keys: Range<usize>, scores: &mut [f32]) {
        let Attention { q, k, v, d_kv, .. } = *self.attention;
        let (stride, v_stride) = (k.stride, v.stride);
        for (i, key) in keys.enumerate() {
            for (h, head) in self.heads.clone().enumerate() {
                let q = q.at(self.segment.queries.start, head, d_kv);
                let k = k.at(self.segment.keys.start + key, head, d_kv);
                // Values, which are needed later, are prefetched with the keys beside them, so that
                // memory is read straight through.
                prefetch_all(k.as_ptr().wrapping_add(AHEAD * stride), d_kv);
                let v = v.at(self.segment.keys.start + key, head, d_kv);
                prefetch_all(v.as_ptr().wrapping_add(AHEAD * v_stride), d_kv);
                // SAFETY: both hold d_kv values.
                let score = unsafe { dot::<V, T>(q, k) };
                scores[h * BLOCK + i] = score + self.bias(key, head);
            }
        }
    }

    #[inline(always)]
    fn bias(&self, key: usize, head: usize) -> f32 {
        let Some(bias) = self.attention.bias else {
            return 0.0;
        };
        let distance = key as isize - self.segment.first_position as isize;
        bias.by_distance[bias.row(distance) * self.attention.heads + head]
    }

    /// `sums[head] += Σ weights[head][i] · values[i]`, in the order of the keys.
    #[inline(always)]
    unsafe fn add_values<V: Lanes>(&self, keys: Range<usize>, weights: &[f32], sums: &mut [f32]) {
        let whole = keys.len() - keys.len() % KEYS;
        // SAFETY: passed on from the caller.
        unsafe {
            for i in (0..whole).step_by(KEYS) {
                self.add_keys::<V, KEYS>(keys.start + i, &weights[i..], sums);
            }
            for i in whole..keys.len() {
                self.add_keys::<V, 1>(keys.start + i, &weights[i..], sums);
            }
        }
    }

    /// Adds the values of `N` keys from `key` on; `weights[head * BLOCK]` is the weight of the
    /// first key.
    #[inline(always)]
    unsafe fn add_keys<V: Lanes, const N: usize>(
        &self,
        key: usize,
        weights: &[f32],
        sums: &mut [f32],
    ) {
        let Attention { v, d_kv, .. } = *self.attention;
        let row = self.segment.keys.start + key;
        for (h, head) in self.heads.clone().enumerate() {
            let weights = &weights[h * BLOCK..][..N];
            let sums = &mut sums[h * d_kv..][..d_kv];
            let whole = d_kv - d_kv % LANES;
            // The pointer below reads up to the end of the last of the N rows.
            assert!(v.at(row + N - 1, head, d_kv).len() == sums.len());
            let values = v.at(row, head, d_kv).as_ptr();
            let mut column = 0;
            while column < whole {
                // SAFETY: these lanes end at `whole`, within `sums` and the values of each of the N
                // rows.
                unsafe {
                    let mut sum = V::load(sums.as_ptr().add(column));
                    for (n, weight) in weights.iter().enumerate() {
                        let value: V = T::load(values.add(n * v.stride + column));
                        sum = value.mul_add(V::splat(*weight), sum);
                    }
                    sum.store(sums.as_mut_ptr().add(column));
                }
                column += LANES;
            }
            for (n, weight) in weights.iter().enumerate() {
                let rest = &v.at(row + n, head, d_kv)[whole..];
                for (value, v) in sums[whole..].iter_mut().zip(rest) {
                    *value += weight * v.value();
                }
            }
        }
    }
}

/// Prefetches `count` values.
#[inline(always)]
fn prefetch_all<T>(place: *const T, count: usize) {
    for i in (0..count).step_by(LINE / size_of::<T>()) {
        prefetch(place.wrapping_add(i));
    }
}

#[inline(always)]
fn scaled(values: &mut [f32], scale: f32) {
    for value in values {
        *value *= scale;
    }
}

#[inline(always)]
unsafe fn dot<V: Lanes, T: StoredFloat>(a: &[f32], b: &[T]) -> f32 {
    let whole = a.len() - a.len() % LANES;
    let mut i = 0;
    // SAFETY: vector reads end at `whole`; both slices are equally long.
    let sum = unsafe {
        let mut sum = V::splat(0.0);
        while i < whole {
            sum = V::load(a.as_ptr().add(i)).mul_add(T::load(b.as_ptr().add(i)), sum);
            i += LANES;
        }
        sum.sum()
    };
    let rest = a[whole..].iter().zip(&b[whole..]);
    rest.fold(sum, |sum, (a, b)| sum + a * b.value())
}

/// Turns scores into weights `exp(score - maximum)`, with the maximum of these and of all earlier
/// scores, and returns the sum of the weights.
#[inline(always)]
unsafe fn soften<V: Lanes>(scores: &mut [f32], maximum: &mut f32) -> f32 {
    for score in scores.iter() {
        *maximum = maximum.max(*score);
    }
    let mut total = 0.0;
    for chunk in scores.chunks_mut(LANES) {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        lanes[..chunk.len()].copy_from_slice(chunk);
        // SAFETY: `lanes` holds a vector.
        unsafe {
            let weights = exp(V::load(lanes.as_ptr()).sub(V::splat(*maximum)));
            weights.store(lanes.as_mut_ptr());
        }
        chunk.copy_from_slice(&lanes[..chunk.len()]);
        for weight in chunk.iter() {
            total += weight;
        }
    }
    total
}
