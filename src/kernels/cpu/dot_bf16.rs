//! The product of [`super::gemm`] where the CPU multiplies pairs of bf16 (AVX512-BF16,
//! `vdpbf16ps`): both operands are rounded to bf16, to nearest even, and sums are f32. One
//! instruction does twice as many multiply-adds as in f32, and many times as many where the CPU has
//! matrix tiles ([`super::amx`]).
//!
//! The rows of A of a task are rounded block by block ([`DEPTH`] columns) into pairs of k: row by
//! row where A lies in rows, and in strips of [`STRIP`] rows where A lies in columns, so that
//! rounding never transposes. Weights are packed in pairs ([`super::layout`]).
//!
//! **Batch-invariant to the byte**: every element of C is one chain of pairs in the order of k,
//! whatever the number of rows, the tile or the threads.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

pub(super) mod tiles;

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps,
    _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_si512,
};
use std::cell::RefCell;

use super::layout::{LANES, PANEL, STRIP};
use super::output::{DepthProgress, ProductTask, TargetRows};
use super::product::{DepthSlice, FloatProduct, Left, ROW_BLOCK, depth_slices};
use super::simd::prefetch;
use super::simd::x86::{interleave_bf16, lane_mask};
use super::tile::{AHEAD, by_rows};

/// Columns of A in one block. bf16 has half the bytes of f32, so twice as many columns fit the
/// second-level cache, and results are read and written less often.
const DEPTH: usize = 1536;
/// Pairs from one row of a block to the next: more than [`DEPTH`] needs, so that twelve rows do not
/// share the same cache lines.
const ROW_PAIRS: usize = DEPTH / 2 + LANES;
/// Pairs of a block: ten strips, in rows or in columns.
const BLOCK_PAIRS: usize = ROW_BLOCK * ROW_PAIRS;
/// Pairs of a strip.
const STRIP_PAIRS: usize = STRIP * ROW_PAIRS;

thread_local! {
    static BLOCK: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Writes the results of one task of `product`.
///
/// # Safety
/// The CPU must have AVX-512F/BW/VL and AVX512-BF16; no other thread may touch these results
/// meanwhile.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn run(product: &FloatProduct<'_>, task: &ProductTask) {
    BLOCK.with_borrow_mut(|block| {
        let k = product.weight.k();
        // Up to one strip of rows takes all of k at once, so that its weights are read once and
        // straight through.
        let depth = if task.rows.len() <= STRIP { k } else { DEPTH };
        let pairs = BLOCK_PAIRS.max(k.div_ceil(DEPTH) * STRIP_PAIRS);
        block.resize(pairs.max(block.len()), 0);
        for start in (0..k).step_by(depth.max(1)) {
            let part = Bf16Block {
                product,
                task,
                start,
                depth: depth.min(k - start),
                block: block.as_mut_ptr(),
            };
            // SAFETY: `block` holds ten strips of DEPTH columns, or one of every DEPTH columns of
            // k; rows and panels are those of the product.
            unsafe {
                match product.a {
                    Left::Rows(a) => {
                        part.round_rows(a);
                        part.multiply::<ROW_PAIRS, 1>();
                    }
                    Left::Columns(a) => {
                        part.round_columns(a);
                        part.multiply::<1, STRIP>();
                    }
                }
            }
        }
    });
}

/// 32 values rounded to bf16: `low` first, then `high`.
#[inline(always)]
unsafe fn rounded(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the caller's CPU has AVX512-BF16; both types are 64 bytes.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// One block of k of one task, or all of k of up to [`STRIP`] rows, where every [`DEPTH`] columns
/// fill one strip.
struct Bf16Block<'a> {
    product: &'a FloatProduct<'a>,
    task: &'a ProductTask,
    start: usize,
    depth: usize,
    block: *mut u32,
}

impl Bf16Block<'_> {
    /// Rounds A that lies in rows: pair p of row r goes to `block[r][p]`. An odd last k is paired
    /// with zero.
    #[inline(always)]
    unsafe fn round_rows(&self, a: &[f32]) {
        let k = self.product.weight.k();
        for DepthSlice {
            first: first_column,
            depth,
            strip,
        } in depth_slices(self.depth, DEPTH)
        {
            for (i, row) in self.task.rows.clone().enumerate() {
                let values = &a[row * k + self.start + first_column..][..depth];
                for column in (0..depth).step_by(2 * LANES) {
                    let left = depth - column;
                    // SAFETY: masks end the reads at the row's end; a row of the block has room for
                    // whole registers (DEPTH is a multiple of 32).
                    unsafe {
                        let source = values.as_ptr().wrapping_add(column);
                        let low = _mm512_maskz_loadu_ps(lane_mask(left), source);
                        let upper = lane_mask(left.saturating_sub(LANES));
                        let high = _mm512_maskz_loadu_ps(upper, source.wrapping_add(LANES));
                        let place = self
                            .block
                            .add(strip * STRIP_PAIRS + i * ROW_PAIRS + column / 2);
                        _mm512_storeu_si512(place.cast(), rounded(low, high));
                    }
                }
            }
        }
    }

    /// Rounds A that lies in columns: pair p of row r goes to `block[r / 12][p][r % 12]`.
    #[inline(always)]
    unsafe fn round_columns(&self, a: &[f32]) {
        let m = self.product.m;
        for DepthSlice {
            first: first_column,
            depth,
            strip: first_strip,
        } in depth_slices(self.depth, DEPTH)
        {
            for (strip, row) in self.task.rows.clone().step_by(STRIP).enumerate() {
                let height = lane_mask(STRIP.min(self.task.rows.end - row));
                for pair in 0..depth.div_ceil(2) {
                    let k = self.start + first_column + 2 * pair;
                    let odd = if 2 * pair + 1 < depth { height } else { 0 };
                    // SAFETY: masks end reads at the task's last row, and rows `k` and `k + 1` of A
                    // exist where they are read; a strip of the block holds 12 pairs for every pair
                    // of k.
                    unsafe {
                        let source = a.as_ptr().wrapping_add(k * m + row);
                        let even = _mm512_maskz_loadu_ps(height, source);
                        let odd = _mm512_maskz_loadu_ps(odd, source.wrapping_add(m));
                        let place = self
                            .block
                            .add((first_strip + strip) * STRIP_PAIRS + pair * STRIP);
                        let pairs = interleave_bf16(even, odd);
                        _mm512_mask_storeu_epi32(place.cast(), height, pairs);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn progress(&self) -> DepthProgress {
        self.product.progress(self.start, self.depth)
    }

    /// Multiplies the block, whose pair p of row r of a strip lies at `r * ROW + p * STEP`.
    #[inline(always)]
    unsafe fn multiply<const ROW: usize, const STEP: usize>(&self) {
        let rows = self.task.rows.len();
        for pass in self.product.output.passes(self.task, self.progress()) {
            let (panels, target) = (&pass.panels, &pass.target);
            // SAFETY: tiles stay within the task's rows and panels.
            unsafe {
                let mut panel = panels.start;
                if rows <= 3 {
                    while panel + 4 <= panels.end {
                        self.tile_of_rows::<ROW, STEP, 4>(target, 0, rows, panel);
                        panel += 4;
                    }
                }
                for panel in panel..panels.end {
                    for row in (0..rows).step_by(STRIP) {
                        let rows = STRIP.min(rows - row);
                        self.tile_of_rows::<ROW, STEP, 1>(target, row, rows, panel);
                    }
                }
                pass.finish();
            }
        }
    }

    /// Index of the residual of a row of the task and the first column of a panel.
    #[inline(always)]
    fn residual_place(&self, row: usize, panel: usize) -> usize {
        (self.task.rows.start + row) * self.product.weight.n() + panel * PANEL
    }

    #[inline(always)]
    unsafe fn tile_of_rows<const ROW: usize, const STEP: usize, const NP: usize>(
        &self,
        target: &TargetRows,
        row: usize,
        rows: usize,
        panel: usize,
    ) {
        // SAFETY: passed on from `multiply`.
        unsafe {
            if NP > 1 {
                by_rows!(rows, up to 3, MR => self.tile::<ROW, STEP, MR, NP>(target, row, panel));
            } else {
                by_rows!(rows, up to STRIP, MR => self.tile::<ROW, STEP, MR, 1>(target, row, panel));
            }
        }
    }

    /// Computes `MR` rows × `NP` panels of results for this block of k.
    #[inline(always)]
    unsafe fn tile<const ROW: usize, const STEP: usize, const MR: usize, const NP: usize>(
        &self,
        target: &TargetRows,
        row: usize,
        panel: usize,
    ) {
        let FloatProduct {
            weight, residual, ..
        } = self.product;
        // SAFETY: a tile begins at a multiple of 12 rows, hence at a strip in either form, and has
        // at most 12; panels `panel..panel + NP` exist and hold every pair of k; the target and the
        // residual have whole rows, of which masks touch only the columns that exist.
        unsafe {
            let a = self.block.add(row * ROW_PAIRS);
            let b: [*const u32; NP] = std::array::from_fn(|p| {
                let pairs: *const u32 = weight.panel(panel + p).cast();
                pairs.add(self.start / 2 * PANEL)
            });
            let mut sums = [[[_mm512_setzero_ps(); 2]; NP]; MR];
            let (c, stride) = (target.at(row, panel), target.stride);
            let columns = target.columns(panel);
            let mask =
                |p: usize, half: usize| lane_mask(columns.saturating_sub(p * PANEL + half * LANES));
            if self.start > 0 || self.product.adds {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (p, sums) in sums.iter_mut().enumerate() {
                        for (half, sum) in sums.iter_mut().enumerate() {
                            let c = c.wrapping_add(r * stride + p * PANEL + half * LANES);
                            *sum = _mm512_maskz_loadu_ps(mask(p, half), c);
                        }
                    }
                }
            }
            if row + MR < self.task.rows.len() {
                for r in MR..2 * MR {
                    let next = c.wrapping_add(r * stride);
                    prefetch(next);
                    prefetch(next.wrapping_add(LANES));
                }
            }
            for DepthSlice {
                first,
                depth,
                strip,
            } in depth_slices(self.depth, DEPTH)
            {
                let b = b.map(|b| b.add(first / 2 * PANEL));
                let a = a.add(strip * STRIP_PAIRS);
                dot::<ROW, STEP, MR, NP>(&mut sums, a, b, depth.div_ceil(2));
            }
            let residual = residual.filter(|_| self.progress().is_last);
            for (r, sums) in sums.iter().enumerate() {
                for (p, sums) in sums.iter().enumerate() {
                    for (half, sum) in sums.iter().enumerate() {
                        let column = p * PANEL + half * LANES;
                        let mut sum = *sum;
                        if let Some(residual) = residual {
                            let place = self.residual_place(row + r, panel) + column;
                            let residual = residual.as_ptr().wrapping_add(place);
                            sum =
                                _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask(p, half), residual));
                        }
                        let c = c.wrapping_add(r * stride + column);
                        _mm512_mask_storeu_ps(c, mask(p, half), sum);
                    }
                }
            }
        }
    }
}

/// `sums += a · b` over `pairs` pairs of k.
///
/// # Safety
/// `a` must hold `MR` rows of `pairs` pairs, every pointer of `b` `pairs` rows of 32 pairs.
#[inline(always)]
unsafe fn dot<const ROW: usize, const STEP: usize, const MR: usize, const NP: usize>(
    sums: &mut [[[__m512; 2]; NP]; MR],
    a: *const u32,
    b: [*const u32; NP],
    pairs: usize,
) {
    let mut local = *sums;
    for pair in 0..pairs {
        for (p, b) in b.iter().enumerate() {
            // SAFETY: pair < pairs; both types are 64 bytes.
            unsafe {
                let b = b.add(pair * PANEL);
                if NP == 1 {
                    let ahead = b.wrapping_add(AHEAD * PANEL);
                    prefetch(ahead);
                    prefetch(ahead.wrapping_add(LANES));
                }
                let left: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.cast()));
                let right: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.add(LANES).cast()));
                for (r, sums) in local.iter_mut().enumerate() {
                    let value = *a.add(r * ROW + pair * STEP);
                    let value: __m512bh = std::mem::transmute(_mm512_set1_epi32(value as i32));
                    sums[p][0] = _mm512_dpbf16_ps(sums[p][0], value, left);
                    sums[p][1] = _mm512_dpbf16_ps(sums[p][1], value, right);
                }
            }
        }
    }
    *sums = local;
}
