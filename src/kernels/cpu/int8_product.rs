//! `C = A · Wᵀ (+ R)` with W in 8-bit integers ([`Int8Weight`]) and A quantised row by row as it comes.
//!
//! Sums are exact, and a result is `(sum as f32) · (scale of the row · scale of the output) + residual`, each operation rounded by itself: the same
//! bytes on every instruction set, in any batch and on any number of threads.
#![expect(
    unsafe_code,
    reason = "vector loads through pointers; each block says why it is in bounds"
)]

use std::cell::Cell;

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::amx::{self, Right, SIDE, Tiles, Unit};
use super::elementwise::Activation;
use super::int8_lanes::{Int8Isa, Portable, Sums};
use super::int8_weight::{Int8Rows, Int8Weight, Order, quantize_strip};
use super::output::{Gate, Output, Progress, Target, Task};
use super::packed_weight::PANEL;
use super::simd::{LANES, prefetch};
use super::{Isa, SharedMut};

/// Rows of A whose quads of one k lie side by side.
const STRIP: usize = 12;
/// Rows of A in one task.
const ROW_BLOCK: usize = 20 * STRIP;
/// As many in matrix tiles: a multiple of their side.
const TILED_ROWS: usize = 8 * PANEL;
/// Below this many multiply-adds a product is not worth a second thread.
const SERIAL_WORK: usize = 1 << 18;
/// Rows of weights that are asked for before they are needed.
const AHEAD: usize = 48;

/// `with_int8!(isa, kernel(name: Type, …)(argument, …))`: as [`super::with_isa!`], for [`Int8Isa`].
macro_rules! with_int8 {
    ($isa:expr, $kernel:ident($($name:ident: $kind:ty),* $(,)?)($($argument:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
        unsafe fn vnni($($name: $kind),*) {
            // SAFETY: the features are enabled here; the rest is the caller's promise.
            unsafe { $kernel::<super::int8_lanes::Vnni>($($name),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
        unsafe fn avx512($($name: $kind),*) {
            // SAFETY: as above.
            unsafe { $kernel::<super::int8_lanes::Avx512>($($name),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2($($name: $kind),*) {
            // SAFETY: as above.
            unsafe { $kernel::<super::int8_lanes::Avx2>($($name),*) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Int8Isa::Vnni | Int8Isa::Amx => vnni($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Int8Isa::Avx512 => avx512($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Int8Isa::Avx2 => avx2($($argument),*),
            _ => $kernel::<Portable>($($argument),*),
        }
    }};
}

thread_local! {
    /// Rows of the last product, to be used again. Taken while in use: a thread that waits may run a part of another product.
    static ROWS: Cell<Int8Rows> = Cell::default();
    static BYTES: Cell<Vec<i8>> = Cell::default();
}

/// `a (m, k) · weightᵀ`, plus `residual (m, n)` where given: `(m, n)`. All row-major and contiguous.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn product(isa: Int8Isa, a: &[f32], weight: &Int8Weight, residual: Option<&[f32]>) -> Vec<f32> {
    let m = a.len() / weight.k().max(1);
    let len = m * weight.n();
    let mut c = Vec::with_capacity(len);
    let output = Output::plain(SharedMut(c.as_mut_ptr()), weight.n());
    start(isa, a, weight, residual, (output, m));
    // SAFETY: the product has written every one of `m * n` results, within the capacity.
    unsafe { c.set_len(len) };
    c
}

/// `activation(a · gatesᵀ) · (a · upᵀ)`: `(m, d_ff)`, of a weight that holds both [`interleaved`](super::output::interleaved).
///
/// # Panics
/// If a length does not fit the shapes.
pub fn gated(
    isa: Isa,
    a: &[f32],
    weight: &Int8Weight,
    d_ff: usize,
    activation: Activation,
) -> Vec<f32> {
    let m = a.len() / weight.k().max(1);
    let len = m * d_ff;
    let mut c = Vec::with_capacity(len);
    let gate = Gate { activation, isa };
    let output = Output::gated(SharedMut(c.as_mut_ptr()), d_ff, weight.n(), gate);
    start(Int8Isa::of(isa), a, weight, None, (output, m));
    // SAFETY: as above, of `m * d_ff` results.
    unsafe { c.set_len(len) };
    c
}

/// As [`product`], to `c (m, n)`.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn matmul(
    isa: Int8Isa,
    a: &[f32],
    weight: &Int8Weight,
    residual: Option<&[f32]>,
    c: &mut [f32],
) {
    let m = c.len().checked_div(weight.n()).unwrap_or(0);
    assert_eq!(c.len(), m * weight.n(), "the result must have whole rows");
    let output = Output::plain(SharedMut(c.as_mut_ptr()), weight.n());
    start(isa, a, weight, residual, (output, m));
}

/// Writes every result to C, room for `m` rows.
fn start(
    isa: Int8Isa,
    a: &[f32],
    weight: &Int8Weight,
    residual: Option<&[f32]>,
    (output, m): (Output, usize),
) {
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
    let (order, rows_of_task) = match isa {
        Int8Isa::Amx => (Order::Rows, TILED_ROWS),
        _ => (Order::Strips, ROW_BLOCK),
    };
    quantize_rows(isa, a, (m, k), order, threads, &mut rows);
    let product = Product {
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
    output.for_each_task((m, rows_of_task), n.div_ceil(PANEL), groups, |task| {
        // SAFETY: `isa` is available; tasks write disjoint blocks of C, whose shape was checked above.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if isa == Int8Isa::Amx {
                return run_in_own_tiles(&product, task);
            }
            with_int8!(isa, run(product: &Product<'_>, task: &Task)(&product, task));
        }
    });
    ROWS.set(rows);
}

/// Rows of A, and where their quads, scales and offsets go.
type StripParts<'a> = (((&'a [f32], &'a mut [i32]), &'a mut [f32]), &'a mut [i32]);

/// Quantises `a (m, k)`.
pub(super) fn quantize_rows(
    isa: Int8Isa,
    a: &[f32],
    (m, k): (usize, usize),
    order: Order,
    threads: usize,
    rows: &mut Int8Rows,
) {
    let quads = order.quads(k);
    rows.resize(m, quads, order);
    if k == 0 {
        return;
    }
    let strip = |(((a, quads), scales), offsets): StripParts<'_>| {
        let mut bytes = BYTES.take();
        // SAFETY: `isa` is available.
        unsafe {
            with_int8!(isa, quantize_in(a: &[f32], k: usize, order: Order, bytes: &mut Vec<i8>, quads: &mut [i32], scales: &mut [f32], offsets: &mut [i32])
                (a, k, order, &mut bytes, quads, scales, offsets));
        }
        BYTES.set(bytes);
    };
    let Int8Rows {
        quads: all,
        scales,
        offsets,
    } = rows;
    if threads == 1 || scales.len() <= STRIP {
        a.chunks(STRIP * k)
            .zip(all.chunks_mut(STRIP * quads))
            .zip(scales.chunks_mut(STRIP))
            .zip(offsets.chunks_mut(STRIP))
            .for_each(strip);
    } else {
        a.par_chunks(STRIP * k)
            .zip(all.par_chunks_mut(STRIP * quads))
            .zip(scales.par_chunks_mut(STRIP))
            .zip(offsets.par_chunks_mut(STRIP))
            .for_each(strip);
    }
}

#[inline(always)]
unsafe fn quantize_in<V: Sums>(
    a: &[f32],
    k: usize,
    order: Order,
    bytes: &mut Vec<i8>,
    quads: &mut [i32],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    quantize_strip(a, k, order, bytes, quads, scales, offsets);
}

pub(super) struct Product<'a> {
    pub(super) rows: &'a Int8Rows,
    pub(super) weight: &'a Int8Weight,
    pub(super) residual: Option<&'a [f32]>,
    pub(super) output: Output,
    pub(super) m: usize,
}

/// The results of one task; its rows begin at a strip.
#[inline(always)]
unsafe fn run<V: Sums>(product: &Product<'_>, task: &Task) {
    let rows = &task.rows;
    for pass in product.output.passes(task, Progress::WHOLE) {
        let to = To {
            product,
            task,
            target: &pass.target,
        };
        let vectors = 2 * pass.panels.start..2 * pass.panels.end;
        // SAFETY: tiles stay within the task's rows and panels.
        unsafe {
            if rows.len() <= 2 && V::WIDTH == 2 {
                // Few rows do not hide how long a dot product takes; several panels side by side do.
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

/// [`run_in_tiles`] by those of the machine.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn run_in_own_tiles(product: &Product<'_>, task: &Task) {
    // SAFETY: passed on from the caller.
    unsafe { run_in_tiles::<super::int8_lanes::Vnni, Tiles>(product, task) }
}

/// As [`run`], by the tiles of `U`; quads lie row by row.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn run_in_tiles<V: Sums, U: Unit>(product: &Product<'_>, task: &Task) {
    let quads = Order::Rows.quads(product.weight.k());
    let mut sums = [0_u32; SIDE * SIDE];
    // SAFETY: panels hold a row for every quad of k; rows of A lie in whole steps, and as many blocks of them as tiles read; `write` knows its bounds.
    unsafe {
        U::begin();
        for pass in product.output.passes(task, Progress::WHOLE) {
            let to = To {
                product,
                task,
                target: &pass.target,
            };
            for panel in pass.panels.clone() {
                let right = Right::new(product.weight.panel(panel).cast(), product.weight.quads());
                for first in task.rows.clone().step_by(SIDE) {
                    let a = product.rows.quads.as_ptr().add(first * quads).cast();
                    let (zeros, block) = ((amx::ZEROS.as_ptr(), 0), (sums.as_mut_ptr(), 4 * SIDE));
                    right.multiply(U::multiply_int8, zeros, (a, 4 * quads), block);
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

/// Where the results of one pass go.
struct To<'a> {
    product: &'a Product<'a>,
    task: &'a Task,
    target: &'a Target,
}

impl To<'_> {
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

    /// `MR` rows × `W` vectors of sixteen columns, over all of k.
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "the row indexes A and the sums alike"
    )]
    unsafe fn tile<V: Sums, const MR: usize, const W: usize>(&self, row: usize, vector: usize) {
        let product = self.product;
        let quads = product.weight.quads();
        let strip = row / STRIP * STRIP;
        let height = STRIP.min(product.m - strip);
        debug_assert!(row - strip + MR <= height);
        // SAFETY: a strip holds `quads` groups of `height` quads, and row - strip + MR <= height; each panel holds `quads` groups of two vectors of 64 bytes.
        unsafe {
            let a = product.rows.quads.as_ptr().add(strip * quads + row - strip);
            let b: [*const u8; W] = std::array::from_fn(|v| {
                let vector = vector + v;
                product.weight.panel(vector / 2).add(vector % 2 * 64)
            });
            let mut sums = [[V::zero(); W]; MR];
            for quad in 0..quads {
                for b in b {
                    prefetch(b.wrapping_add((quad + AHEAD) * 128));
                }
                let weights: [V::Weights; W] =
                    std::array::from_fn(|v| V::weights(b[v].add(quad * 128)));
                for r in 0..MR {
                    let left = V::left(a.add(quad * height + r));
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

    /// The sums of a row and a vector of up to sixteen columns become results.
    #[inline(always)]
    unsafe fn write<V: Sums>(&self, row: usize, vector: usize, sums: V) {
        let Product {
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
        let by_row = (rows.offsets[row], rows.scales[row]);
        let scales = &weight.scales()[column..][..count];
        let residual = residual.map(|residual| &residual[row * weight.n() + column..][..count]);
        // SAFETY: these columns of this row of the target belong to this task alone; slices hold `count` values, sixteen where they are used in place.
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
