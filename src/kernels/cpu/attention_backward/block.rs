//! One block of queries against the keys that they may see: the products of attention's gradients,
//! and how their operands lie in memory.

use super::GradientScratch;
use crate::kernels::cpu::layout::{LANES, PANEL, Strided};
use crate::kernels::cpu::simd::Lanes;
use crate::kernels::cpu::tile::{Sum, product};

/// Keys in one block.
pub(super) const DEPTH: usize = 512;
/// Floats from one row of scores to the next: more than [`DEPTH`], so that rows do not share cache
/// sets.
pub(super) const STRIDE: usize = DEPTH + LANES;
/// Queries whose probabilities are in memory at a time: a multiple of every tile's height.
pub(super) const QUERIES: usize = 96;

/// Some queries of a task and the keys they may see.
pub(super) struct QueryBlock {
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) seen: usize,
}

impl QueryBlock {
    /// Blocks of up to [`DEPTH`] keys: number of the block, keys in it.
    pub(super) fn key_blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let seen = self.seen;
        (0..seen.div_ceil(DEPTH)).map(move |block| (block, DEPTH.min(seen - block * DEPTH)))
    }
}

/// `target[key / DEPTH][query][key % DEPTH] = rows · panels`.
#[inline(always)]
pub(super) unsafe fn scores<V: Lanes>(
    block: &QueryBlock,
    d_kv: usize,
    rows: &[f32],
    panels: &[f32],
    target: &mut [f32],
) {
    for panel in 0..block.seen.div_ceil(PANEL) {
        let (number, column) = (panel * PANEL / DEPTH, panel * PANEL % DEPTH);
        for row in (0..block.rows).step_by(V::TILE_ROWS) {
            let count = V::TILE_ROWS.min(block.rows - row);
            // SAFETY: `rows` holds QUERIES rows of STRIDE, `panels` whole panels, the target whole
            // maps.
            unsafe {
                let a = rows.as_ptr().add(row * STRIDE);
                let b = panels.as_ptr().add(panel * d_kv * PANEL);
                let c = target
                    .as_mut_ptr()
                    .add((number * QUERIES + row) * STRIDE + column);
                product::<V, STRIDE, 1>(
                    count,
                    a,
                    strided(b, PANEL),
                    d_kv,
                    strided(c, STRIDE),
                    Sum::New,
                );
            }
        }
    }
}

/// `dq = ds · k`.
#[inline(always)]
pub(super) unsafe fn query_gradient<V: Lanes>(
    block: &QueryBlock,
    padded_d: usize,
    scratch: &mut GradientScratch,
) {
    for (number, keys) in block.key_blocks() {
        let sum = if number == 0 { Sum::New } else { Sum::Add };
        for row in (0..block.rows).step_by(V::TILE_ROWS) {
            let count = V::TILE_ROWS.min(block.rows - row);
            for column in (0..padded_d).step_by(PANEL) {
                // SAFETY: maps hold QUERIES rows per block of keys; keys and dq are rows of
                // padded_d.
                unsafe {
                    let a = scratch
                        .slopes
                        .as_ptr()
                        .add((number * QUERIES + row) * STRIDE);
                    let b = scratch
                        .key_rows
                        .as_ptr()
                        .add(number * DEPTH * padded_d + column);
                    let c = scratch.dq.as_mut_ptr().add(row * padded_d + column);
                    product::<V, STRIDE, 1>(
                        count,
                        a,
                        strided(b, padded_d),
                        keys,
                        strided(c, padded_d),
                        sum,
                    );
                }
            }
        }
    }
}

/// `target += mapᵀ · rows`: gradients of keys or values.
#[inline(always)]
pub(super) unsafe fn key_gradient<V: Lanes>(
    block: &QueryBlock,
    padded_d: usize,
    map: &[f32],
    rows: &[f32],
    target: &mut [f32],
) {
    for (number, keys) in block.key_blocks() {
        for key in (0..keys).step_by(V::TILE_ROWS) {
            let count = V::TILE_ROWS.min(keys - key);
            for column in (0..padded_d).step_by(PANEL) {
                // SAFETY: as in `query_gradient`; the target holds one row of padded_d per key.
                unsafe {
                    let a = map.as_ptr().add(number * QUERIES * STRIDE + key);
                    let b = rows.as_ptr().add(column);
                    let c = target
                        .as_mut_ptr()
                        .add((number * DEPTH + key) * padded_d + column);
                    product::<V, 1, STRIDE>(
                        count,
                        a,
                        strided(b, STRIDE),
                        block.rows,
                        strided(c, padded_d),
                        Sum::Add,
                    );
                }
            }
        }
    }
}

#[inline(always)]
fn strided<P>(start: P, stride: usize) -> Strided<P> {
    Strided { start, stride }
}
