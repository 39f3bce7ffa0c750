//! `C = A · Wᵀ (+ R)` with W in 8-bit integers ([`Int8Weight`]) and A quantised row by row as it comes.
//!
//! Sums are exact, and a result is `(sum as f32) · (scale of the row · scale of the output) + residual`, each operation rounded by itself: the same
//! bytes on every instruction set, in any batch and on any number of threads.
#![expect(
    unsafe_code,
    reason = "vector loads through pointers; each block says why it is in bounds"
)]

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::SharedMut;
#[cfg(target_arch = "x86_64")]
use super::amx::{self, Right, SIDE, Tiles, Unit};
use super::int8_lanes::{Int8Isa, Portable, Sums};
use super::int8_weight::{Int8Rows, Int8Weight, Order, quantize_strip};
use super::packed_weight::PANEL;
use super::simd::{LANES, prefetch};

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
    start(isa, a, weight, residual, (SharedMut(c.as_mut_ptr()), m));
    // SAFETY: the product has written every one of `m * n` results, within the capacity.
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
    start(isa, a, weight, residual, (SharedMut(c.as_mut_ptr()), m));
}

/// Writes every result to `c`, room for `m` rows.
fn start(
    isa: Int8Isa,
    a: &[f32],
    weight: &Int8Weight,
    residual: Option<&[f32]>,
    (c, m): (SharedMut, usize),
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
        c,
        m,
    };
    let (panels, row_blocks) = (n.div_ceil(PANEL), m.div_ceil(rows_of_task));
    let groups = match threads {
        1 => 1,
        _ => (4 * threads)
            .div_ceil(row_blocks)
            .clamp(1, panels.div_ceil(4)),
    };
    let task = |task: usize| {
        let (block, group) = (task / groups, task % groups);
        let rows = block * rows_of_task..((block + 1) * rows_of_task).min(m);
        let panels = group * panels / groups..(group + 1) * panels / groups;
        // SAFETY: `isa` is available; tasks write disjoint blocks of C, whose shape was checked above.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if isa == Int8Isa::Amx {
                return run_in_own_tiles(&product, rows, panels);
            }
            with_int8!(isa, run(product: &Product<'_>, rows: Range<usize>, panels: Range<usize>)(&product, rows, panels));
        }
    };
    if threads == 1 || row_blocks * groups == 1 {
        (0..row_blocks * groups).for_each(task);
    } else {
        (0..row_blocks * groups).into_par_iter().for_each(task);
    }
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
    pub(super) c: SharedMut,
    pub(super) m: usize,
}

/// The results in `rows` × `panels`; `rows` begin at a strip.
#[inline(always)]
unsafe fn run<V: Sums>(product: &Product<'_>, rows: Range<usize>, panels: Range<usize>) {
    let vectors = 2 * panels.start..2 * panels.end;
    // SAFETY: tiles stay within the task's rows and panels.
    unsafe {
        if rows.len() <= 2 && V::WIDTH == 2 {
            // Few rows do not hide how long a dot product takes; several panels side by side do.
            let wide = vectors.len() / 8 * 8;
            for vector in (vectors.start..vectors.start + wide).step_by(8) {
                match rows.len() {
                    1 => tile::<V, 1, 8>(product, rows.start, vector),
                    _ => tile::<V, 2, 8>(product, rows.start, vector),
                }
            }
            for vector in (vectors.start + wide..vectors.end).step_by(2) {
                match rows.len() {
                    1 => tile::<V, 1, 2>(product, rows.start, vector),
                    _ => tile::<V, 2, 2>(product, rows.start, vector),
                }
            }
            return;
        }
        for vector in vectors.step_by(V::WIDTH) {
            for strip in rows.clone().step_by(STRIP) {
                let end = (strip + STRIP).min(rows.end);
                for row in (strip..end).step_by(V::TILE_ROWS) {
                    tile_of_rows::<V>(product, row, V::TILE_ROWS.min(end - row), vector);
                }
            }
        }
    }
}

/// [`run_in_tiles`] by those of the machine.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn run_in_own_tiles(product: &Product<'_>, rows: Range<usize>, panels: Range<usize>) {
    // SAFETY: passed on from the caller.
    unsafe { run_in_tiles::<super::int8_lanes::Vnni, Tiles>(product, rows, panels) }
}

/// As [`run`], by the tiles of `U`; quads lie row by row.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn run_in_tiles<V: Sums, U: Unit>(
    product: &Product<'_>,
    rows: Range<usize>,
    panels: Range<usize>,
) {
    let quads = Order::Rows.quads(product.weight.k());
    let mut sums = [0_u32; SIDE * SIDE];
    // SAFETY: panels hold a row for every quad of k; rows of A lie in whole steps, and as many blocks of them as tiles read; `write` knows its bounds.
    unsafe {
        U::begin();
        for panel in panels {
            let right = Right::new(product.weight.panel(panel).cast(), product.weight.quads());
            for first in rows.clone().step_by(SIDE) {
                let a = product.rows.quads.as_ptr().add(first * quads).cast();
                let (zeros, to) = ((amx::ZEROS.as_ptr(), 0), (sums.as_mut_ptr(), 4 * SIDE));
                right.multiply(U::multiply_int8, zeros, (a, 4 * quads), to);
                let height = SIDE.min(rows.end - first);
                for (row, sums) in sums.chunks_exact(SIDE).take(height).enumerate() {
                    for (half, sums) in sums.chunks_exact(LANES).enumerate() {
                        let column = panel * PANEL + half * LANES;
                        let sums = V::load(sums.as_ptr().cast());
                        write(product, first + row, column, sums);
                    }
                }
            }
        }
        U::end();
    }
}

#[inline(always)]
unsafe fn tile_of_rows<V: Sums>(product: &Product<'_>, row: usize, rows: usize, vector: usize) {
    // SAFETY: passed on from `run`.
    unsafe {
        if V::WIDTH == 1 {
            return match rows {
                1 => tile::<V, 1, 1>(product, row, vector),
                2 => tile::<V, 2, 1>(product, row, vector),
                3 => tile::<V, 3, 1>(product, row, vector),
                _ => tile::<V, 4, 1>(product, row, vector),
            };
        }
        match rows {
            1 => tile::<V, 1, 2>(product, row, vector),
            2 => tile::<V, 2, 2>(product, row, vector),
            3 => tile::<V, 3, 2>(product, row, vector),
            4 => tile::<V, 4, 2>(product, row, vector),
            5 => tile::<V, 5, 2>(product, row, vector),
            6 => tile::<V, 6, 2>(product, row, vector),
            _ if V::TILE_ROWS == 6 => unreachable!("tiles have up to six rows"),
            7 => tile::<V, 7, 2>(product, row, vector),
            8 => tile::<V, 8, 2>(product, row, vector),
            9 => tile::<V, 9, 2>(product, row, vector),
            10 => tile::<V, 10, 2>(product, row, vector),
            11 => tile::<V, 11, 2>(product, row, vector),
            _ => tile::<V, 12, 2>(product, row, vector),
        }
    }
}

/// `MR` rows × `W` vectors of sixteen columns, over all of k.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "the row indexes A and the sums alike"
)]
unsafe fn tile<V: Sums, const MR: usize, const W: usize>(
    product: &Product<'_>,
    row: usize,
    vector: usize,
) {
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
                write(product, row + r, (vector + v) * LANES, sums[r][v]);
            }
        }
    }
}

/// Sums of up to sixteen columns from `column` on become results.
#[inline(always)]
unsafe fn write<V: Sums>(product: &Product<'_>, row: usize, column: usize, sums: V) {
    let n = product.weight.n();
    if column >= n {
        return;
    }
    let count = LANES.min(n - column);
    let place = row * n + column;
    let by_row = (product.rows.offsets[row], product.rows.scales[row]);
    let scales = &product.weight.scales()[column..][..count];
    let residual = product.residual.map(|residual| &residual[place..][..count]);
    // SAFETY: these columns of this row of C belong to this task alone; slices hold `count` values, sixteen where they are used in place.
    unsafe {
        let target = product.c.get().add(place);
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
