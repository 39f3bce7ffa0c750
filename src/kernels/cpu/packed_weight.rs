//! A weight matrix `(n, k)` repacked once at load into the layout that the matrix product ([`super::gemm`]) reads.
//!
//! Panels of [`PANEL`] output columns; inside a panel, the `k` rows of 32 values lie one after another, so the inner loop reads memory straight
//! through. bf16 weights are stored in pairs along k (`[k/2][column][2]`, the form that dot-product instructions read too).

use half::bf16;
use rayon::prelude::*;

use super::simd::LANES;

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

    /// Where panel `index` begins.
    pub(super) fn panel(&self, index: usize) -> *const f32 {
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
