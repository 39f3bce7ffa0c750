//! `C = A · Wᵀ (+ R)` with W in integers ([`IntegerWeight`]) and A quantised row by row, product by
//! product.
//!
//! Sums are exact, and a result is `(sum as f32) · (scale of the row · scale of the output) +
//! residual`, each operation rounded by itself: the same bytes on every instruction set, in any
//! batch and on any number of threads.
#![expect(
    unsafe_code,
    reason = "vector loads through pointers; each block says why it is in bounds"
)]

use std::cell::Cell;

#[cfg(target_arch = "x86_64")]
use super::amx::{self, Right, SIDE, TileUnit, Tiles};
#[cfg(target_arch = "x86_64")]
use super::integer_lanes::VnniSums;
use super::integer_lanes::{RowScale, Sums, with_integers};
use super::integer_quantizer::Quantizer;
use super::integer_weight::{Bits, GroupOrder, IntegerRows, IntegerWeight};
use super::isa::{IntegerIsa, Isa};
#[cfg(target_arch = "x86_64")]
use super::layout::Strided;
use super::layout::{LANES, PANEL, STRIP};
use super::output::{
    DepthProgress, OutputGate, ProductOutput, ProductTask, TargetRows, TaskGrid, written,
};
use super::shared::SharedMut;
use super::simd::prefetch;
use crate::kernels::plan::Activation;

/// Rows of A in one task.
const ROW_BLOCK: usize = 20 * STRIP;
/// Rows of A in one task of matrix tiles: a multiple of the side of a tile block.
const TILED_ROWS: usize = 8 * PANEL;
/// Below this many multiply-adds a product is not worth a second thread.
const SERIAL_WORK: usize = 1 << 18;
/// Rows of weights that are prefetched.
const AHEAD: usize = 48;

thread_local! {
    /// Memory of the last product, for reuse. It is taken while in use, because a thread that waits
    /// may run a part of another product.
    static ROWS: Cell<IntegerRows> = Cell::default();
}

/// `a (m, k) · weightᵀ`, plus `residual (m, n)` where given: `(m, n)`. All row-major and
/// contiguous.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn product(
    isa: IntegerIsa,
    a: &[f32],
    weight: &IntegerWeight,
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let (m, n) = (a.len() / weight.k().max(1), weight.n());
    let write = |c| {
        let output = ProductOutput::plain(c, n);
        let operands = IntegerOperands {
            a,
            weight,
            residual,
            output,
            m,
        };
        start(isa, &operands);
    };
    // SAFETY: a product writes every result.
    unsafe { written(m * n, write) }
}

/// `activation(a · gatesᵀ) · (a · upᵀ)`: `(m, d_ff)`, of one weight that holds both layers
/// [`interleaved`](super::layout::interleaved).
///
/// # Panics
/// If a length does not fit the shapes.
pub fn gated(
    isa: Isa,
    a: &[f32],
    weight: &IntegerWeight,
    d_ff: usize,
    activation: Activation,
) -> Vec<f32> {
    let m = a.len() / weight.k().max(1);
    let write = |c| {
        let output = ProductOutput::gated(c, d_ff, weight.n(), OutputGate { activation, isa });
        let operands = IntegerOperands {
            a,
            weight,
            residual: None,
            output,
            m,
        };
        start(IntegerIsa::of(isa), &operands);
    };
    // SAFETY: as above.
    unsafe { written(m * d_ff, write) }
}

/// As [`product`], into `c (m, n)`.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn matmul(
    isa: IntegerIsa,
    a: &[f32],
    weight: &IntegerWeight,
    residual: Option<&[f32]>,
    c: &mut [f32],
) {
    let m = c.len().checked_div(weight.n()).unwrap_or(0);
    assert_eq!(c.len(), m * weight.n(), "the result must have whole rows");
    let output = ProductOutput::plain(SharedMut(c.as_mut_ptr()), weight.n());
    let operands = IntegerOperands {
        a,
        weight,
        residual,
        output,
        m,
    };
    start(isa, &operands);
}

/// The operands of a product, with A not yet quantised, and the destination of its results.
struct IntegerOperands<'a> {
    a: &'a [f32],
    weight: &'a IntegerWeight,
    residual: Option<&'a [f32]>,
    output: ProductOutput,
    /// Rows of A and of C.
    m: usize,
}

/// Writes every result of a product.
fn start(isa: IntegerIsa, operands: &IntegerOperands<'_>) {
    let IntegerOperands {
        a,
        weight,
        residual,
        output,
        m,
    } = *operands;
    let (n, k) = (weight.n(), weight.k());
    if n == 0 || m == 0 {
        return;
    }
    assert_eq!(a.len(), m * k, "A must be (rows of C, k)");
    assert!(
        residual.is_none_or(|r| r.len() == m * n),
        "the residual must have C's shape"
    );
    let threads = if m * n * k < SERIAL_WORK {
        1
    } else {
        rayon::current_num_threads()
    };
    let mut rows = ROWS.take();
    let bits = weight.bits();
    // Matrix tiles multiply bytes only.
    let is_tiled = isa == IntegerIsa::Amx && bits == Bits::Eight;
    let (order, rows_per_task) = if is_tiled {
        (GroupOrder::Rows, TILED_ROWS)
    } else {
        (GroupOrder::Strips, ROW_BLOCK)
    };
    let quantizer = Quantizer {
        isa,
        bits,
        k,
        order,
        threads,
    };
    quantizer.quantize(a, m, &mut rows);
    let product = IntegerProduct {
        rows: &rows,
        weight,
        residual,
        output,
        m,
    };
    let groups = |row_blocks: usize| match threads {
        1 => 1,
        _ => (4 * threads).div_ceil(row_blocks),
    };
    let grid = TaskGrid {
        rows: m,
        rows_per_task,
        panels: n.div_ceil(PANEL),
    };
    output.for_each_task(&grid, groups, |task| {
        // SAFETY: `isa` is available; tasks write disjoint blocks of C, whose shape was checked
        // above.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if is_tiled {
                return run_in_own_tiles(&product, task);
            }
            with_integers!((isa, bits), run(product: &IntegerProduct<'_>, task: &ProductTask)(&product, task));
        }
    });
    ROWS.set(rows);
}

/// One product of quantised rows.
pub(super) struct IntegerProduct<'a> {
    pub(super) rows: &'a IntegerRows,
    pub(super) weight: &'a IntegerWeight,
    pub(super) residual: Option<&'a [f32]>,
    pub(super) output: ProductOutput,
    pub(super) m: usize,
}

/// Writes the results of one task, whose rows begin at a strip.
#[inline(always)]
unsafe fn run<V: Sums>(product: &IntegerProduct<'_>, task: &ProductTask) {
    let rows = &task.rows;
    for pass in product.output.passes(task, DepthProgress::WHOLE) {
        let to = PassResults {
            product,
            task,
            target: &pass.target,
        };
        let vectors = 2 * pass.panels.start..2 * pass.panels.end;
        // SAFETY: tiles stay within the task's rows and panels.
        unsafe {
            if rows.len() <= 2 && V::WIDTH == 2 {
                // Few rows do not hide the latency of a dot product; several panels side by side
                // do.
                let wide = vectors.len() / 8 * 8;
                for vector in (vectors.start..vectors.start + wide).step_by(8) {
                    match rows.len() {
                        1 => to.tile::<V, 1, 8>(rows.start, vector),
                        _ => to.tile::<V, 2, 8>(rows.start, vector),
                    }
                }
                for vector in (vectors.start + wide..vectors.end).step_by(2) {
                    match rows.len() {
                        1 => to.tile::<V, 1, 2>(rows.start, vector),
                        _ => to.tile::<V, 2, 2>(rows.start, vector),
                    }
                }
            } else {
                for vector in vectors.step_by(V::WIDTH) {
                    for strip in rows.clone().step_by(STRIP) {
                        let end = (strip + STRIP).min(rows.end);
                        for row in (strip..end).step_by(V::TILE_ROWS) {
                            to.tile_of_rows::<V>(row, V::TILE_ROWS.min(end - row), vector);
                        }
                    }
                }
            }
            pass.finish();
        }
    }
}

/// [`run_in_tiles`] with the matrix tiles of this machine.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn run_in_own_tiles(product: &IntegerProduct<'_>, task: &ProductTask) {
    // SAFETY: passed on from the caller.
    unsafe { run_in_tiles::<VnniSums<8>, Tiles>(product, task) }
}

/// As [`run`], with the matrix tiles of `U`; groups lie row by row.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn run_in_tiles<V: Sums, U: TileUnit>(
    product: &IntegerProduct<'_>,
    task: &ProductTask,
) {
    let groups = GroupOrder::Rows.groups(Bits::Eight, product.weight.k());
    let mut sums = [0_u32; SIDE * SIDE];
    // SAFETY: panels hold a row for every group of k; rows of A lie in whole steps, and as many
    // blocks of them as tiles read; `write` knows its bounds.
    unsafe {
        U::begin();
        for pass in product.output.passes(task, DepthProgress::WHOLE) {
            let to = PassResults {
                product,
                task,
                target: &pass.target,
            };
            for panel in pass.panels.clone() {
                let right = Right::new(product.weight.panel(panel).cast(), product.weight.groups());
                for first in task.rows.clone().step_by(SIDE) {
                    let a = product.rows.groups.as_ptr().add(first * groups).cast();
                    let a = Strided {
                        start: a,
                        stride: 4 * groups,
                    };
                    let block = Strided {
                        start: sums.as_mut_ptr(),
                        stride: 4 * SIDE,
                    };
                    right.multiply(U::multiply_int8, amx::zeros(), a, block);
                    let height = SIDE.min(task.rows.end - first);
                    for (row, sums) in sums.chunks_exact(SIDE).take(height).enumerate() {
                        for (half, sums) in sums.chunks_exact(LANES).enumerate() {
                            let sums = V::load(sums.as_ptr().cast());
                            to.write(first + row, 2 * panel + half, sums);
                        }
                    }
                }
            }
            pass.finish();
        }
        U::end();
    }
}

/// The destination of the results of one pass.
struct PassResults<'a> {
    product: &'a IntegerProduct<'a>,
    task: &'a ProductTask,
    target: &'a TargetRows,
}

impl PassResults<'_> {
    #[inline(always)]
    unsafe fn tile_of_rows<V: Sums>(&self, row: usize, rows: usize, vector: usize) {
        // SAFETY: passed on from `run`.
        unsafe {
            if V::WIDTH == 1 {
                return match rows {
                    1 => self.tile::<V, 1, 1>(row, vector),
                    2 => self.tile::<V, 2, 1>(row, vector),
                    3 => self.tile::<V, 3, 1>(row, vector),
                    _ => self.tile::<V, 4, 1>(row, vector),
                };
            }
            match rows {
                1 => self.tile::<V, 1, 2>(row, vector),
                2 => self.tile::<V, 2, 2>(row, vector),
                3 => self.tile::<V, 3, 2>(row, vector),
                4 => self.tile::<V, 4, 2>(row, vector),
                5 => self.tile::<V, 5, 2>(row, vector),
                6 => self.tile::<V, 6, 2>(row, vector),
                _ if V::TILE_ROWS == 6 => unreachable!("tiles have up to six rows"),
                7 => self.tile::<V, 7, 2>(row, vector),
                8 => self.tile::<V, 8, 2>(row, vector),
                9 => self.tile::<V, 9, 2>(row, vector),
                10 => self.tile::<V, 10, 2>(row, vector),
                11 => self.tile::<V, 11, 2>(row, vector),
                _ => self.tile::<V, 12, 2>(row, vector),
            }
        }
    }

    /// Computes `MR` rows × `W` vectors of sixteen columns, over all of k.
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "the row indexes A and the sums alike"
    )]
    unsafe fn tile<V: Sums, const MR: usize, const W: usize>(&self, row: usize, vector: usize) {
        let product = self.product;
        let groups = product.weight.groups();
        let strip = row / STRIP * STRIP;
        let height = STRIP.min(product.m - strip);
        debug_assert!(row - strip + MR <= height);
        // SAFETY: a strip holds `groups` times `height` groups, and row - strip + MR <= height;
        // each panel holds `groups` times two vectors of 64 bytes.
        unsafe {
            let a = product
                .rows
                .groups
                .as_ptr()
                .add(strip * groups + row - strip);
            let b: [*const u8; W] = std::array::from_fn(|v| {
                let vector = vector + v;
                product.weight.panel(vector / 2).add(vector % 2 * 64)
            });
            let mut sums = [[V::zero(); W]; MR];
            for group in 0..groups {
                for b in b {
                    prefetch(b.wrapping_add((group + AHEAD) * 128));
                }
                let weights: [V::Weights; W] =
                    std::array::from_fn(|v| V::weights(b[v].add(group * 128)));
                for r in 0..MR {
                    let left = V::left(a.add(group * height + r));
                    for v in 0..W {
                        sums[r][v] = sums[r][v].add_dot(left, weights[v]);
                    }
                }
            }
            for r in 0..MR {
                for v in 0..W {
                    self.write(row + r, vector + v, sums[r][v]);
                }
            }
        }
    }

    /// Turns the sums of one row and one vector of up to sixteen columns into results.
    #[inline(always)]
    unsafe fn write<V: Sums>(&self, row: usize, vector: usize, sums: V) {
        let IntegerProduct {
            rows,
            weight,
            residual,
            ..
        } = *self.product;
        let (panel, half) = (vector / 2, vector % 2 * LANES);
        let exist = self.target.columns(panel);
        if half >= exist {
            return;
        }
        let count = LANES.min(exist - half);
        let column = vector * LANES;
        let by_row = RowScale {
            offset: rows.offsets[row],
            scale: rows.scales[row],
        };
        let scales = &weight.scales()[column..][..count];
        let residual = residual.map(|residual| &residual[row * weight.n() + column..][..count]);
        // SAFETY: these columns of this row of the target belong to this task alone; slices hold
        // `count` values, sixteen where they are used in place.
        unsafe {
            let target = self.target.at(row - self.task.rows.start, panel).add(half);
            if count == LANES {
                let residual = residual.map(<[f32]>::as_ptr);
                return sums.write(by_row, scales.as_ptr(), residual, target);
            }
            let padded = |values: &[f32]| {
                let mut padded = [0.0; LANES];
                padded[..count].copy_from_slice(values);
                padded
            };
            let residual = residual.map(padded);
            let residual = residual.as_ref().map(|residual| residual.as_ptr());
            let mut results = [0.0; LANES];
            sums.write(
                by_row,
                padded(scales).as_ptr(),
                residual,
                results.as_mut_ptr(),
            );
            std::slice::from_raw_parts_mut(target, count).copy_from_slice(&results[..count]);
        }
    }
}
