//! Packed attention on the CPU: each segment attends within itself, with an online softmax; no L × L map in memory.
//!
//! A task is one segment, one head and some queries: several at once in [`super::many_queries`], a single one, as in a step of decoding, in
//! [`super::single_query`]. A query's result is the same chain of operations whatever the other queries, segments, and threads are.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use std::ops::Range;

use rayon::prelude::*;

use super::many_queries::{ManyQueries, ROWS_PER_TASK};
use super::packed_weight::Precision;
use super::simd::Stored;
use super::single_query::{self, SingleQuery};
use super::{Isa, SharedMut};
use crate::kernels::dropout::Dropout;

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
    /// Of the product of weights and values for several queries; bf16 only where the CPU multiplies it ([`Isa::rounds_activations`]), f32 elsewhere.
    pub precision: Precision,
}

impl<T> Attention<'_, T> {
    /// Whether a segment takes the form for one query.
    fn is_single(&self, segment: &Segment) -> bool {
        segment.queries.len() == 1 && self.dropout.is_none()
    }

    /// How many keys of a segment, from the first, any of its first `queries` queries sees.
    pub(super) fn seen(&self, segment: &Segment, queries: usize) -> usize {
        let keys = segment.keys.len();
        match self.visibility {
            Visibility::All => keys,
            Visibility::Causal => keys.min(segment.first_position + queries),
        }
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
        let segment = &attention.segments[task.segment];
        // SAFETY: `isa` is available; tasks own disjoint (rows, head) blocks of `out`, whose size was checked above.
        unsafe {
            if attention.is_single(segment) {
                let heads = task.head..task.head + task.num_heads;
                SingleQuery {
                    attention,
                    segment,
                    heads,
                }
                .run(isa, out);
            } else {
                let (head, queries) = (task.head, task.queries.clone());
                ManyQueries {
                    attention,
                    segment,
                    head,
                    queries,
                }
                .run(isa, out);
            }
        }
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
