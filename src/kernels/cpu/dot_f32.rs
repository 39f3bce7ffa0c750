//! The product of [`super::gemm`] by multiply-adds of f32. bf16 weights are widened in registers; A
//! stays f32, so that only the weights are rounded.
//!
//! `A` is copied block by block ([`ROW_BLOCK`] rows × [`DEPTH`] columns, which fit L2), in the
//! strips that [`super::layout`] draws, so that copying never transposes. The inner loop reads both
//! operands straight through, from L2. A tile of up to 12 × 32 results (6 × 16 in AVX2's sixteen
//! registers) stays in registers; meanwhile, the lines of C that the next tile writes are
//! prefetched.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use std::cell::RefCell;

use super::isa::{Isa, with_isa};
use super::layout::{LANES, PANEL, STRIP};
use super::output::{DepthProgress, ProductTask, TargetRows};
use super::product::{DepthSlice, FloatProduct, Left, ROW_BLOCK, depth_slices};
use super::simd::{Lanes, prefetch};
use super::tile::{
    AHEAD, CacheLines, add_tile, by_rows, multiply_bf16, multiply_f32, read_tile, write_tile,
};
use crate::kernels::plan::Precision;

/// Columns of A multiplied in one go; even, so that pairs of bf16 are never parted.
const DEPTH: usize = 768;
/// Floats between rows of a block. The floats beyond [`DEPTH`] hold the other half of an odd last
/// pair, and keep twelve rows off the same lines of the cache.
const ROW_FLOATS: usize = DEPTH + LANES;
/// Floats of a strip, in either form.
const STRIP_FLOATS: usize = STRIP * ROW_FLOATS;

thread_local! {
    static BLOCK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl FloatProduct<'_> {
    /// Calls `multiply` with one block of k after the other.
    pub(super) fn for_each_block(&self, task: &ProductTask, multiply: impl Fn(&FloatBlock<'_>)) {
        BLOCK.with_borrow_mut(|block| {
            let k = self.weight.k();
            // Up to one strip of rows takes all of k at once, so that its weights are read once and
            // straight through.
            let most = if task.rows.len() <= STRIP { k } else { DEPTH };
            let strips = (ROW_BLOCK / STRIP).max(k.div_ceil(DEPTH));
            block.resize(strips * STRIP_FLOATS, 0.0);
            for start in (0..k).step_by(most.max(1)) {
                let depth = most.min(k - start);
                for slice in depth_slices(depth, DEPTH) {
                    let block = &mut block[slice.strip * STRIP_FLOATS..];
                    self.copy_block(&task.rows, start + slice.first, slice.depth, block);
                }
                multiply(&FloatBlock {
                    product: self,
                    block,
                    task,
                    start,
                    depth,
                });
            }
        });
    }

    /// Copies `rows` × `start..start + depth` of A to `block`, strip by strip. Rows beyond the last
    /// one keep their old values, which nothing reads.
    fn copy_block(
        &self,
        rows: &std::ops::Range<usize>,
        start: usize,
        depth: usize,
        block: &mut [f32],
    ) {
        for (first, strip) in rows
            .clone()
            .step_by(STRIP)
            .zip(block.chunks_exact_mut(STRIP_FLOATS))
        {
            let height = STRIP.min(rows.end - first);
            match self.a {
                Left::Rows(a) => {
                    let k = self.weight.k();
                    for (i, row) in strip.chunks_exact_mut(ROW_FLOATS).take(height).enumerate() {
                        let source = &a[(first + i) * k + start..][..depth];
                        row[..depth].copy_from_slice(source);
                        row[depth] = 0.0;
                    }
                }
                Left::Columns(a) => {
                    let (values, beyond) = strip.split_at_mut(STRIP * depth);
                    let source = a[start * self.m..].chunks(self.m);
                    for (values, column) in values.chunks_exact_mut(STRIP).zip(source) {
                        values[..height].copy_from_slice(&column[first..first + height]);
                    }
                    beyond[..STRIP].fill(0.0);
                }
            }
        }
    }
}

/// One block of k of one task, or all of k of up to [`STRIP`] rows, where every [`DEPTH`] columns
/// fill one strip.
pub(super) struct FloatBlock<'a> {
    product: &'a FloatProduct<'a>,
    block: &'a [f32],
    task: &'a ProductTask,
    start: usize,
    depth: usize,
}

impl FloatBlock<'_> {
    /// Writes or adds to the results of the task.
    pub(super) fn run(&self, isa: Isa) {
        debug_assert!(self.task.rows.end <= self.product.m);
        // SAFETY: `isa` is available (Isa::from_env checks); the block upholds the bounds that
        // `run_block` states.
        unsafe { with_isa!(isa, run_block(block: &FloatBlock<'_>)(self)) }
    }

    fn progress(&self) -> DepthProgress {
        self.product.progress(self.start, self.depth)
    }
}

#[inline(always)]
pub(super) unsafe fn run_block<V: Lanes>(block: &FloatBlock<'_>) {
    // SAFETY: passed on from `FloatBlock::run`.
    unsafe {
        match block.product.a {
            Left::Rows(_) => run_tiles::<V, ROW_FLOATS, 1>(block),
            Left::Columns(_) => run_tiles::<V, 1, STRIP>(block),
        }
    }
}

/// Multiplies the block; value (row, k) of a strip lies at `row * ROW + k * STEP`.
#[inline(always)]
unsafe fn run_tiles<V: Lanes, const ROW: usize, const STEP: usize>(block: &FloatBlock<'_>) {
    let rows = block.task.rows.len();
    // Few rows do not hide the latency of a multiply-add; several panels side by side do, as many
    // as the registers hold.
    let wide = match (V::TILE_WIDTH, rows) {
        (2, ..=3) => 4,
        (1, 1) => 2,
        (1, 2) => 1,
        _ => 0,
    };
    let most = match block.product.weight.precision() {
        Precision::F32 => V::TILE_ROWS,
        Precision::Bf16 => V::TILE_ROWS_BF16,
    };
    for pass in block.product.output.passes(block.task, block.progress()) {
        let target = &pass.target;
        // SAFETY: tiles stay within the task's rows and panels; panels are whole in the packed
        // weight (padded), and the target is written only where row < m and column < n.
        unsafe {
            let mut panel = pass.panels.start;
            while wide > 0 && panel + wide <= pass.panels.end {
                if V::TILE_WIDTH == 2 {
                    by_rows!(rows, up to 3, MR => tile::<V, MR, 4, 2, ROW, STEP>(block, target, 0, panel, 0));
                } else if rows == 1 {
                    tile::<V, 1, 2, 2, ROW, STEP>(block, target, 0, panel, 0);
                } else {
                    tile::<V, 2, 1, 2, ROW, STEP>(block, target, 0, panel, 0);
                }
                panel += wide;
            }
            for panel in panel..pass.panels.end {
                for half in 0..2 / V::TILE_WIDTH {
                    for row in (0..rows).step_by(most) {
                        let rows = most.min(rows - row);
                        if V::TILE_WIDTH == 2 {
                            by_rows!(rows, up to V::TILE_ROWS, MR => tile::<V, MR, 1, 2, ROW, STEP>(block, target, row, panel, half));
                        } else {
                            by_rows!(rows, up to V::TILE_ROWS, MR => tile::<V, MR, 1, 1, ROW, STEP>(block, target, row, panel, half));
                        }
                    }
                }
            }
            pass.finish();
        }
    }
}

/// `MR` rows × `NP` panels of C, or the half of one, for one block of k.
#[inline(always)]
unsafe fn tile<
    V: Lanes,
    const MR: usize,
    const NP: usize,
    const W: usize,
    const ROW: usize,
    const STEP: usize,
>(
    block: &FloatBlock<'_>,
    target: &TargetRows,
    row: usize,
    panel: usize,
    half: usize,
) {
    let weight = block.product.weight;
    let columns = target.columns(panel);
    if half * LANES >= columns {
        return;
    }
    // SAFETY: `block` holds strips of STRIP rows and STRIP_FLOATS floats; a tile begins at a
    // multiple of its height and so stays within a strip, and row + MR <= rows; panels
    // `panel..panel + NP` exist and hold `k` rows from `start`; the target has the task's rows,
    // columns beyond its last are never touched.
    unsafe {
        let (c, stride) = (target.at(row, panel).add(half * LANES), target.stride);
        let columns = (columns - half * LANES).min((NP - 1) * PANEL + W * LANES);
        let a = block
            .block
            .as_ptr()
            .add(row / STRIP * STRIP_FLOATS + row % STRIP * ROW);
        let mut sums = [[[V::splat(0.0); W]; NP]; MR];
        if block.start > 0 || block.product.adds {
            read_tile(&mut sums, c, stride, columns);
        }
        if row + MR < block.task.rows.len() {
            for r in MR..2 * MR {
                for w in 0..W {
                    prefetch(c.wrapping_add(r * stride + w * LANES));
                }
            }
        }
        let spacing = weight.spacing();
        let passes = block.task.rows.len().div_ceil(MR);
        for DepthSlice {
            first,
            depth,
            strip,
        } in depth_slices(block.depth, DEPTH)
        {
            let (a, k) = (a.add(strip * STRIP_FLOATS), block.start + first);
            let (first_row, steps) = match weight.precision() {
                Precision::F32 => (k, depth),
                Precision::Bf16 => (k / 2, depth.div_ceil(2)),
            };
            let mut b = [weight.panel(panel); NP];
            for (p, b) in b.iter_mut().enumerate() {
                let place = first_row * spacing.row + half * spacing.half;
                *b = weight.panel(panel + p).add(place);
            }
            // Wide tiles read a panel once, so the prefetch is a constant distance ahead. Narrow
            // tiles read half a panel again and again, and prefetch a share of the next half each
            // time.
            let (distance, step) = if W == 2 {
                (AHEAD * spacing.row, spacing.row)
            } else {
                let share = steps * LANES / passes;
                (spacing.half + row / MR * share, LANES / passes)
            };
            let ahead = CacheLines {
                places: b.map(|b| b.wrapping_add(distance)),
                step,
                half: spacing.half,
            };
            match weight.precision() {
                Precision::F32 => {
                    let ahead = Some(ahead);
                    multiply_f32::<V, MR, NP, ROW, STEP, W>(&mut sums, a, b, steps, spacing, ahead);
                }
                Precision::Bf16 => {
                    multiply_bf16::<V, MR, NP, ROW, STEP, W>(
                        &mut sums, a, b, steps, spacing, ahead,
                    );
                }
            }
        }
        if let Some(residual) = block.product.residual.filter(|_| block.progress().is_last) {
            let n = weight.n();
            let place = (block.task.rows.start + row) * n + panel * PANEL + half * LANES;
            let residual = residual.as_ptr().add(place);
            add_tile(&mut sums, residual, n, columns);
        }
        write_tile(&sums, c, stride, columns);
    }
}
