//! A tile of results in registers: up to 12 rows × 32 columns (several panels where rows are few),
//! multiplied, read and written. The products of [`super::gemm`] and of attention consist of such
//! tiles.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use super::layout::{LANES, PANEL, Spacing, Strided};
use super::simd::{Lanes, prefetch};

/// Rows of weights that are prefetched: the latency of main memory, when few rows of A make each
/// row of weights take little time.
pub(super) const AHEAD: usize = 56;

/// `by_rows!(rows, up to most, MR => call)`: `call` with the constant `MR` equal to `rows`, which
/// is at most `most`, the height of a tile.
macro_rules! by_rows {
    ($rows:expr, up to 3, $count:ident => $call:expr) => {
        by_rows!(@ $rows, $count, $call, [1 2 3])
    };
    ($rows:expr, up to $most:expr, $count:ident => $call:expr) => {
        // Only heights that exist are compiled: taller tiles would not fit the registers.
        match $most {
            ..=3 => by_rows!(@ $rows, $count, $call, [1 2 3]),
            4 => by_rows!(@ $rows, $count, $call, [1 2 3 4]),
            _ => by_rows!(@ $rows, $count, $call, [1 2 3 4 5 6 7 8 9 10 11 12]),
        }
    };
    (@ $rows:expr, $count:ident, $call:expr, [$($number:literal)+]) => {
        match $rows {
            $($number => { const $count: usize = $number; $call })+
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
pub(super) use by_rows;

/// The lines that are prefetched while a tile is multiplied: at every step of k, `W` lines per
/// place, `half` floats apart, `step` floats further than at the last step.
#[derive(Clone, Copy)]
pub(super) struct CacheLines<const NP: usize> {
    pub places: [*const f32; NP],
    pub step: usize,
    pub half: usize,
}

impl<const NP: usize> CacheLines<NP> {
    #[inline(always)]
    fn fetch<const W: usize>(&self, panel: usize, k: usize) {
        for w in 0..W {
            prefetch(self.places[panel].wrapping_add(k * self.step + w * self.half));
        }
    }
}

/// `sums += a · b` over `depth` steps of k: value (row, k) of A lies at `row * ROW + k * STEP`;
/// rows of B are `W` registers wide and lie as `spacing` says.
///
/// # Safety
/// `a` must hold `MR` rows of `depth` values, every pointer of `b` `depth` rows of `16 W` floats,
/// or of its halves.
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
    const W: usize,
>(
    sums: &mut [[[V; W]; NP]; MR],
    a: *const f32,
    b: [*const f32; NP],
    depth: usize,
    spacing: Spacing,
    ahead: Option<CacheLines<NP>>,
) {
    let mut local = *sums;
    for k in 0..depth {
        for p in 0..NP {
            // SAFETY: k < depth.
            unsafe {
                if let Some(ahead) = &ahead {
                    ahead.fetch::<W>(p, k);
                }
                let mut columns = [V::splat(0.0); W];
                for w in 0..W {
                    columns[w] = V::load(b[p].add(k * spacing.row + w * spacing.half));
                }
                for r in 0..MR {
                    let value = V::splat(*a.add(r * ROW + k * STEP));
                    for w in 0..W {
                        local[r][p][w] = value.mul_add(columns[w], local[r][p][w]);
                    }
                }
            }
        }
    }
    *sums = local;
}

/// As [`multiply_f32`], over `pairs` pairs of k, with B in bf16 pairs.
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
    const W: usize,
>(
    sums: &mut [[[V; W]; NP]; MR],
    a: *const f32,
    b: [*const f32; NP],
    pairs: usize,
    spacing: Spacing,
    ahead: CacheLines<NP>,
) {
    let mut local = *sums;
    for pair in 0..pairs {
        for p in 0..NP {
            // SAFETY: as in `multiply_f32`; A is zero beyond an odd last k.
            unsafe {
                ahead.fetch::<W>(p, pair);
                let (mut even, mut odd) = ([V::splat(0.0); W], [V::splat(0.0); W]);
                for w in 0..W {
                    let source = b[p].add(pair * spacing.row + w * spacing.half);
                    (even[w], odd[w]) = V::load_bf16_pairs(source.cast());
                }
                for r in 0..MR {
                    let value = V::splat(*a.add(r * ROW + 2 * pair * STEP));
                    for w in 0..W {
                        local[r][p][w] = value.mul_add(even[w], local[r][p][w]);
                    }
                }
                for r in 0..MR {
                    let value = V::splat(*a.add(r * ROW + (2 * pair + 1) * STEP));
                    for w in 0..W {
                        local[r][p][w] = value.mul_add(odd[w], local[r][p][w]);
                    }
                }
            }
        }
    }
    *sums = local;
}

/// Reads `W` registers.
#[inline(always)]
pub(super) unsafe fn lanes<V: Lanes, const W: usize>(source: *const f32) -> [V; W] {
    // SAFETY: the caller's pointer holds 16 W values.
    unsafe {
        let mut values = [V::splat(0.0); W];
        for (w, value) in values.iter_mut().enumerate() {
            *value = V::load(source.add(w * LANES));
        }
        values
    }
}

/// Writes `W` registers.
#[inline(always)]
pub(super) unsafe fn store<V: Lanes, const W: usize>(values: &[V; W], target: *mut f32) {
    for (w, value) in values.iter().enumerate() {
        // SAFETY: the caller's pointer has room for 16 W values.
        unsafe { value.store(target.add(w * LANES)) };
    }
}

/// Reads `columns` floats of one row (at most `NP` panels of `W` registers), zero beyond.
#[inline(always)]
unsafe fn read_row<V: Lanes, const NP: usize, const W: usize>(
    source: *const f32,
    columns: usize,
) -> [[V; W]; NP] {
    let mut padded = [0.0f32; 4 * PANEL];
    // SAFETY: `columns` floats are readable and fit the buffer; a full row is read in place.
    unsafe {
        let mut from = source;
        if columns < (NP - 1) * PANEL + W * LANES {
            std::ptr::copy_nonoverlapping(source, padded.as_mut_ptr(), columns);
            from = padded.as_ptr();
        }
        let mut row = [[V::splat(0.0); W]; NP];
        for (p, row) in row.iter_mut().enumerate() {
            for (w, value) in row.iter_mut().enumerate() {
                *value = V::load(from.add(p * PANEL + w * LANES));
            }
        }
        row
    }
}

#[inline(always)]
pub(super) unsafe fn read_tile<V: Lanes, const MR: usize, const NP: usize, const W: usize>(
    sums: &mut [[[V; W]; NP]; MR],
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
pub(super) unsafe fn add_tile<V: Lanes, const MR: usize, const NP: usize, const W: usize>(
    sums: &mut [[[V; W]; NP]; MR],
    source: *const f32,
    stride: usize,
    columns: usize,
) {
    for (r, row) in sums.iter_mut().enumerate() {
        // SAFETY: passed on from `tile`.
        unsafe {
            let other: [[V; W]; NP] = read_row(source.add(r * stride), columns);
            for p in 0..NP {
                for w in 0..W {
                    row[p][w] = row[p][w].add(other[p][w]);
                }
            }
        }
    }
}

/// Writes the first `columns` columns of a tile.
#[inline(always)]
pub(super) unsafe fn write_tile<V: Lanes, const MR: usize, const NP: usize, const W: usize>(
    sums: &[[[V; W]; NP]; MR],
    target: *mut f32,
    stride: usize,
    columns: usize,
) {
    for (r, row) in sums.iter().enumerate() {
        // SAFETY: passed on from `tile`: no other thread writes these `columns` floats.
        unsafe {
            let target = target.add(r * stride);
            let mut padded = [0.0f32; 4 * PANEL];
            let whole = columns == (NP - 1) * PANEL + W * LANES;
            let to = if whole { target } else { padded.as_mut_ptr() };
            for (p, row) in row.iter().enumerate() {
                for (w, value) in row.iter().enumerate() {
                    value.store(to.add(p * PANEL + w * LANES));
                }
            }
            if !whole {
                std::ptr::copy_nonoverlapping(padded.as_ptr(), target, columns);
            }
        }
    }
}

/// Whether a product replaces its target or adds to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    New,
    Add,
}

/// `c[rows × 32] (+)= a · b`; value (row, k) of A lies at `row * ROW + k * STEP`; strides are in
/// floats.
#[inline(always)]
pub(super) unsafe fn product<V: Lanes, const ROW: usize, const STEP: usize>(
    rows: usize,
    a: *const f32,
    b: Strided<*const f32>,
    depth: usize,
    c: Strided<*mut f32>,
    sum: Sum,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        if V::TILE_WIDTH == 2 {
            by_rows!(rows, up to V::TILE_ROWS, MR => tile::<V, MR, 2, ROW, STEP>(a, b, depth, c, sum));
            return;
        }
        for half in [0, LANES] {
            let b = Strided {
                start: b.start.add(half),
                stride: b.stride,
            };
            let c = Strided {
                start: c.start.add(half),
                stride: c.stride,
            };
            by_rows!(rows, up to V::TILE_ROWS, MR => tile::<V, MR, 1, ROW, STEP>(a, b, depth, c, sum));
        }
    }
}

#[inline(always)]
unsafe fn tile<V: Lanes, const MR: usize, const W: usize, const ROW: usize, const STEP: usize>(
    a: *const f32,
    b: Strided<*const f32>,
    depth: usize,
    c: Strided<*mut f32>,
    sum: Sum,
) {
    // SAFETY: the caller's A has MR × depth values, B `depth` rows of 32, C MR rows of 32.
    unsafe {
        let mut sums = [[[V::splat(0.0); W]; 1]; MR];
        if sum == Sum::Add {
            read_tile(&mut sums, c.start, c.stride, W * LANES);
        }
        multiply_f32::<V, MR, 1, ROW, STEP, W>(
            &mut sums,
            a,
            [b.start],
            depth,
            Spacing::rows(b.stride),
            None,
        );
        write_tile(&sums, c.start, c.stride, W * LANES);
    }
}
