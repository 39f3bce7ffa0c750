//! Products of bf16 in matrix tiles: a task's rows of A, rounded by [`Bf16Block`], against panels of
//! weights, in blocks of [`SIDE`] × [`SIDE`] results.

use super::{BLOCK, Bf16Block, DEPTH, ROW_PAIRS};
use crate::kernels::cpu::amx::{self, Right, SIDE, TileUnit};
use crate::kernels::cpu::layout::{LANES, PANEL, Strided};
use crate::kernels::cpu::output::ProductTask;
use crate::kernels::cpu::product::FloatProduct;

/// Rows of A in one task of matrix tiles.
pub(in crate::kernels::cpu) const TILED_ROWS: usize = 8 * SIDE;

/// As [`run`](super::run), with the matrix tiles of `U`; A lies in rows.
///
/// # Safety
/// As for [`run`](super::run) and for [`TileUnit`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(in crate::kernels::cpu) unsafe fn run_in_tiles<U: TileUnit>(
    product: &FloatProduct<'_>,
    a: &[f32],
    task: &ProductTask,
) {
    BLOCK.with_borrow_mut(|block| {
        let k = product.weight.k();
        let pairs = TILED_ROWS * ROW_PAIRS;
        block.resize((pairs + LANES).max(block.len()), 0);
        // Rows that begin at a cache line are read line by line.
        let skipped = block.as_ptr().align_offset(64).min(LANES);
        // SAFETY: `block` holds as many rows as a task has; the product is the caller's.
        unsafe {
            U::begin();
            for start in (0..k).step_by(DEPTH) {
                let part = Bf16Block {
                    product,
                    task,
                    start,
                    depth: DEPTH.min(k - start),
                    block: block.as_mut_ptr().add(skipped),
                };
                part.round_rows(a);
                part.multiply_in_tiles::<U>();
            }
            U::end();
        }
    });
}

impl Bf16Block<'_> {
    /// Multiplies the block in blocks of [`SIDE`] × [`SIDE`] results. A block that crosses an edge
    /// of C is computed in `beyond`.
    #[inline(always)]
    unsafe fn multiply_in_tiles<U: TileUnit>(&self) {
        let FloatProduct {
            weight,
            residual,
            adds,
            ref output,
            ..
        } = *self.product;
        let progress = self.progress();
        let begins = progress.is_first && !adds;
        let residual = residual.filter(|_| progress.is_last);
        let rows = self.task.rows.len();
        let mut beyond = [0.0_f32; SIDE * SIDE];
        for pass in output.passes(self.task, progress) {
            let stride = pass.target.stride;
            for panel in pass.panels.clone() {
                let width = PANEL.min(pass.target.columns(panel));
                // SAFETY: a panel holds every pair of k; a block of A holds TILED_ROWS rows of
                // whole steps, zero beyond the last pair; rows beyond the task's last one affect no
                // other row; the target and the residual have whole rows, of which those of this
                // task and panel are touched.
                unsafe {
                    let b: *const u32 = weight.panel(panel).cast();
                    let b = b.add(self.start / 2 * PANEL);
                    let right = Right::new(b, self.depth.div_ceil(2));
                    for row in (0..rows).step_by(SIDE) {
                        let height = SIDE.min(rows - row);
                        let target = pass.target.at(row, panel);
                        let is_whole = height == SIDE && width == SIDE;
                        let target_rows = Strided {
                            start: target,
                            stride,
                        };
                        let to = if is_whole {
                            target_rows
                        } else {
                            Strided {
                                start: beyond.as_mut_ptr(),
                                stride: SIDE,
                            }
                        };
                        if !is_whole && !begins {
                            copy_rows(target_rows, to, height, width);
                        }
                        let sums: Strided<*mut u32> = Strided {
                            start: to.start.cast(),
                            stride: 4 * to.stride,
                        };
                        let so_far = Strided {
                            start: sums.start.cast_const(),
                            stride: sums.stride,
                        };
                        let from = if begins { amx::zeros() } else { so_far };
                        let a = Strided {
                            start: self.block.add(row * ROW_PAIRS).cast_const(),
                            stride: 4 * ROW_PAIRS,
                        };
                        right.multiply(U::multiply_bf16, from, a, sums);
                        if !is_whole {
                            copy_rows(to, target_rows, height, width);
                        }
                        let Some(residual) = residual else {
                            continue;
                        };
                        for r in 0..height {
                            let results = target.add(r * stride);
                            let place = self.residual_place(row + r, panel);
                            for (i, value) in residual[place..][..width].iter().enumerate() {
                                *results.add(i) += value;
                            }
                        }
                    }
                }
            }
            // SAFETY: the results of the pass are complete.
            unsafe { pass.finish() };
        }
    }
}

/// Copies `height` rows of `width` floats.
#[inline(always)]
unsafe fn copy_rows(from: Strided<*mut f32>, to: Strided<*mut f32>, height: usize, width: usize) {
    for row in 0..height {
        // SAFETY: the caller's rows, which do not overlap.
        unsafe {
            let from = from.start.add(row * from.stride);
            std::ptr::copy_nonoverlapping(from, to.start.add(row * to.stride), width);
        }
    }
}
