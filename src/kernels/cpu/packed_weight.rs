//! A weight matrix `(n, k)` repacked once at load into the layout that the matrix product ([`super::gemm`]) reads.
//!
//! Panels of [`PANEL`] output columns; inside a panel, the `k` rows of 32 values lie one after another, so the inner loop reads memory straight
//! through. bf16 weights are stored in pairs along k (`[k/2][column][2]`, the form that dot-product instructions read too).

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
        Self {
            n: 0,
            k: 0,
            precision,
            lines: Vec::new(),
        }
    }

    /// Becomes what [`PackedWeight::new`] makes.
    pub fn pack(&mut self, n: usize, k: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
        let precision = self.precision;
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
            pack_rows(precision, k, column, lines);
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
        let precision = self.precision;
        let pack = |(panel, lines): (usize, &mut [Line])| {
            let columns = panel * PANEL..n.min((panel + 1) * PANEL);
            let row = |k: usize| &row(k)[columns.clone()];
            pack_rows(precision, k, row, lines);
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
    k: usize,
    row: impl Fn(usize) -> &'a [f32],
    lines: &mut [Line],
) {
    match precision {
        Precision::F32 => (0..k).for_each(|k| pack_row_f32(row(k), k, lines)),
        Precision::Bf16 => pack_rows_bf16(Isa::current(), k, row, lines),
    }
}

fn pack_row_f32(values: &[f32], k: usize, lines: &mut [Line]) {
    for (half, line) in lines[2 * k..][..2].iter_mut().enumerate() {
        let values = lane(values, half);
        let (own, beyond) = line.0.split_at_mut(values.len());
        own.copy_from_slice(values);
        beyond.fill(0.0);
    }
}

/// Packs `k` rows of a panel, two by two.
#[cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "an instruction set; the block says why it is there"
    )
)]
fn pack_rows_bf16<'a>(isa: Isa, k: usize, row: impl Fn(usize) -> &'a [f32], lines: &mut [Line]) {
    for (pair, lines) in lines.chunks_exact_mut(2).enumerate() {
        let even = row(2 * pair);
        let odd = if 2 * pair + 1 < k {
            row(2 * pair + 1)
        } else {
            &[]
        };
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512Bf16 {
            for (half, line) in lines.iter_mut().enumerate() {
                // SAFETY: `isa` is available (Isa::from_env checks).
                line.0 = unsafe { dot_bf16::pairs(lane(even, half), lane(odd, half)) };
            }
            continue;
        }
        let _ = isa;
        for (half, line) in lines.iter_mut().enumerate() {
            let (even, odd) = (lane(even, half), lane(odd, half));
            for (i, slot) in line.0.iter_mut().enumerate() {
                let bits = |values: &[f32]| {
                    let value = values.get(i).copied().unwrap_or(0.0);
                    u32::from(bf16::from_f32(value).to_bits())
                };
                *slot = f32::from_bits(bits(odd) << 16 | bits(even));
            }
        }
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
