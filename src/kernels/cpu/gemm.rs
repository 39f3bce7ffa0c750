//! `C = A · Wᵀ (+ R)` with `W` repacked once at load: the matrix product of every linear layer.
//!
//! The weight `W (n, k)` is stored as panels of [`PANEL`] output columns; inside a panel, the `k` rows of 32 values lie one after another, so the
//! inner loop reads memory straight through. `A` is copied block by block ([`ROW_BLOCK`] rows × [`DEPTH`] columns, fits L2) with a fixed row
//! stride, which keeps rows off each other's cache sets and addresses out of registers. A tile of up to 12 × 32 results stays in registers.
//!
//! **Batch-invariant to the byte**: every element of C is one chain of multiply-adds in the order of k, whatever the number of rows, the tile it
//! falls in or the threads at work.
//!
//! bf16 weights are stored in pairs along k (`[k/2][column][2]`, the form that dot-product instructions read too) and widened in registers;
//! A stays f32, so only the weights are rounded.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use std::cell::RefCell;

use half::bf16;
use rayon::prelude::*;

use super::simd::{LANES, Lanes};
use super::{Isa, SharedMut, with_isa};

/// Output columns in a panel of packed weights.
pub const PANEL: usize = 2 * LANES;
/// Columns of A multiplied in one go.
pub const DEPTH: usize = 512;
/// Floats between rows of a copied block of A.
pub const STRIDE: usize = DEPTH + LANES;
/// Rows of A in one task.
const ROW_BLOCK: usize = 120;
/// Below this many multiply-adds a product is not worth a second thread.
const SERIAL_WORK: usize = 1 << 16;

/// Number type of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision throughout.
    F32,
    /// Weights rounded to bf16; the other operand, products and sums in f32.
    Bf16,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// A weight matrix `(n, k)` in the layout the product reads; immutable.
pub struct PackedWeight {
    n: usize,
    k: usize,
    precision: Precision,
    lines: Vec<Line>,
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PackedWeight({} x {}, {:?})",
            self.n, self.k, self.precision
        )
    }
}

impl PackedWeight {
    /// Packs `n` rows of `k` values; `fill(row, values)` writes row `row`. Rows are asked for in parallel.
    pub fn new(
        n: usize,
        k: usize,
        precision: Precision,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let panel_lines = panel_floats(k, precision) / LANES;
        let mut lines = vec![Line([0.0; LANES]); n.div_ceil(PANEL) * panel_lines];
        lines
            .par_chunks_mut(panel_lines.max(1))
            .enumerate()
            .for_each_init(
                || vec![0.0; k],
                |row, (panel, lines)| {
                    for column in 0..PANEL.min(n - panel * PANEL) {
                        fill(panel * PANEL + column, row);
                        match precision {
                            Precision::F32 => pack_column_f32(row, column, lines),
                            Precision::Bf16 => pack_column_bf16(row, column, lines),
                        }
                    }
                },
            );
        Self {
            n,
            k,
            precision,
            lines,
        }
    }

    /// Packs the transpose of `values (k, n)`, row-major. Its rows are rows of the panels already: no gather.
    ///
    /// # Panics
    /// If `values` does not hold `k` rows of `n`.
    pub fn from_transposed(n: usize, k: usize, precision: Precision, values: &[f32]) -> Self {
        assert_eq!(values.len(), n * k, "the matrix must be (k, n)");
        let panel_lines = panel_floats(k, precision) / LANES;
        let mut lines = vec![Line([0.0; LANES]); n.div_ceil(PANEL) * panel_lines];
        let pack = |(panel, lines): (usize, &mut [Line])| {
            let columns = panel * PANEL..n.min((panel + 1) * PANEL);
            for row in 0..k {
                let source = &values[row * n..][columns.clone()];
                match precision {
                    Precision::F32 => pack_row_f32(source, row, lines),
                    Precision::Bf16 => pack_row_bf16(source, row, lines),
                }
            }
        };
        lines
            .par_chunks_mut(panel_lines.max(1))
            .enumerate()
            .for_each(pack);
        Self {
            n,
            k,
            precision,
            lines,
        }
    }

    /// Output width.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input width.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number type.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(self.lines.as_slice())
    }

    fn panel(&self, index: usize) -> *const f32 {
        let lines = panel_floats(self.k, self.precision) / LANES;
        self.lines[index * lines..].as_ptr().cast()
    }
}

/// f32 slots of one panel.
fn panel_floats(k: usize, precision: Precision) -> usize {
    match precision {
        Precision::F32 => k * PANEL,
        Precision::Bf16 => k.div_ceil(2) * PANEL,
    }
}

fn pack_column_f32(row: &[f32], column: usize, lines: &mut [Line]) {
    for (k, &value) in row.iter().enumerate() {
        lines[2 * k + column / LANES].0[column % LANES] = value;
    }
}

fn pack_row_f32(values: &[f32], k: usize, lines: &mut [Line]) {
    for (line, values) in lines[2 * k..].iter_mut().zip(values.chunks(LANES)) {
        line.0[..values.len()].copy_from_slice(values);
    }
}

fn pack_row_bf16(values: &[f32], k: usize, lines: &mut [Line]) {
    let shift = if k % 2 == 1 { 16 } else { 0 };
    for (line, values) in lines[k / 2 * 2..].iter_mut().zip(values.chunks(LANES)) {
        for (slot, value) in line.0.iter_mut().zip(values) {
            let bits = u32::from(bf16::from_f32(*value).to_bits()) << shift;
            *slot = f32::from_bits(slot.to_bits() | bits);
        }
    }
}

fn pack_column_bf16(row: &[f32], column: usize, lines: &mut [Line]) {
    for (pair, values) in row.chunks(2).enumerate() {
        let even = u32::from(bf16::from_f32(values[0]).to_bits());
        let odd = values
            .get(1)
            .map_or(0, |&v| u32::from(bf16::from_f32(v).to_bits()));
        lines[2 * pair + column / LANES].0[column % LANES] = f32::from_bits(odd << 16 | even);
    }
}

/// `c (m, n) = a (m, k) · weightᵀ`, plus `residual (m, n)` where given. All row-major and contiguous.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn matmul(isa: Isa, a: &[f32], weight: &PackedWeight, residual: Option<&[f32]>, c: &mut [f32]) {
    let (n, k) = (weight.n, weight.k);
    if n == 0 || c.is_empty() {
        return;
    }
    let m = c.len() / n;
    assert_eq!(c.len(), m * n, "the result must have whole rows");
    assert_eq!(a.len(), m * k, "A must be (rows of C, k)");
    assert!(
        residual.is_none_or(|r| r.len() == c.len()),
        "the residual must have C's shape"
    );
    let product = Product {
        a,
        weight,
        residual,
        c: SharedMut(c.as_mut_ptr()),
        m,
    };
    let (panels, row_blocks) = (n.div_ceil(PANEL), m.div_ceil(ROW_BLOCK));
    let threads = rayon::current_num_threads();
    let groups = if threads == 1 || m * n * k < SERIAL_WORK {
        1
    } else {
        (8 * threads)
            .div_ceil(row_blocks)
            .clamp(1, panels.div_ceil(4))
    };
    let task = |task: usize| {
        let (block, group) = (task / groups, task % groups);
        let rows = block * ROW_BLOCK..((block + 1) * ROW_BLOCK).min(m);
        let columns = group * panels / groups..(group + 1) * panels / groups;
        product.run(isa, rows, columns);
    };
    if threads == 1 || row_blocks * groups == 1 {
        (0..row_blocks * groups).for_each(task);
    } else {
        (0..row_blocks * groups).into_par_iter().for_each(task);
    }
}

struct Product<'a> {
    a: &'a [f32],
    weight: &'a PackedWeight,
    residual: Option<&'a [f32]>,
    c: SharedMut,
    m: usize,
}

thread_local! {
    static BLOCK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Product<'_> {
    /// The results in `rows` × `panels`.
    fn run(&self, isa: Isa, rows: std::ops::Range<usize>, panels: std::ops::Range<usize>) {
        BLOCK.with_borrow_mut(|block| {
            block.resize(ROW_BLOCK * STRIDE, 0.0);
            for start in (0..self.weight.k).step_by(DEPTH) {
                let depth = DEPTH.min(self.weight.k - start);
                copy_block(self.a, self.weight.k, &rows, start, depth, block);
                let part = Part {
                    product: self,
                    block,
                    rows: &rows,
                    panels: &panels,
                    start,
                    depth,
                };
                part.run(isa);
            }
        });
    }
}

/// Copies `rows` × `start..start + depth` of A to `block`.
fn copy_block(
    a: &[f32],
    k: usize,
    rows: &std::ops::Range<usize>,
    start: usize,
    depth: usize,
    block: &mut [f32],
) {
    for (row, target) in rows.clone().zip(block.chunks_exact_mut(STRIDE)) {
        let source = &a[row * k + start..][..depth];
        target[..depth].copy_from_slice(source);
        target[depth] = 0.0; // the other half of an odd last pair
    }
}

/// One block of k of one task.
struct Part<'a> {
    product: &'a Product<'a>,
    block: &'a [f32],
    rows: &'a std::ops::Range<usize>,
    panels: &'a std::ops::Range<usize>,
    start: usize,
    depth: usize,
}

impl Part<'_> {
    fn run(&self, isa: Isa) {
        debug_assert!(self.rows.end <= self.product.m);
        // SAFETY: `isa` is available (Isa::from_env checks); `part` upholds the bounds that `run_part` needs, see there.
        unsafe { with_isa!(isa, run_part(part: &Part<'_>)(self)) }
    }
}

#[inline(always)]
unsafe fn run_part<V: Lanes>(part: &Part<'_>) {
    let rows = part.rows.len();
    // SAFETY: tiles stay within the task's rows and panels; panels are whole in the packed weight (padded), and the target is written only
    // where row < m and column < n.
    unsafe {
        if rows <= 3 && V::TILE_ROWS >= 12 {
            let mut panel = part.panels.start;
            while panel + 4 <= part.panels.end {
                tile_of_rows::<V, 4>(part, 0, rows, panel);
                panel += 4;
            }
            for panel in panel..part.panels.end {
                tile_of_rows::<V, 1>(part, 0, rows, panel);
            }
            return;
        }
        for panel in part.panels.clone() {
            for row in (0..rows).step_by(V::TILE_ROWS) {
                tile_of_rows::<V, 1>(part, row, V::TILE_ROWS.min(rows - row), panel);
            }
        }
    }
}

#[inline(always)]
unsafe fn tile_of_rows<V: Lanes, const NP: usize>(
    part: &Part<'_>,
    row: usize,
    rows: usize,
    panel: usize,
) {
    // SAFETY: passed on from `run_part`.
    unsafe {
        match rows {
            1 => tile::<V, 1, NP>(part, row, panel),
            2 => tile::<V, 2, NP>(part, row, panel),
            3 => tile::<V, 3, NP>(part, row, panel),
            _ if NP > 1 || V::TILE_ROWS == 3 => {
                unreachable!("several panels only with up to three rows")
            }
            4 => tile::<V, 4, 1>(part, row, panel),
            _ if V::TILE_ROWS == 4 => unreachable!("tiles have up to four rows"),
            5 => tile::<V, 5, 1>(part, row, panel),
            6 => tile::<V, 6, 1>(part, row, panel),
            7 => tile::<V, 7, 1>(part, row, panel),
            8 => tile::<V, 8, 1>(part, row, panel),
            9 => tile::<V, 9, 1>(part, row, panel),
            10 => tile::<V, 10, 1>(part, row, panel),
            11 => tile::<V, 11, 1>(part, row, panel),
            _ => tile::<V, 12, 1>(part, row, panel),
        }
    }
}

/// `MR` rows × `NP` panels of C, for one block of k.
#[inline(always)]
unsafe fn tile<V: Lanes, const MR: usize, const NP: usize>(
    part: &Part<'_>,
    row: usize,
    panel: usize,
) {
    let weight = part.product.weight;
    let n = weight.n;
    let first_column = panel * PANEL;
    // SAFETY: `block` holds ROW_BLOCK rows of STRIDE floats and row + MR <= rows; panels `panel..panel + NP` exist and hold `k` rows from
    // `start`; C has m rows of n floats, columns beyond n are never touched.
    unsafe {
        let c = part
            .product
            .c
            .get()
            .add((part.rows.start + row) * n + first_column);
        let columns = (n - first_column).min(NP * PANEL);
        let a = part.block.as_ptr().add(row * STRIDE);
        let mut sums = [[[V::splat(0.0); 2]; NP]; MR];
        if part.start > 0 {
            read_tile(&mut sums, c, n, columns);
        }
        match weight.precision {
            Precision::F32 => {
                let b: [*const f32; NP] =
                    std::array::from_fn(|p| weight.panel(panel + p).add(part.start * PANEL));
                multiply_f32(&mut sums, a, b, part.depth, PANEL);
            }
            Precision::Bf16 => {
                let b: [*const f32; NP] =
                    std::array::from_fn(|p| weight.panel(panel + p).add(part.start / 2 * PANEL));
                multiply_bf16(&mut sums, a, b, part.depth.div_ceil(2));
            }
        }
        if let (Some(residual), true) = (part.product.residual, part.start + part.depth == weight.k)
        {
            let r = residual
                .as_ptr()
                .add((part.rows.start + row) * n + first_column);
            add_tile(&mut sums, r, n, columns);
        }
        write_tile(&sums, c, n, columns);
    }
}

/// `sums += a · b` over `depth` steps of k: rows of A [`STRIDE`] apart, rows of B `b_stride` floats apart.
///
/// # Safety
/// `a` must hold `MR` rows, every pointer of `b` `depth` rows of 32 floats.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "the row indexes A and the sums alike"
)]
pub(super) unsafe fn multiply_f32<V: Lanes, const MR: usize, const NP: usize>(
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
                let left = V::load(b[p].add(k * b_stride));
                let right = V::load(b[p].add(k * b_stride + LANES));
                for r in 0..MR {
                    let value = V::splat(*a.add(r * STRIDE + k));
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
unsafe fn multiply_bf16<V: Lanes, const MR: usize, const NP: usize>(
    sums: &mut [[[V; 2]; NP]; MR],
    a: *const f32,
    b: [*const f32; NP],
    pairs: usize,
) {
    let mut local = *sums;
    for pair in 0..pairs {
        for p in 0..NP {
            // SAFETY: as in `multiply_f32`; A's row is zero beyond an odd last k.
            unsafe {
                let source: *const u16 = b[p].add(pair * PANEL).cast();
                let (left_even, left_odd) = V::load_bf16_pairs(source);
                let (right_even, right_odd) = V::load_bf16_pairs(source.add(2 * LANES));
                for r in 0..MR {
                    let even = V::splat(*a.add(r * STRIDE + 2 * pair));
                    local[r][p][0] = even.mul_add(left_even, local[r][p][0]);
                    local[r][p][1] = even.mul_add(right_even, local[r][p][1]);
                }
                for r in 0..MR {
                    let odd = V::splat(*a.add(r * STRIDE + 2 * pair + 1));
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
unsafe fn read_tile<V: Lanes, const MR: usize, const NP: usize>(
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
unsafe fn add_tile<V: Lanes, const MR: usize, const NP: usize>(
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
