//! The product of attention's weights and values: in f32, or in pairs of bf16.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use super::layout::{LANES, PANEL, Spacing};
use super::simd::{Bf16Pairs, Lanes};
use super::tile::{lanes, multiply_f32};

/// A product of weights and values, which are one row per key.
///
/// # Safety
/// As for [`Lanes`].
pub(super) unsafe trait Mix<V: Lanes> {
    /// Rounds `rows` rows of `width` values, `ROW` apart, in place. There must be room for one more
    /// row.
    unsafe fn round<const ROW: usize>(values: *mut f32, rows: usize, width: usize);
    /// `sums += valuesᵀ · weights` over `rows` rows, `ROW` values and 32 weights apart.
    unsafe fn add<const MR: usize, const ROW: usize, const W: usize>(
        sums: &mut [[[V; W]; 1]; MR],
        values: *const f32,
        weights: *const f32,
        rows: usize,
    );
}

/// Products in f32.
pub(super) struct Floats;

// SAFETY: as for `multiply_f32`.
unsafe impl<V: Lanes> Mix<V> for Floats {
    #[inline(always)]
    unsafe fn round<const ROW: usize>(_: *mut f32, _: usize, _: usize) {}
    #[inline(always)]
    unsafe fn add<const MR: usize, const ROW: usize, const W: usize>(
        sums: &mut [[[V; W]; 1]; MR],
        values: *const f32,
        weights: *const f32,
        rows: usize,
    ) {
        let spacing = Spacing::rows(PANEL);
        // SAFETY: passed on from the caller.
        unsafe {
            multiply_f32::<V, MR, 1, 1, ROW, W>(sums, values, [weights], rows, spacing, None);
        }
    }
}

/// Products of bf16 pairs, of one key and the next: two rows become one.
pub(super) struct Pairs;

// SAFETY: rows are those of the caller.
unsafe impl<V: Bf16Pairs> Mix<V> for Pairs {
    #[inline(always)]
    unsafe fn round<const ROW: usize>(values: *mut f32, rows: usize, width: usize) {
        // SAFETY: pair i overwrites row i, which was read before or is read now.
        unsafe {
            if rows % 2 == 1 {
                values.add(rows * ROW).write_bytes(0, width);
            }
            for pair in 0..rows.div_ceil(2) {
                for first in (0..width).step_by(LANES) {
                    let even = values.add(2 * pair * ROW + first);
                    let pairs = V::pairs(V::load(even), V::load(even.add(ROW)));
                    pairs.store(values.add(pair * ROW + first));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn add<const MR: usize, const ROW: usize, const W: usize>(
        sums: &mut [[[V; W]; 1]; MR],
        values: *const f32,
        weights: *const f32,
        rows: usize,
    ) {
        let mut local = *sums;
        for pair in 0..rows.div_ceil(2) {
            // SAFETY: `round` wrote as many rows of pairs.
            unsafe {
                let weights: [V; W] = lanes(weights.add(pair * PANEL));
                for (r, [sums]) in local.iter_mut().enumerate() {
                    let value = *values.add(pair * ROW + r);
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = sum.add_dot(value, weights);
                    }
                }
            }
        }
        *sums = local;
    }
}
