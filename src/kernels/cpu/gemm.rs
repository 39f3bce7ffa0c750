//! `C = A · Wᵀ (+ R)` with `W` repacked once at load: the matrix product of every linear layer.
//!
//! The product is cut into tasks, and each task is multiplied by the instructions that
//! `FloatProduct::unit` chooses: multiply-adds of f32 (`dot_f32`), or dot products of
//! bf16 in vectors or in matrix tiles (`dot_bf16`).
//!
//! **Batch-invariant to the byte**: every element of C is one chain of multiply-adds in the order
//! of k, whatever the number of rows, the tile that holds it and the number of threads.
#![expect(
    unsafe_code,
    reason = "instruction sets that a run-time check has found, and results that every task writes"
)]

#[cfg(target_arch = "x86_64")]
use super::amx::Tiles;
#[cfg(target_arch = "x86_64")]
use super::dot_bf16;
use super::isa::Isa;
use super::layout::PANEL;
use super::output::{OutputGate, ProductOutput, ProductTask, TaskGrid, written};
use super::packed_weight::PackedWeight;
use super::product::{FloatProduct, Left, ROW_BLOCK, Unit};
use super::shared::SharedMut;
use crate::kernels::plan::Activation;

/// Below this many multiply-adds a product is not worth a second thread.
const SERIAL_WORK: usize = 1 << 16;

/// `a (m, k) · weightᵀ`, plus `residual (m, n)` where given: `(m, n)`. All row-major and
/// contiguous.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn product(isa: Isa, a: &[f32], weight: &PackedWeight, residual: Option<&[f32]>) -> Vec<f32> {
    let (m, n) = (a.len() / weight.k().max(1), weight.n());
    let write = |c| {
        let product = FloatProduct {
            a: Left::Rows(a),
            weight,
            residual,
            adds: false,
            output: ProductOutput::plain(c, n),
            m,
        };
        start(&product, isa);
    };
    // SAFETY: a product writes every result.
    unsafe { written(m * n, write) }
}

/// `activation(a · gatesᵀ) · (a · upᵀ)`: `(m, d_ff)`, of one weight that holds both layers
/// [`interleaved`](super::layout::interleaved).
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
        let product = FloatProduct {
            a: Left::Rows(a),
            weight,
            residual: None,
            adds: false,
            output: ProductOutput::gated(c, d_ff, weight.n(), OutputGate { activation, isa }),
            m,
        };
        start(&product, isa);
    };
    // SAFETY: as above.
    unsafe { written(m * d_ff, write) }
}

/// `c (m, n) = a (m, k) · weightᵀ`, plus `residual (m, n)` where given. All row-major and
/// contiguous.
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
    start(&replace_or_add(a, weight, residual, false, c), isa);
}

/// `c (m, n) += a (m, k) · weightᵀ`: the chain of multiply-adds begins at the value of `c`.
///
/// # Panics
/// If a slice's length does not fit the shapes.
pub fn multiply_add(isa: Isa, a: Left<'_>, weight: &PackedWeight, c: &mut [f32]) {
    start(&replace_or_add(a, weight, None, true, c), isa);
}

fn replace_or_add<'a>(
    a: Left<'a>,
    weight: &'a PackedWeight,
    residual: Option<&'a [f32]>,
    adds: bool,
    c: &mut [f32],
) -> FloatProduct<'a> {
    let m = c.len().checked_div(weight.n()).unwrap_or(0);
    assert_eq!(c.len(), m * weight.n(), "the result must have whole rows");
    FloatProduct {
        a,
        weight,
        residual,
        adds,
        output: ProductOutput::plain(SharedMut(c.as_mut_ptr()), weight.n()),
        m,
    }
}

/// Writes every result of `product`. Values of C are read only if the product adds to them.
fn start(product: &FloatProduct<'_>, isa: Isa) {
    let (m, n, k) = (product.m, product.weight.n(), product.weight.k());
    if n == 0 || m == 0 {
        return;
    }
    let (Left::Rows(values) | Left::Columns(values)) = product.a;
    assert_eq!(values.len(), m * k, "A must be (rows of C, k)");
    assert!(
        product.residual.is_none_or(|r| r.len() == m * n),
        "the residual must have C's shape"
    );
    let unit = product.unit(isa);
    let threads = rayon::current_num_threads();
    let groups = |row_blocks: usize| {
        if threads == 1 || m * n * k < SERIAL_WORK {
            1
        } else {
            (8 * threads).div_ceil(row_blocks)
        }
    };
    let grid = TaskGrid {
        rows: m,
        rows_per_task: rows_per_task(unit),
        panels: n.div_ceil(PANEL),
    };
    product.output.for_each_task(&grid, groups, |task| {
        run(product, unit, isa, task);
    });
}

/// Rows of A in one task.
fn rows_per_task(unit: Unit) -> usize {
    match unit {
        #[cfg(target_arch = "x86_64")]
        Unit::Tiles => dot_bf16::tiles::TILED_ROWS,
        _ => ROW_BLOCK,
    }
}

/// Writes the results of one task.
fn run(product: &FloatProduct<'_>, unit: Unit, isa: Isa, task: &ProductTask) {
    match (unit, product.a) {
        // SAFETY: `isa`, which has these instructions, is available (Isa::from_env checks); tasks
        // have results of their own.
        #[cfg(target_arch = "x86_64")]
        (Unit::Tiles, Left::Rows(a)) => unsafe {
            dot_bf16::tiles::run_in_tiles::<Tiles>(product, a, task);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Unit::Tiles | Unit::Pairs, _) => unsafe { dot_bf16::run(product, task) },
        _ => product.for_each_block(task, |block| block.run(isa)),
    }
}
