//! Packed attention on the CPU: each segment attends within itself, with an online softmax, so that
//! no L × L map is in memory.
//!
//! A task is one segment, one head and some queries: several queries at once in
//! `many_queries`, a single one, as in a step of decoding, in `single_query`. The result of a query
//! is the same chain of operations whatever the other queries, segments and threads are.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use std::ops::Range;

use rayon::prelude::*;

use super::attention::{Attention, MAX_HEAD};
use super::isa::Isa;
use super::many_queries::{ManyQueries, ROWS_PER_TASK};
use super::shared::SharedMut;
use super::simd::StoredFloat;
use super::single_query::{self, SingleQuery};

struct AttentionTask {
    segment: usize,
    head: usize,
    /// 1, except for single queries.
    num_heads: usize,
    /// Queries, counted from the segment's first.
    queries: Range<usize>,
}

/// `out (rows of Q, heads * d_kv)`: `softmax(q·kᵀ + bias)·v` per segment and head. Scores are not
/// scaled (T5).
///
/// # Panics
/// If `d_kv` exceeds [`MAX_HEAD`] or `out` does not hold the segments' rows.
pub fn attend<T: StoredFloat>(isa: Isa, attention: &Attention<'_, T>, out: &mut [f32]) {
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
    let run = |task: &AttentionTask| {
        let segment = &attention.segments[task.segment];
        // SAFETY: `isa` is available; tasks own disjoint (rows, head) blocks of `out`, whose size
        // was checked above.
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

fn tasks<T>(attention: &Attention<'_, T>) -> Vec<AttentionTask> {
    let singles = attention.segments.iter().filter(|s| attention.is_single(s));
    // Heads that are neighbours in memory are read together, as long as every thread has work.
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
                tasks.push(AttentionTask {
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
