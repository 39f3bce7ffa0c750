//! Weights and activations as bytes: a weight matrix `(n, k)` with one scale an output, and rows of activations with one scale a row.
//!
//! `w = scale · q` with q in −127..127 and scale = max |w| / 127, rounded to even; the same for a row of activations at the time it is used. A column of
//! q never needs −128, so negation and sums are safe. Weights are stored as q + 128: the dot-product instructions take one unsigned operand, and
//! 128 times the sum of a row's bytes is taken off again, exactly. Of one panel of 32 outputs, four values of k of each output lie side by side.

use rayon::prelude::*;

use super::huge_pages;
use super::packed_weight::PANEL;
use super::simd::LANES;

/// Values of k that one instruction multiplies.
pub(super) const QUAD: usize = 4;
/// What makes a signed weight unsigned.
const OFFSET: i32 = 128;
/// The largest quantised magnitude.
const LARGEST: f32 = 127.0;
/// Longest sum that cannot overflow: each product is at most 127 · 255.
pub const MAX_K: usize = i32::MAX as usize / (127 * 255);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A weight matrix `(n, k)` in 8-bit integers; immutable.
pub struct Int8Weight {
    n: usize,
    k: usize,
    lines: Vec<Line>,
    scales: Vec<f32>,
}

impl std::fmt::Debug for Int8Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Int8Weight({} x {})", self.n, self.k)
    }
}

impl Int8Weight {
    /// Quantises `n` rows of `k` values; `fill(row, values)` writes row `row`. Rows are asked for in parallel.
    ///
    /// # Panics
    /// If `k` exceeds [`MAX_K`].
    pub fn new(n: usize, k: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        assert!(k <= MAX_K, "sums of at most {MAX_K} products fit 32 bits");
        let panel_lines = 2 * k.div_ceil(QUAD);
        let len = n.div_ceil(PANEL) * panel_lines;
        let mut lines = Vec::with_capacity(len);
        huge_pages::advise(&mut lines);
        lines.resize(len, Line([OFFSET as u8; 64]));
        let mut scales = vec![0.0; n];
        lines
            .par_chunks_mut(panel_lines.max(1))
            .zip(scales.par_chunks_mut(PANEL))
            .enumerate()
            .for_each_init(
                || (vec![0.0; k], vec![0; k]),
                |(values, bytes), (panel, (lines, scales))| {
                    for (column, scale) in scales.iter_mut().enumerate() {
                        fill(panel * PANEL + column, values);
                        *scale = quantize(values, bytes);
                        pack_column(bytes, column, lines);
                    }
                },
            );
        Self {
            n,
            k,
            lines,
            scales,
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

    /// Memory held.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(self.lines.as_slice()) + std::mem::size_of_val(self.scales.as_slice())
    }

    /// The scale of each output.
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Groups of four k.
    pub(super) fn quads(&self) -> usize {
        self.k.div_ceil(QUAD)
    }

    /// Where panel `index` begins: [`Int8Weight::quads`] times 128 bytes.
    pub(super) fn panel(&self, index: usize) -> *const u8 {
        self.lines[index * 2 * self.quads()..].as_ptr().cast()
    }
}

fn pack_column(bytes: &[i8], column: usize, lines: &mut [Line]) {
    for (quad, bytes) in bytes.chunks(QUAD).enumerate() {
        let line = &mut lines[2 * quad + column / 16].0;
        for (place, byte) in line[column % 16 * QUAD..].iter_mut().zip(bytes) {
            *place = (i32::from(*byte) + OFFSET) as u8;
        }
    }
}

/// Writes `values / scale`, rounded, to `bytes` and returns the scale: NaN where a value is not finite, so that no result hides it.
#[inline(always)]
pub(super) fn quantize(values: &[f32], bytes: &mut [i8]) -> f32 {
    let mut maxima = [0.0_f32; 16];
    let mut finite = [0.0_f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for lane in 0..16 {
            maxima[lane] = if chunk[lane].abs() > maxima[lane] {
                chunk[lane].abs()
            } else {
                maxima[lane]
            };
            finite[lane] += chunk[lane] * 0.0;
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        maxima[lane] = maxima[lane].max(value.abs());
        finite[lane] += value * 0.0;
    }
    let largest = maxima.into_iter().fold(0.0, f32::max);
    let scale = largest / LARGEST;
    // Subnormal scales have no reciprocal: such a row counts as zeros.
    let inverse = if scale >= f32::MIN_POSITIVE {
        LARGEST / largest
    } else {
        0.0
    };
    // Adding 1.5 · 2^23 rounds to an integer, to even, and leaves it in the lowest bits.
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = (value * inverse + 12_582_912.0).to_bits() as i8;
    }
    if finite.iter().sum::<f32>() == 0.0 {
        scale
    } else {
        f32::NAN
    }
}

/// How the quads of quantised rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Those of one k side by side: strip by strip, `[quad][row of the strip]`.
    Strips,
    /// Row by row, each with room for whole steps of matrix tiles, sixteen quads; what is behind the last one is zero.
    Rows,
}

impl Order {
    /// Quads from a row to the next.
    pub(super) fn quads(self, k: usize) -> usize {
        match self {
            Order::Strips => k.div_ceil(QUAD),
            Order::Rows => k.div_ceil(QUAD).next_multiple_of(LANES),
        }
    }
}

/// Rows of activations, quantised for one product.
#[derive(Debug, Default)]
pub(super) struct Int8Rows {
    /// As [`Order`] says.
    pub quads: Vec<i32>,
    /// Of each row.
    pub scales: Vec<f32>,
    /// 128 times the sum of each row's bytes.
    pub offsets: Vec<i32>,
}

impl Int8Rows {
    /// Room for `m` rows of `quads`, and as many more as tiles read beyond them.
    pub(super) fn resize(&mut self, m: usize, quads: usize, order: Order) {
        let rows = match order {
            Order::Strips => m,
            Order::Rows => m.next_multiple_of(PANEL),
        };
        self.quads.resize(rows * quads, 0);
        self.scales.resize(m, 0.0);
        self.offsets.resize(m, 0);
    }
}

/// Quantises one strip: `a (height, k)` to `quads`, in the strip's order or the rows'.
#[inline(always)]
pub(super) fn quantize_strip(
    a: &[f32],
    k: usize,
    order: Order,
    bytes: &mut Vec<i8>,
    quads: &mut [i32],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    let per_row = order.quads(k);
    let (row_step, step) = match order {
        Order::Strips => (1, scales.len()),
        Order::Rows => (per_row, 1),
    };
    bytes.clear();
    bytes.resize(per_row * QUAD, 0);
    for (row, values) in a.chunks_exact(k).enumerate() {
        scales[row] = quantize(values, &mut bytes[..k]);
        offsets[row] = OFFSET * bytes.iter().map(|byte| i32::from(*byte)).sum::<i32>();
        let (four, _) = bytes.as_chunks::<QUAD>();
        let targets = quads[row * row_step..].iter_mut().step_by(step);
        for (target, four) in targets.zip(four) {
            *target = i32::from_le_bytes(four.map(|byte| byte as u8));
        }
    }
}
