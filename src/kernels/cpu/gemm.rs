//! `C = A · Wᵀ (+ R)` with `W` repacked once at load: the matrix product of every linear layer.
//!
//! `A` is copied block by block ([`ROW_BLOCK`] rows × [`DEPTH`] columns, fits L2): row by row where it lies in rows, in strips of [`STRIP`] rows where it
//! lies in columns, so that copying never transposes. The inner loop reads both operands straight through, from L2. A tile of up to 12 × 32 results
//! (6 × 16 in AVX2's sixteen registers) stays in registers; while it is computed, the lines of C that the next one writes are fetched.
//!
//! **Batch-invariant to the byte**: every element of C is one chain of multiply-adds in the order of k, whatever the number of rows, the tile it
//! falls in or the threads at work.
//!
//! bf16 weights are widened in registers; A stays f32, so only the weights are rounded. Where the CPU multiplies bf16 itself, [`super::dot_bf16`] does
//! these products, with A rounded too.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use std::cell::RefCell;

#[cfg(target_arch = "x86_64")]
use super::amx::Tiles;
#[cfg(target_arch = "x86_64")]
use super::dot_bf16;
use super::elementwise::Activation;
use super::output::{Gate, Output, Progress, Target, Task, written};
use super::packed_weight::{PANEL, PackedWeight, Precision};
use super::simd::{LANES, Lanes, prefetch};
use super::tile::{
    AHEAD, Ahead, add_tile, by_rows, multiply_bf16, multiply_f32, read_tile, write_tile,
};
use super::{Isa, SharedMut, with_isa};

/// Columns of A multiplied in one go; even, so that pairs of bf16 are never parted.
pub(super) const DEPTH: usize = 768;
/// Rows of A in a strip; a multiple of every tile's height.
pub(super) const STRIP: usize = 12;
/// Floats between rows of a block; some more than [`DEPTH`], for the other half of an odd last pair and so that twelve rows do not fall on the same
/// lines of the cache.
const ROW_FLOATS: usize = DEPTH + LANES;
/// Floats of a strip, in either form.
const STRIP_FLOATS: usize = STRIP * ROW_FLOATS;
/// Rows of A in one task.
pub(super) const ROW_BLOCK: usize = 10 * STRIP;
/// Below this many multiply-adds a product is not worth a second thread.
const SERIAL_WORK: usize = 1 << 16;

/// The left operand `A (m, k)` as it lies in memory.
#[derive(Clone, Copy)]
pub enum Left<'a> {
    /// Row by row.
    Rows(&'a [f32]),
    /// Column by column: the transpose `(k, m)`, row-major.
    Columns(&'a [f32]),
}

/// `a (m, k) · weightᵀ`, plus `residual (m, n)` where given: `(m, n)`. All row-major and contiguous.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn product(isa: Isa, a: &[f32], weight: &PackedWeight, residual: Option<&[f32]>) -> Vec<f32> {
    let (m, n) = (a.len() / weight.k().max(1), weight.n());
    let write = |c| {
        let product = Product {
            a: Left::Rows(a),
            weight,
            residual,
            adds: false,
            output: Output::plain(c, n),
            m,
        };
        product.start(isa);
    };
    // SAFETY: a product writes every result.
    unsafe { written(m * n, write) }
}

/// `activation(a · gatesᵀ) · (a · upᵀ)`: `(m, d_ff)`, of a weight that holds both [`interleaved`](super::output::interleaved).
///
/// # Panics
/// If a length does not fit the shapes.
pub fn gated(
    isa: Isa,
    a: &[f32],
    weight: &PackedWeight,
    d_ff: usize,
    activation: Activation,
) -> Vec<f32> {
    let m = a.len() / weight.k().max(1);
    let write = |c| {
        let product = Product {
            a: Left::Rows(a),
            weight,
            residual: None,
            adds: false,
            output: Output::gated(c, d_ff, weight.n(), Gate { activation, isa }),
            m,
        };
        product.start(isa);
    };
    // SAFETY: as above.
    unsafe { written(m * d_ff, write) }
}

/// `c (m, n) = a (m, k) · weightᵀ`, plus `residual (m, n)` where given. All row-major and contiguous.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn matmul(isa: Isa, a: &[f32], weight: &PackedWeight, residual: Option<&[f32]>, c: &mut [f32]) {
    multiply(isa, Left::Rows(a), weight, residual, c);
}

/// As [`matmul`] with either form of A.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn multiply(
    isa: Isa,
    a: Left<'_>,
    weight: &PackedWeight,
    residual: Option<&[f32]>,
    c: &mut [f32],
) {
    replace_or_add(a, weight, residual, false, c).start(isa);
}

/// `c (m, n) += a (m, k) · weightᵀ`: the chain of multiply-adds begins at what `c` holds.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn multiply_add(isa: Isa, a: Left<'_>, weight: &PackedWeight, c: &mut [f32]) {
    replace_or_add(a, weight, None, true, c).start(isa);
}

fn replace_or_add<'a>(
    a: Left<'a>,
    weight: &'a PackedWeight,
    residual: Option<&'a [f32]>,
    adds: bool,
    c: &mut [f32],
) -> Product<'a> {
    let m = c.len().checked_div(weight.n()).unwrap_or(0);
    assert_eq!(c.len(), m * weight.n(), "the result must have whole rows");
    Product {
        a,
        weight,
        residual,
        adds,
        output: Output::plain(SharedMut(c.as_mut_ptr()), weight.n()),
        m,
    }
}

/// A product.
pub(super) struct Product<'a> {
    pub(super) a: Left<'a>,
    pub(super) weight: &'a PackedWeight,
    pub(super) residual: Option<&'a [f32]>,
    /// Whether the results are added to what C holds.
    pub(super) adds: bool,
    pub(super) output: Output,
    pub(super) m: usize,
}

thread_local! {
    static BLOCK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl<'a> Product<'a> {
    /// Writes every result; reads what C, room for `m` rows, holds only if it `adds`.
    fn start(&self, isa: Isa) {
        let (m, n, k) = (self.m, self.weight.n(), self.weight.k());
        if n == 0 || m == 0 {
            return;
        }
        let (Left::Rows(values) | Left::Columns(values)) = self.a;
        assert_eq!(values.len(), m * k, "A must be (rows of C, k)");
        assert!(
            self.residual.is_none_or(|r| r.len() == m * n),
            "the residual must have C's shape"
        );
        let rows_of_task = self.rows_of_task(isa);
        let threads = rayon::current_num_threads();
        let groups = |row_blocks: usize| {
            if threads == 1 || m * n * k < SERIAL_WORK {
                1
            } else {
                (8 * threads).div_ceil(row_blocks)
            }
        };
        self.output
            .for_each_task((m, rows_of_task), n.div_ceil(PANEL), groups, |task| {
                self.run(isa, task);
            });
    }

    /// Whether the CPU multiplies both operands in bf16.
    #[cfg(target_arch = "x86_64")]
    fn is_in_bf16(&self, isa: Isa) -> bool {
        isa.rounds_activations()
            && self.weight.precision() == Precision::Bf16
            && !self.weight.is_halved()
    }

    /// A, if it is multiplied in matrix tiles.
    #[cfg(target_arch = "x86_64")]
    fn tiled(&self, isa: Isa) -> Option<&'a [f32]> {
        match self.a {
            Left::Rows(a) if isa == Isa::Amx && self.is_in_bf16(isa) => Some(a),
            _ => None,
        }
    }

    /// Rows of A in one task.
    fn rows_of_task(&self, isa: Isa) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.tiled(isa).is_some() {
            return dot_bf16::TILED_ROWS;
        }
        let _ = isa;
        ROW_BLOCK
    }

    /// The results of one task.
    fn run(&self, isa: Isa, task: &Task) {
        #[cfg(target_arch = "x86_64")]
        if self.is_in_bf16(isa) {
            // SAFETY: `isa` is available (Isa::from_env checks); tasks have results of their own.
            return unsafe {
                match self.tiled(isa) {
                    Some(a) => dot_bf16::run_in_tiles::<Tiles>(self, a, task),
                    None => dot_bf16::run(self, task),
                }
            };
        }
        self.for_each_part(task, |part| part.run(isa));
    }

    /// Calls `multiply` with one block of k after the other.
    pub(super) fn for_each_part(&self, task: &Task, multiply: impl Fn(&Part<'_>)) {
        BLOCK.with_borrow_mut(|block| {
            let k = self.weight.k();
            // Up to one strip of rows takes all of k at once: its weights are read straight through, and once.
            let most = if task.rows.len() <= STRIP { k } else { DEPTH };
            let strips = (ROW_BLOCK / STRIP).max(k.div_ceil(DEPTH));
            block.resize(strips * STRIP_FLOATS, 0.0);
            for start in (0..k).step_by(most.max(1)) {
                let depth = most.min(k - start);
                for (first, depth, strip) in depths(depth) {
                    let block = &mut block[strip * STRIP_FLOATS..];
                    self.copy_block(&task.rows, start + first, depth, block);
                }
                multiply(&Part {
                    product: self,
                    block,
                    task,
                    start,
                    depth,
                });
            }
        });
    }

    /// Copies `rows` × `start..start + depth` of A to `block`, strip by strip. Rows that a last strip lacks keep what was there: nothing reads them.
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

/// The parts of up to [`DEPTH`] columns: where each begins, its columns, and its first strip in the block.
#[inline(always)]
fn depths(depth: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let firsts = (0..depth).step_by(DEPTH).enumerate();
    firsts.map(move |(strip, first)| (first, DEPTH.min(depth - first), strip))
}

/// One block of k of one task, or all of k of up to [`STRIP`] rows: then every [`DEPTH`] columns have a strip of their own.
pub(super) struct Part<'a> {
    product: &'a Product<'a>,
    block: &'a [f32],
    task: &'a Task,
    start: usize,
    depth: usize,
}

impl Part<'_> {
    fn run(&self, isa: Isa) {
        debug_assert!(self.task.rows.end <= self.product.m);
        // SAFETY: `isa` is available (Isa::from_env checks); `part` upholds the bounds that `run_part` needs, see there.
        unsafe { with_isa!(isa, run_part(part: &Part<'_>)(self)) }
    }

    fn progress(&self) -> Progress {
        Progress {
            is_first: self.start == 0,
            is_last: self.start + self.depth == self.product.weight.k(),
        }
    }
}

#[inline(always)]
pub(super) unsafe fn run_part<V: Lanes>(part: &Part<'_>) {
    // SAFETY: passed on from `Part::run`.
    unsafe {
        match part.product.a {
            Left::Rows(_) => run_tiles::<V, ROW_FLOATS, 1>(part),
            Left::Columns(_) => run_tiles::<V, 1, STRIP>(part),
        }
    }
}

/// Multiplies the block, whose value (row, k) of a strip lies at `row * ROW + k * STEP`.
#[inline(always)]
unsafe fn run_tiles<V: Lanes, const ROW: usize, const STEP: usize>(part: &Part<'_>) {
    let rows = part.task.rows.len();
    // Few rows do not hide how long a multiply-add takes; several panels side by side do, as many as there are registers for.
    let wide = match (V::TILE_WIDTH, rows) {
        (2, ..=3) => 4,
        (1, 1) => 2,
        (1, 2) => 1,
        _ => 0,
    };
    let most = match part.product.weight.precision() {
        Precision::F32 => V::TILE_ROWS,
        Precision::Bf16 => V::TILE_ROWS_BF16,
    };
    for pass in part.product.output.passes(part.task, part.progress()) {
        let target = &pass.target;
        // SAFETY: tiles stay within the task's rows and panels; panels are whole in the packed weight (padded), and the target is written only
        // where row < m and column < n.
        unsafe {
            let mut panel = pass.panels.start;
            while wide > 0 && panel + wide <= pass.panels.end {
                if V::TILE_WIDTH == 2 {
                    by_rows!(rows, up to 3, MR => tile::<V, MR, 4, 2, ROW, STEP>(part, target, 0, panel, 0));
                } else if rows == 1 {
                    tile::<V, 1, 2, 2, ROW, STEP>(part, target, 0, panel, 0);
                } else {
                    tile::<V, 2, 1, 2, ROW, STEP>(part, target, 0, panel, 0);
                }
                panel += wide;
            }
            for panel in panel..pass.panels.end {
                for half in 0..2 / V::TILE_WIDTH {
                    for row in (0..rows).step_by(most) {
                        let rows = most.min(rows - row);
                        if V::TILE_WIDTH == 2 {
                            by_rows!(rows, up to V::TILE_ROWS, MR => tile::<V, MR, 1, 2, ROW, STEP>(part, target, row, panel, half));
                        } else {
                            by_rows!(rows, up to V::TILE_ROWS, MR => tile::<V, MR, 1, 1, ROW, STEP>(part, target, row, panel, half));
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
    part: &Part<'_>,
    target: &Target,
    row: usize,
    panel: usize,
    half: usize,
) {
    let weight = part.product.weight;
    let columns = target.columns(panel);
    if half * LANES >= columns {
        return;
    }
    // SAFETY: `block` holds strips of STRIP rows and STRIP_FLOATS floats; a tile begins at a multiple of its height and so stays within a strip, and
    // row + MR <= rows; panels `panel..panel + NP` exist and hold `k` rows from `start`; the target has the task's rows, columns beyond its last are never touched.
    unsafe {
        let (c, stride) = (target.at(row, panel).add(half * LANES), target.stride);
        let columns = (columns - half * LANES).min((NP - 1) * PANEL + W * LANES);
        let a = part
            .block
            .as_ptr()
            .add(row / STRIP * STRIP_FLOATS + row % STRIP * ROW);
        let mut sums = [[[V::splat(0.0); W]; NP]; MR];
        if part.start > 0 || part.product.adds {
            read_tile(&mut sums, c, stride, columns);
        }
        if row + MR < part.task.rows.len() {
            for r in MR..2 * MR {
                for w in 0..W {
                    prefetch(c.wrapping_add(r * stride + w * LANES));
                }
            }
        }
        let spacing = weight.spacing();
        let passes = part.task.rows.len().div_ceil(MR);
        for (first, depth, strip) in depths(part.depth) {
            let (a, k) = (a.add(strip * STRIP_FLOATS), part.start + first);
            let (first_row, steps) = match weight.precision() {
                Precision::F32 => (k, depth),
                Precision::Bf16 => (k / 2, depth.div_ceil(2)),
            };
            let mut b = [weight.panel(panel); NP];
            for (p, b) in b.iter_mut().enumerate() {
                let place = first_row * spacing.row + half * spacing.half;
                *b = weight.panel(panel + p).add(place);
            }
            // Wide tiles pass over a panel once, or find it near by: what comes a little later is asked for. Others pass over half a panel again and again: a
            // share of the next half each time.
            let (distance, step) = if W == 2 {
                (AHEAD * spacing.row, spacing.row)
            } else {
                let share = steps * LANES / passes;
                (spacing.half + row / MR * share, LANES / passes)
            };
            let ahead = Ahead {
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
        if let Some(residual) = part.product.residual.filter(|_| part.progress().is_last) {
            let n = weight.n();
            let place = (part.task.rows.start + row) * n + panel * PANEL + half * LANES;
            let residual = residual.as_ptr().add(place);
            add_tile(&mut sums, residual, n, columns);
        }
        write_tile(&sums, c, stride, columns);
    }
}
