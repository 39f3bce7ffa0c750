//! Weights and activations as integers: a weight matrix `(n, k)` with one scale an output, and rows of activations with one scale a row, quantised at the time
//! they are used. Of one panel of 32 outputs, the four bytes that one instruction multiplies of each output lie side by side.
//!
//! **8 bits**, what `--weights int8` is: `w = scale · q` with q in −127..127 and scale = max |w| / 127, rounded to even. A column of q never needs −128, so
//! negation and sums are safe. Weights are stored as q + 128: the dot-product instructions take one unsigned operand, and 128 times the sum of a row's bytes is
//! taken off again, exactly.
//!
//! **16 bits**, for outputs of a bf16 model whose inputs must not be rounded to bf16: scale = max(‖w‖ / 46000, max |w| / 32767), with which, by Cauchy and
//! Schwarz, no sum of products overflows 32 bits, nor any part of one. A value is off by half a step at most, so a row by √k / 2 steps;
//! on random rows a product of both loses less than a quarter of what rounding one operand to bf16 loses (tests/it/int8.rs).

use rayon::prelude::*;

use super::huge_pages;
use super::packed_weight::PANEL;
use super::simd::LANES;

/// Bytes that one instruction multiplies of each output.
const GROUP: usize = 4;
/// What makes a signed weight unsigned.
const OFFSET: i32 = 128;
/// The largest quantised magnitude in 8 bits.
const LARGEST: f32 = 127.0;
/// Longest sum that cannot overflow: in 8 bits each product is at most 127 · 255.
pub const MAX_K: usize = i32::MAX as usize / (127 * 255);
/// The largest norm of a row in 16 bits: its square, with what rounding adds to it up to [`MAX_K`], is below 2³¹.
const NORM: f32 = 46_000.0;

/// How many bits an integer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// Four values of k in a group.
    Eight,
    /// Two.
    Sixteen,
}

impl Bits {
    /// Groups of `k` values.
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
struct Line([u8; 64]);

/// A weight matrix `(n, k)` in integers; immutable.
pub struct IntegerWeight {
    bits: Bits,
    n: usize,
    k: usize,
    lines: Vec<Line>,
    scales: Vec<f32>,
}

impl std::fmt::Debug for IntegerWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IntegerWeight({} x {}, {:?})", self.n, self.k, self.bits)
    }
}

impl IntegerWeight {
    /// Quantises `n` rows of `k` values; `fill(row, values)` writes row `row`. Rows are asked for in parallel.
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
        lines.resize(len, Line([zero; 64]));
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

    /// Of each integer.
    pub(super) fn bits(&self) -> Bits {
        self.bits
    }

    /// Groups of k.
    pub(super) fn groups(&self) -> usize {
        self.bits.groups(self.k)
    }

    /// Where panel `index` begins: [`IntegerWeight::groups`] times 128 bytes.
    pub(super) fn panel(&self, index: usize) -> *const u8 {
        self.lines[index * 2 * self.groups()..].as_ptr().cast()
    }
}

/// Bytes of an output to its place in a panel, moved by `zero`.
fn pack_column(bytes: &[i8], zero: u8, column: usize, lines: &mut [Line]) {
    for (group, bytes) in bytes.chunks(GROUP).enumerate() {
        let line = &mut lines[2 * group + column / 16].0;
        for (place, byte) in line[column % 16 * GROUP..].iter_mut().zip(bytes) {
            *place = (*byte as u8).wrapping_add(zero);
        }
    }
}

/// `f(what came before, value)` over every sixteenth value, from zero on.
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

/// The largest magnitude, of those that are numbers.
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

/// Adding it rounds to an integer, to even, and leaves that in the lowest bits: 1.5 · 2^23.
const ROUND: f32 = 12_582_912.0;

/// Writes `values / scale`, rounded, to `bytes` and returns the scale: NaN where a value is not finite, so that no result hides it.
#[inline(always)]
fn quantize(values: &[f32], bytes: &mut [i8]) -> f32 {
    let largest = largest(values);
    let scale = largest / LARGEST;
    // Subnormal scales have no reciprocal: such a row counts as zeros.
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

/// As [`quantize`], in 16 bits of two bytes.
#[inline(always)]
fn quantize_16(values: &[f32], bytes: &mut [i8]) -> f32 {
    let most = f32::from(i16::MAX);
    let largest = largest(values);
    let inverse = if largest >= f32::MIN_POSITIVE * most {
        1.0 / largest
    } else {
        0.0
    };
    // Squares of values up to 1 overflow nothing.
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

/// How the groups of quantised rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Those of one k side by side: strip by strip, `[group][row of the strip]`.
    Strips,
    /// Row by row, each with room for whole steps of matrix tiles, sixteen groups; what is behind the last one is zero.
    Rows,
}

impl Order {
    /// Groups from a row to the next.
    pub(super) fn groups(self, bits: Bits, k: usize) -> usize {
        match self {
            Order::Strips => bits.groups(k),
            Order::Rows => bits.groups(k).next_multiple_of(LANES),
        }
    }
}

/// Rows of activations, quantised for one product.
#[derive(Debug, Default)]
pub(super) struct IntegerRows {
    /// As [`Order`] says.
    pub groups: Vec<i32>,
    /// Of each row.
    pub scales: Vec<f32>,
    /// What a sum of the row has too much: in 8 bits 128 times the sum of its bytes.
    pub offsets: Vec<i32>,
}

impl IntegerRows {
    /// Room for `m` rows of `groups`, and as many more as tiles read beyond them.
    pub(super) fn resize(&mut self, m: usize, groups: usize, order: Order) {
        let rows = match order {
            Order::Strips => m,
            Order::Rows => m.next_multiple_of(PANEL),
        };
        self.groups.resize(rows * groups, 0);
        self.scales.resize(m, 0.0);
        self.offsets.resize(m, 0);
    }
}

/// Some rows on their way to integers.
pub(super) struct Strip<'a> {
    /// `(height, k)`.
    pub a: &'a [f32],
    pub groups: &'a mut [i32],
    pub scales: &'a mut [f32],
    pub offsets: &'a mut [i32],
}

/// Quantises one strip, in its own order or the rows'.
#[inline(always)]
pub(super) fn quantize_strip(
    bits: Bits,
    k: usize,
    order: Order,
    bytes: &mut Vec<i8>,
    strip: &mut Strip<'_>,
) {
    let per_row = order.groups(bits, k);
    let (row_step, step) = match order {
        Order::Strips => (1, strip.scales.len()),
        Order::Rows => (per_row, 1),
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
