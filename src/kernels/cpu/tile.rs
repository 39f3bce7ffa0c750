//! A tile of results in registers: up to 12 rows × 32 columns (several panels where rows are few), multiplied, read and written. What the products of
//! [`super::gemm`] and of attention are made of.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use super::packed_weight::PANEL;
use super::simd::{LANES, Lanes, prefetch};

/// Rows of weights that are asked for before they are needed: main memory answers that late, and few rows of A don't take long with a row of weights.
pub(super) const AHEAD: usize = 56;
/// `sums += a · b` over `depth` steps of k: value (row, k) of A lies at `row * ROW + k * STEP`, rows of B `b_stride` floats apart.
///
/// # Safety
/// `a` must hold `MR` rows of `depth` values, every pointer of `b` `depth` rows of 32 floats.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "the row indexes A and the sums alike"
)]
pub(super) unsafe fn multiply_f32<
    V: Lanes,
    const MR: usize,
    const NP: usize,
    const ROW: usize,
    const STEP: usize,
>(
    sums: &mut [[[V; 2]; NP]; MR],
    a: *const f32,
    b: [*const f32; NP],
    depth: usize,
    b_stride: usize,
) {
    let mut local = *sums;
    for k in 0..depth {
        for p in 0..NP {
            // SAFETY: k < depth.
            unsafe {
                prefetch(b[p].wrapping_add((k + AHEAD) * b_stride));
                prefetch(b[p].wrapping_add((k + AHEAD) * b_stride + LANES));
                let left = V::load(b[p].add(k * b_stride));
                let right = V::load(b[p].add(k * b_stride + LANES));
                for r in 0..MR {
                    let value = V::splat(*a.add(r * ROW + k * STEP));
                    local[r][p][0] = value.mul_add(left, local[r][p][0]);
                    local[r][p][1] = value.mul_add(right, local[r][p][1]);
                }
            }
        }
    }
    *sums = local;
}

/// As [`multiply_f32`] over `pairs` pairs of k with B in bf16 pairs.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "the row indexes A and the sums alike"
)]
pub(super) unsafe fn multiply_bf16<
    V: Lanes,
    const MR: usize,
    const NP: usize,
    const ROW: usize,
    const STEP: usize,
>(
    sums: &mut [[[V; 2]; NP]; MR],
    a: *const f32,
    b: [*const f32; NP],
    pairs: usize,
) {
    let mut local = *sums;
    for pair in 0..pairs {
        for p in 0..NP {
            // SAFETY: as in `multiply_f32`; A is zero beyond an odd last k.
            unsafe {
                let source: *const u16 = b[p].add(pair * PANEL).cast();
                let (left_even, left_odd) = V::load_bf16_pairs(source);
                let (right_even, right_odd) = V::load_bf16_pairs(source.add(2 * LANES));
                for r in 0..MR {
                    let even = V::splat(*a.add(r * ROW + 2 * pair * STEP));
                    local[r][p][0] = even.mul_add(left_even, local[r][p][0]);
                    local[r][p][1] = even.mul_add(right_even, local[r][p][1]);
                }
                for r in 0..MR {
                    let odd = V::splat(*a.add(r * ROW + (2 * pair + 1) * STEP));
                    local[r][p][0] = odd.mul_add(left_odd, local[r][p][0]);
                    local[r][p][1] = odd.mul_add(right_odd, local[r][p][1]);
                }
            }
        }
    }
    *sums = local;
}

/// One row's `columns` (at most `32 NP`) floats from `source`, zero beyond.
#[inline(always)]
unsafe fn read_row<V: Lanes, const NP: usize>(source: *const f32, columns: usize) -> [[V; 2]; NP] {
    let mut padded = [0.0f32; 4 * PANEL];
    // SAFETY: `columns` floats are readable and fit the buffer; a full row is read in place.
    unsafe {
        let mut from = source;
        if columns < NP * PANEL {
            std::ptr::copy_nonoverlapping(source, padded.as_mut_ptr(), columns);
            from = padded.as_ptr();
        }
        std::array::from_fn(|p| {
            [
                V::load(from.add(p * PANEL)),
                V::load(from.add(p * PANEL + LANES)),
            ]
        })
    }
}

#[inline(always)]
pub(super) unsafe fn read_tile<V: Lanes, const MR: usize, const NP: usize>(
    sums: &mut [[[V; 2]; NP]; MR],
    source: *const f32,
    stride: usize,
    columns: usize,
) {
    for (r, row) in sums.iter_mut().enumerate() {
        // SAFETY: passed on from `tile`.
        *row = unsafe { read_row(source.add(r * stride), columns) };
    }
}

#[inline(always)]
pub(super) unsafe fn add_tile<V: Lanes, const MR: usize, const NP: usize>(
    sums: &mut [[[V; 2]; NP]; MR],
    source: *const f32,
    stride: usize,
    columns: usize,
) {
    for (r, row) in sums.iter_mut().enumerate() {
        // SAFETY: passed on from `tile`.
        unsafe {
            let other: [[V; 2]; NP] = read_row(source.add(r * stride), columns);
            for p in 0..NP {
                row[p] = [row[p][0].add(other[p][0]), row[p][1].add(other[p][1])];
            }
        }
    }
}

/// Writes a tile's first `columns` columns.
#[inline(always)]
pub(super) unsafe fn write_tile<V: Lanes, const MR: usize, const NP: usize>(
    sums: &[[[V; 2]; NP]; MR],
    target: *mut f32,
    stride: usize,
    columns: usize,
) {
    for (r, row) in sums.iter().enumerate() {
        // SAFETY: passed on from `tile`: `columns` floats of the row are ours to write.
        unsafe {
            let target = target.add(r * stride);
            let mut padded = [0.0f32; 4 * PANEL];
            let whole = columns == NP * PANEL;
            let to = if whole { target } else { padded.as_mut_ptr() };
            for (p, halves) in row.iter().enumerate() {
                halves[0].store(to.add(p * PANEL));
                halves[1].store(to.add(p * PANEL + LANES));
            }
            if !whole {
                std::ptr::copy_nonoverlapping(padded.as_ptr(), target, columns);
            }
        }
    }
}
