//! A weight matrix `(n, k)` repacked once at load into the layout that the matrix product ([`super::gemm`]) reads.
//!
//! Panels of [`PANEL`] output columns; inside a panel, the `k` rows of 32 values lie one after another, so the inner loop reads memory straight
//! through. Where tiles are half as wide ([`Lanes::TILE_WIDTH`](super::simd::Lanes::TILE_WIDTH)), the rows' left halves come first, then the right ones. bf16 weights are stored in pairs along k
//! (`[k/2][column][2]`, the form that dot-product instructions read too).

use half::bf16;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::dot_bf16;
use super::huge_pages;
use super::simd::{Isa, LANES, Stored};

/// Output columns in a panel of packed weights.
pub const PANEL: usize = 2 * LANES;

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

/// How the rows of a panel lie: floats from one to the next, and from the left half of one to its right half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spacing {
    pub row: usize,
    pub half: usize,
}

impl Spacing {
    /// Row after row, `stride` floats apart.
    pub(super) fn rows(stride: usize) -> Self {
        Self {
            row: stride,
            half: LANES,
        }
    }

    /// Half panel after half panel, of so many rows.
    fn halves(rows: usize) -> Self {
        Self {
            row: LANES,
            half: rows * LANES,
        }
    }
}

/// A weight matrix `(n, k)` in the layout the product reads; immutable.
pub struct PackedWeight {
    n: usize,
    k: usize,
    precision: Precision,
    /// Whether half panels lie one after the other.
    halved: bool,
    precise: bool,
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
        let mut packed = Self::empty(precision);
        packed.pack(n, k, fill);
        packed
    }

    /// Packs the transpose of `values (k, n)`, row-major. Its rows are rows of the panels already: no gather.
    ///
    /// # Panics
    /// If `values` does not hold `k` rows of `n`.
    pub fn from_transposed(n: usize, k: usize, precision: Precision, values: &[f32]) -> Self {
        assert_eq!(values.len(), n * k, "the matrix must be (k, n)");
        let mut packed = Self::empty(precision);
        packed.pack_transposed(n, k, |row| &values[row * n..][..n]);
        packed
    }

    /// A matrix without values, whose room is used again by each packing.
    pub fn empty(precision: Precision) -> Self {
        Self::laid_out(precision, Isa::current().tile_width() == 1)
    }

    /// The same with half panels one after the other, or whole ones.
    pub(super) fn laid_out(precision: Precision, halved: bool) -> Self {
        Self {
            n: 0,
            k: 0,
            precision,
            halved,
            precise: false,
            lines: Vec::new(),
        }
    }

    /// The same, of outputs that are to be as good as their weights: a CPU that multiplies bf16 takes what these are multiplied with in two parts, `high + low`,
    /// instead of rounding it.
    pub fn precise(mut self) -> Self {
        self.precise = true;
        self
    }

    /// Becomes what [`PackedWeight::new`] makes.
    pub fn pack(&mut self, n: usize, k: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
        let (precision, halved) = (self.precision, self.halved);
        // A panel's rows as they come, then side by side.
        let room = || (vec![0.0; PANEL * k], vec![0.0; PANEL * k]);
        let pack = |(rows, columns): &mut (Vec<f32>, Vec<f32>),
                    (panel, lines): (usize, &mut [Line])| {
            let height = PANEL.min(n - panel * PANEL);
            if height < PANEL {
                lines.fill(Line([0.0; LANES]));
            }
            for (i, row) in rows.chunks_exact_mut(k.max(1)).take(height).enumerate() {
                fill(panel * PANEL + i, row);
            }
            side_by_side::<PANEL, f32>(|i| &rows[i * k..][..k], height, columns);
            let column = |at: usize| &columns[at * PANEL..][..height];
            pack_rows(precision, halved, k, column, lines);
        };
        let panels = self.room(n, k).enumerate();
        panels.for_each_init(room, pack);
    }

    /// Becomes what [`PackedWeight::from_transposed`] makes of `k` rows of `n` values.
    pub fn pack_transposed<'a>(
        &mut self,
        n: usize,
        k: usize,
        row: impl Fn(usize) -> &'a [f32] + Sync,
    ) {
        let (precision, halved) = (self.precision, self.halved);
        let pack = |(panel, lines): (usize, &mut [Line])| {
            let columns = panel * PANEL..n.min((panel + 1) * PANEL);
            let row = |k: usize| &row(k)[columns.clone()];
            pack_rows(precision, halved, k, row, lines);
        };
        self.room(n, k).enumerate().for_each(pack);
    }

    /// Takes the shape; the panels, which hold anything.
    fn room(&mut self, n: usize, k: usize) -> impl IndexedParallelIterator<Item = &mut [Line]> {
        let panel_lines = panel_floats(k, self.precision) / LANES;
        let len = n.div_ceil(PANEL) * panel_lines;
        if self.lines.capacity() < len {
            // Old values are not worth moving.
            self.lines = Vec::with_capacity(len);
            huge_pages::advise(&mut self.lines);
        }
        self.lines.resize(len, Line([0.0; LANES]));
        (self.n, self.k) = (n, k);
        self.lines.par_chunks_mut(panel_lines.max(1))
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

    /// Whether outputs are [precise](PackedWeight::precise).
    pub(super) fn is_precise(&self) -> bool {
        self.precise
    }

    /// Whether half panels lie one after the other.
    pub(super) fn is_halved(&self) -> bool {
        self.halved
    }

    /// How the rows of a panel (pairs of rows in bf16) lie.
    pub(super) fn spacing(&self) -> Spacing {
        if self.halved {
            Spacing::halves(self.floats_of_panel() / PANEL)
        } else {
            Spacing::rows(PANEL)
        }
    }

    /// f32 slots between panels.
    pub(super) fn floats_of_panel(&self) -> usize {
        panel_floats(self.k, self.precision)
    }

    /// Where panel `index` begins.
    pub(super) fn panel(&self, index: usize) -> *const f32 {
        let lines = self.floats_of_panel() / LANES;
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

/// Packs the `k` rows of a panel.
fn pack_rows<'a>(
    precision: Precision,
    halved: bool,
    k: usize,
    row: impl Fn(usize) -> &'a [f32],
    lines: &mut [Line],
) {
    let rows = lines.len() / 2;
    let place = |row: usize, half: usize| {
        if halved {
            half * rows + row
        } else {
            2 * row + half
        }
    };
    match precision {
        Precision::F32 => (0..k).for_each(|k| {
            for half in 0..2 {
                pack_row_f32(lane(row(k), half), &mut lines[place(k, half)]);
            }
        }),
        Precision::Bf16 => (0..rows).for_each(|pair| {
            let odd = 2 * pair + 1;
            let (even, odd) = (row(odd - 1), if odd < k { row(odd) } else { &[] });
            for half in 0..2 {
                let pairs = (lane(even, half), lane(odd, half));
                pack_row_bf16(Isa::current(), pairs, &mut lines[place(pair, half)]);
            }
        }),
    }
}

fn pack_row_f32(values: &[f32], line: &mut Line) {
    let (own, beyond) = line.0.split_at_mut(values.len());
    own.copy_from_slice(values);
    beyond.fill(0.0);
}

/// Packs the halves of two rows.
#[cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "an instruction set; the block says why it is there"
    )
)]
#[inline]
fn pack_row_bf16(isa: Isa, (even, odd): (&[f32], &[f32]), line: &mut Line) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512Bf16 {
        // SAFETY: `isa` is available (Isa::from_env checks).
        line.0 = unsafe { dot_bf16::pairs(even, odd) };
        return;
    }
    let _ = isa;
    for (i, slot) in line.0.iter_mut().enumerate() {
        let bits = |values: &[f32]| {
            let value = values.get(i).copied().unwrap_or(0.0);
            u32::from(bf16::from_f32(value).to_bits())
        };
        *slot = f32::from_bits(bits(odd) << 16 | bits(even));
    }
}

/// The left or right half of a row of a panel, as far as it goes.
fn lane(row: &[f32], half: usize) -> &[f32] {
    let row = row.get(half * LANES..).unwrap_or(&[]);
    &row[..row.len().min(LANES)]
}

/// Writes `height` rows side by side: value k of row i to `strip[k][i]`. Four by four, which compilers turn into shuffles.
pub(super) fn side_by_side<'a, const WIDTH: usize, T: Stored + 'a>(
    row: impl Fn(usize) -> &'a [T],
    height: usize,
    strip: &mut [f32],
) {
    let whole = height - height % 4;
    for first in (0..whole).step_by(4) {
        let rows: [&[T]; 4] = std::array::from_fn(|i| row(first + i));
        let quads = rows.map(|row| row.as_chunks::<4>().0);
        for (k, values) in strip.chunks_exact_mut(4 * WIDTH).enumerate() {
            let square = [quads[0][k], quads[1][k], quads[2][k], quads[3][k]];
            for step in 0..4 {
                values[step * WIDTH + first..][..4]
                    .copy_from_slice(&square.map(|values| values[step].value()));
            }
        }
        let depth = rows[0].len();
        for k in depth - depth % 4..depth {
            for (i, row) in rows.iter().enumerate() {
                strip[k * WIDTH + first + i] = row[k].value();
            }
        }
    }
    for i in whole..height {
        for (values, value) in strip.chunks_exact_mut(WIDTH).zip(row(i)) {
            values[i] = value.value();
        }
    }
}
