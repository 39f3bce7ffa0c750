//! Launches of `norm.cu`.

use super::launch::{Address, Element, Launch};

const THREADS: u32 = 256;
const SUMS: usize = THREADS as usize / 32 * 4;
/// Rows that one block of the weight's gradient sums.
const CHUNK: usize = 256;

/// `y = norm(x) · weight` of `rows` rows of `width`; `weight` is f32.
pub fn rms_norm(
    element: Element,
    [x, weight, y]: [Address; 3],
    rows: usize,
    width: usize,
    epsilon: f32,
) -> Launch {
    Launch::of("rms_norm", element, [rows, 1], [THREADS, 1])
        .shared(&[SUMS])
        .addresses([x, weight, y])
        .ints([width])
        .float(epsilon)
}

/// `sum = x + branch`, `y = norm(sum) · weight`: addresses of x, branch, weight, sum, y.
pub fn add_rms_norm(
    element: Element,
    addresses: [Address; 5],
    rows: usize,
    width: usize,
    epsilon: f32,
) -> Launch {
    Launch::of("add_rms_norm", element, [rows, 1], [THREADS, 1])
        .shared(&[SUMS])
        .addresses(addresses)
        .ints([width])
        .float(epsilon)
}

/// Addresses that the backward pass reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct NormGradients {
    /// The input `(rows, width)`.
    pub x: Address,
    /// The weight `(width)`, f32.
    pub weight: Address,
    /// Gradient of the result.
    pub grad: Address,
    /// Gradient of the input.
    pub dx: Address,
    /// Working memory of `rows` f32.
    pub roots: Address,
    /// Working memory of `chunks(rows) · width` f32.
    pub partial: Address,
    /// Gradient of the weight, f32.
    pub dw: Address,
}

/// Number of partial sums of the weight's gradient.
pub fn chunks(rows: usize) -> usize {
    rows.div_ceil(CHUNK)
}

/// The launches of the gradients of input and weight.
pub fn backward(
    element: Element,
    b: &NormGradients,
    rows: usize,
    width: usize,
    epsilon: f32,
) -> [Launch; 3] {
    [
        Launch::of("rms_norm_backward", element, [rows, 1], [THREADS, 1])
            .shared(&[SUMS])
            .addresses([b.x, b.weight, b.grad, b.dx, b.roots])
            .ints([width])
            .float(epsilon),
        Launch::of(
            "rms_norm_weight",
            element,
            [width.div_ceil(32), chunks(rows)],
            [32, 8],
        )
        .shared(&[8 * 32 * 4])
        .addresses([b.x, b.grad, b.roots, b.partial])
        .ints([rows, width, CHUNK]),
        sum_parts(b.partial, b.dw, width, chunks(rows)),
    ]
}

/// The sum of `number` arrays of `count` f32 that lie one after the other.
pub fn sum_parts(parts: Address, sum: Address, count: usize, number: usize) -> Launch {
    Launch::new("sum_parts", [count.div_ceil(256), 1], [256, 1])
        .addresses([parts, sum])
        .ints([count, number])
}
