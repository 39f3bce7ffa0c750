//! Weights and activations as integers: a weight `(n, k)` with one scale per output, packed in the
//! panels of integers that [`super::layout`] draws, and rows of activations with one scale per row,
//! quantised for each product.
//!
//! **8 bits** are `--weights int8`: `w = scale · q` with q in −127..127 and scale = max |w| / 127,
//! rounded to even. q is never −128, so negation and sums are safe. Weights are stored as q + 128:
//! the dot-product instructions take one unsigned operand, and 128 times the sum of the bytes of a
//! row is subtracted again, exactly.
//!
//! **16 bits** are for layers of a bf16 model whose inputs must not be rounded to bf16: scale =
//! max(‖w‖ / 46000, max |w| / 32767). By the Cauchy-Schwarz inequality, no sum of products then
//! overflows 32 bits, and neither does any part of a sum. The error of a value is at most half a
//! step, so the error of a row is at most √k / 2 steps; on random rows, the error of a product is
//! less than a quarter of the error of rounding one operand to bf16 (tests/it/int8.rs).

use rayon::prelude::*;

use super::huge_pages;
use super::layout::{LANES, PANEL};

/// Bytes of one output that one instruction multiplies.
const GROUP: usize = 4;
/// Offset that makes a signed weight unsigned.
const OFFSET: i32 = 128;
/// Largest quantised magnitude in 8 bits.
const LARGEST: f32 = 127.0;
/// Number of products whose sum cannot overflow: in 8 bits each product is at most 127 · 255.
pub const MAX_K: usize = i32::MAX as usize / (127 * 255);
/// Largest norm of a row in 16 bits: its square is below 2³¹, even with the rounding errors of
/// [`MAX_K`] values.
const NORM: f32 = 46_000.0;

/// Number of bits of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// 8 bits: a group holds four values of k.
    Eight,
    /// 16 bits: a group holds two values of k.
    Sixteen,
}

impl Bits {
    /// Number of groups of `k` values.
    fn groups(self, k: usize) -> usize {
        k.div_ceil(GROUP / self.bytes())
    }

    fn bytes(self) -> usize {
        match self {
            Bits::Eight => 1,
            Bits::Sixteen => 2,
        }
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct ByteLine([u8; 64]);

/// A weight matrix `(n, k)` in integers; immutable.
pub struct IntegerWeight {
    bits: Bits,
    n: usize,
    k: usize,
    lines: Vec<ByteLine>,
    scales: Vec<f32>,
}

impl std::fmt::Debug for IntegerWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IntegerWeight({} x {}, {:?})", self.n, self.k, self.bits)
    }
}

impl IntegerWeight {
    /// Quantises `n` rows of `k` values; `fill(row, values)` writes row `row`, called in parallel.
    ///
    /// # Panics
    /// If `k` exceeds [`MAX_K`].
    pub fn new(bits: Bits, n: usize, k: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        assert!(k <= MAX_K, "sums of at most {MAX_K} products fit 32 bits");
        let panel_lines = 2 * bits.groups(k);
        let len = n.div_ceil(PANEL) * panel_lines;
        let mut lines = Vec::with_capacity(len);
        huge_pages::advise(&mut lines);
        let zero = match bits {
            Bits::Eight => OFFSET as u8,
            Bits::Sixteen => 0,
        };
        lines.resize(len, ByteLine([zero; 64]));
        let mut scales = vec![0.0; n];
        lines
            .par_chunks_mut(panel_lines.max(1))
            .zip(scales.par_chunks_mut(PANEL))
            .enumerate()
            .for_each_init(
                || (vec![0.0; k], vec![0; k * bits.bytes()]),
                |(values, bytes), (panel, (lines, scales))| {
                    for (column, scale) in scales.iter_mut().enumerate() {
                        fill(panel * PANEL + column, values);
                        *scale = match bits {
                            Bits::Eight => quantize(values, bytes),
                            Bits::Sixteen => quantize_16(values, bytes),
                        };
                        pack_column(bytes, zero, column, lines);
                    }
                },
            );
        Self {
            bits,
            n,
            k,
            lines,
            scales,
        }
    }

    /// Width of the outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Width of the inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(self.lines.as_slice()) + std::mem::size_of_val(self.scales.as_slice())
    }

    /// The scale of each output.
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    pub(super) fn bits(&self) -> Bits {
        self.bits
    }

    /// Number of groups of k.
    pub(super) fn groups(&self) -> usize {
        self.bits.groups(self.k)
    }

    /// Start of panel `index`, which has [`IntegerWeight::groups`] rows of 128 bytes.
    pub(super) fn panel(&self, index: usize) -> *const u8 {
        self.lines[index * 2 * self.groups()..].as_ptr().cast()
    }
}

/// Writes the bytes of one output to its column of a panel, plus `zero`.
fn pack_column(bytes: &[i8], zero: u8, column: usize, lines: &mut [ByteLine]) {
    for (group, bytes) in bytes.chunks(GROUP).enumerate() {
        let line = &mut lines[2 * group + column / 16].0;
        for (place, byte) in line[column % 16 * GROUP..].iter_mut().zip(bytes) {
            *place = (*byte as u8).wrapping_add(zero);
        }
    }
}

/// Sixteen folds: lane i is the fold of `f` over every sixteenth value from value i on, starting at
/// zero.
#[inline(always)]
fn by_lanes(values: &[f32], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, *value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, *value);
    }
    lanes
}

/// The largest magnitude; NaN is ignored.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let larger = |largest: f32, value: f32| {
        if value.abs() > largest {
            value.abs()
        } else {
            largest
        }
    };
    by_lanes(values, larger).into_iter().fold(0.0, f32::max)
}

/// 1.5 · 2^23: adding it to a float rounds the float to an integer, to even, and leaves the integer
/// in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// Writes `values / scale`, rounded, to `bytes` and returns the scale. The scale is NaN where a
/// value is not finite, so that every result shows it.
#[inline(always)]
fn quantize(values: &[f32], bytes: &mut [i8]) -> f32 {
    let largest = largest(values);
    let scale = largest / LARGEST;
    // A subnormal scale has no reciprocal; its row counts as zeros.
    let inverse = if scale >= f32::MIN_POSITIVE {
        LARGEST / largest
    } else {
        0.0
    };
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = (value * inverse + ROUND).to_bits() as i8;
    }
    let zeros = by_lanes(values, |sum, value| sum + value * 0.0);
    if zeros.iter().sum::<f32>() == 0.0 {
        scale
    } else {
        f32::NAN
    }
}

/// As [`quantize`], in 16 bits: two bytes per value.
#[inline(always)]
fn quantize_16(values: &[f32], bytes: &mut [i8]) -> f32 {
    let most = f32::from(i16::MAX);
    let largest = largest(values);
    let inverse = if largest >= f32::MIN_POSITIVE * most {
        1.0 / largest
    } else {
        0.0
    };
    // Squares of values up to 1 cannot overflow.
    let squares = by_lanes(values, |sum, value| {
        let value = value * inverse;
        sum + value * value
    });
    let norm = squares.iter().sum::<f32>().sqrt();
    let steps = inverse * (NORM / norm).min(most);
    let (pairs, _) = bytes.as_chunks_mut::<2>();
    for (pair, value) in pairs.iter_mut().zip(values) {
        let integer = (value * steps + ROUND).to_bits() as i16;
        *pair = integer.to_le_bytes().map(|byte| byte as i8);
    }
    if norm.is_finite() {
        largest * (norm / NORM).max(1.0 / most)
    } else {
        f32::NAN
    }
}

/// The order of the groups of quantised rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupOrder {
    /// Strip by strip, the groups of one k side by side: `[group][row of the strip]`.
    Strips,
    /// Row by row. Each row has room for whole steps of matrix tiles, of sixteen groups; groups
    /// beyond the last one are zero.
    Rows,
}

impl GroupOrder {
    /// Groups from one row to the next.
    pub(super) fn groups(self, bits: Bits, k: usize) -> usize {
        match self {
            GroupOrder::Strips => bits.groups(k),
            GroupOrder::Rows => bits.groups(k).next_multiple_of(LANES),
        }
    }
}

/// Rows of activations, quantised for one product.
#[derive(Debug, Default)]
pub(super) struct IntegerRows {
    /// In a [`GroupOrder`].
    pub groups: Vec<i32>,
    /// One scale per row.
    pub scales: Vec<f32>,
    /// The excess of every sum of a row: in 8 bits, 128 times the sum of the bytes of the row.
    pub offsets: Vec<i32>,
}

impl IntegerRows {
    /// Makes room for `m` rows of `groups`, and for the rows beyond them that matrix tiles read.
    pub(super) fn resize(&mut self, m: usize, groups: usize, order: GroupOrder) {
        let rows = match order {
            GroupOrder::Strips => m,
            GroupOrder::Rows => m.next_multiple_of(PANEL),
        };
        self.groups.resize(rows * groups, 0);
        self.scales.resize(m, 0.0);
        self.offsets.resize(m, 0);
    }
}

/// Rows to be quantised, and the place of the result.
pub(super) struct Strip<'a> {
    /// `(height, k)`.
    pub a: &'a [f32],
    pub groups: &'a mut [i32],
    pub scales: &'a mut [f32],
    pub offsets: &'a mut [i32],
}

/// Quantises one strip, in either order.
#[inline(always)]
pub(super) fn quantize_strip(
    bits: Bits,
    k: usize,
    order: GroupOrder,
    bytes: &mut Vec<i8>,
    strip: &mut Strip<'_>,
) {
    let per_row = order.groups(bits, k);
    let (row_step, step) = match order {
        GroupOrder::Strips => (1, strip.scales.len()),
        GroupOrder::Rows => (per_row, 1),
    };
    bytes.clear();
    bytes.resize(per_row * GROUP, 0);
    for (row, values) in strip.a.chunks_exact(k).enumerate() {
        let bytes_of_row = &mut bytes[..k * bits.bytes()];
        (strip.scales[row], strip.offsets[row]) = match bits {
            Bits::Eight => {
                let scale = quantize(values, bytes_of_row);
                let sum = bytes_of_row
                    .iter()
                    .map(|byte| i32::from(*byte))
                    .sum::<i32>();
                (scale, OFFSET * sum)
            }
            Bits::Sixteen => (quantize_16(values, bytes_of_row), 0),
        };
        let (groups, _) = bytes.as_chunks::<GROUP>();
        let targets = strip.groups[row * row_step..].iter_mut().step_by(step);
        for (target, group) in targets.zip(groups) {
            *target = i32::from_le_bytes(group.map(|byte| byte as u8));
        }
    }
}
