//! A weight `(n, k)` in f32 or bf16, packed once at load into the panels that [`super::layout`]
//! draws and that the matrix product ([`super::gemm`]) reads.
//!
//! Panels are halved where tiles are one vector wide
//! ([`Lanes::TILE_WIDTH`](super::simd::Lanes::TILE_WIDTH)).

use half::bf16;
use rayon::prelude::*;

use super::huge_pages;
use super::isa::Isa;
use super::layout::{LANES, PANEL, Spacing};
#[cfg(target_arch = "x86_64")]
use super::simd::x86::bf16_pairs;
use super::transpose::side_by_side;
use crate::kernels::plan::Precision;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct FloatLine([f32; LANES]);

/// A weight `(n, k)` in panels.
pub struct PackedWeight {
    n: usize,
    k: usize,
    precision: Precision,
    /// Whether the left halves of a panel lie in front of its right halves.
    halved: bool,
    lines: Vec<FloatLine>,
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
    /// Packs `n` rows of `k` values; `fill(row, values)` writes row `row`, called in parallel.
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

    /// Packs the transpose of `values (k, n)`, row-major, whose rows are rows of the panels:
    /// nothing is gathered.
    ///
    /// # Panics
    /// If `values` does not hold `k` rows of `n`.
    pub fn from_transposed(n: usize, k: usize, precision: Precision, values: &[f32]) -> Self {
        assert_eq!(values.len(), n * k, "the matrix must be (k, n)");
        let mut packed = Self::empty(precision);
        packed.pack_transposed(n, k, |row| &values[row * n..][..n]);
        packed
    }

    /// A weight without values, whose memory every packing reuses.
    pub fn empty(precision: Precision) -> Self {
        Self::laid_out(precision, Isa::current().tile_width() == 1)
    }

    /// As [`PackedWeight::empty`], with halved or whole panels.
    pub(super) fn laid_out(precision: Precision, halved: bool) -> Self {
        Self {
            n: 0,
            k: 0,
            precision,
            halved,
            lines: Vec::new(),
        }
    }

    /// Packs `n` rows of `k` values, as [`PackedWeight::new`].
    pub fn pack(&mut self, n: usize, k: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
        let (precision, halved) = (self.precision, self.halved);
        // The rows of a panel as `fill` writes them, then side by side.
        let room = || (vec![0.0; PANEL * k], vec![0.0; PANEL * k]);
        let pack = |(rows, columns): &mut (Vec<f32>, Vec<f32>),
                    (panel, lines): (usize, &mut [FloatLine])| {
            let height = PANEL.min(n - panel * PANEL);
            if height < PANEL {
                lines.fill(FloatLine([0.0; LANES]));
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

    /// Packs `k` rows of `n` values, as [`PackedWeight::from_transposed`].
    pub fn pack_transposed<'a>(
        &mut self,
        n: usize,
        k: usize,
        row: impl Fn(usize) -> &'a [f32] + Sync,
    ) {
        let (precision, halved) = (self.precision, self.halved);
        let pack = |(panel, lines): (usize, &mut [FloatLine])| {
            let columns = panel * PANEL..n.min((panel + 1) * PANEL);
            let row = |k: usize| &row(k)[columns.clone()];
            pack_rows(precision, halved, k, row, lines);
        };
        self.room(n, k).enumerate().for_each(pack);
    }

    /// Sets the shape and returns the panels, whose values are arbitrary.
    fn room(
        &mut self,
        n: usize,
        k: usize,
    ) -> impl IndexedParallelIterator<Item = &mut [FloatLine]> {
        let panel_lines = panel_floats(k, self.precision) / LANES;
        let len = n.div_ceil(PANEL) * panel_lines;
        if self.lines.capacity() < len {
            // A new allocation, because old values need not be moved.
            self.lines = Vec::with_capacity(len);
            huge_pages::advise(&mut self.lines);
        }
        self.lines.resize(len, FloatLine([0.0; LANES]));
        (self.n, self.k) = (n, k);
        self.lines.par_chunks_mut(panel_lines.max(1))
    }

    /// Width of the outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Width of the inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number type of the values.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(self.lines.as_slice())
    }

    /// Whether the left halves of a panel lie in front of its right halves.
    pub(super) fn is_halved(&self) -> bool {
        self.halved
    }

    /// Distances between the rows of a panel.
    pub(super) fn spacing(&self) -> Spacing {
        if self.halved {
            Spacing::halves(self.floats_of_panel() / PANEL)
        } else {
            Spacing::rows(PANEL)
        }
    }

    /// Slots of four bytes from one panel to the next.
    pub(super) fn floats_of_panel(&self) -> usize {
        panel_floats(self.k, self.precision)
    }

    /// Start of panel `index`.
    pub(super) fn panel(&self, index: usize) -> *const f32 {
        let lines = self.floats_of_panel() / LANES;
        self.lines[index * lines..].as_ptr().cast()
    }
}

/// Slots of four bytes in one panel.
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
    lines: &mut [FloatLine],
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
                let (even, odd) = (lane(even, half), lane(odd, half));
                pack_row_bf16(Isa::current(), even, odd, &mut lines[place(pair, half)]);
            }
        }),
    }
}

fn pack_row_f32(values: &[f32], line: &mut FloatLine) {
    let (own, beyond) = line.0.split_at_mut(values.len());
    own.copy_from_slice(values);
    beyond.fill(0.0);
}

/// Packs the half rows of an even and an odd k into one line of pairs.
#[cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "an instruction set; the block says why it is there"
    )
)]
#[inline]
fn pack_row_bf16(isa: Isa, even: &[f32], odd: &[f32], line: &mut FloatLine) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512Bf16 {
        // SAFETY: `isa` is available (Isa::from_env checks).
        line.0 = unsafe { bf16_pairs(even, odd) };
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

/// The existing values of the left or right half of a row of a panel.
fn lane(row: &[f32], half: usize) -> &[f32] {
    let row = row.get(half * LANES..).unwrap_or(&[]);
    &row[..row.len().min(LANES)]
}
