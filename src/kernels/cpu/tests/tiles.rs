//! Matrix tiles in plain Rust: they test the code around tiles on machines without AMX.

use std::io::Write;

use super::{
    FloatProduct, Left, PANEL, PackedWeight, Precision, ProductOutput, ProductTask, SharedMut,
    gated, gated_weight, values,
};
use crate::kernels::cpu::amx::{self, SIDE, STEP, TileBlock, TileUnit};
use crate::kernels::cpu::dot_bf16;
use crate::kernels::cpu::integer_lanes::Portable8;
use crate::kernels::cpu::integer_product::{self, IntegerProduct, run_in_tiles};
use crate::kernels::cpu::integer_quantizer::Quantizer;
use crate::kernels::cpu::integer_weight::{Bits, GroupOrder, IntegerRows, IntegerWeight};
use crate::kernels::cpu::{IntegerIsa, Isa};

fn say(what: &str) {
    writeln!(std::io::stderr(), "{what}").expect("stderr is open");
}

struct Plain;

/// Replaces the sum of every row and column of a block by `sum(sum, groups of A, groups of B)`,
/// step by step.
unsafe fn multiply(block: &TileBlock, sum: impl Fn(u32, &[u32], &[u32]) -> u32) {
    for row in 0..SIDE {
        for column in 0..SIDE {
            // SAFETY: the pointers of the block are valid.
            unsafe {
                let from = block.from.start.wrapping_byte_add(row * block.from.stride);
                let mut value = *from.add(column);
                for step in 0..block.steps {
                    let a = block
                        .a
                        .start
                        .byte_add(row * block.a.stride)
                        .add(step * STEP);
                    let b = block.b.add(step * STEP * SIDE + column);
                    let a: Vec<u32> = (0..STEP).map(|i| *a.add(i)).collect();
                    let b: Vec<u32> = (0..STEP).map(|i| *b.add(i * SIDE)).collect();
                    value = sum(value, &a, &b);
                }
                *block.to.start.byte_add(row * block.to.stride).add(column) = value;
            }
        }
    }
}

// SAFETY: plain Rust; blocks are the caller's promise.
unsafe impl TileUnit for Plain {
    unsafe fn begin() {}
    unsafe fn end() {}
    unsafe fn multiply_bf16(block: &TileBlock) {
        let half = |bits: u32, odd: usize| f32::from_bits(bits >> (16 * odd) << 16);
        let sum = |sum: u32, a: &[u32], b: &[u32]| {
            let of = |odd| {
                let products = a.iter().zip(b).map(|(a, b)| half(*a, odd) * half(*b, odd));
                products.sum::<f32>()
            };
            (f32::from_bits(sum) + (of(0) + of(1))).to_bits()
        };
        // SAFETY: passed on from the caller.
        unsafe { multiply(block, sum) };
    }
    unsafe fn multiply_int8(block: &TileBlock) {
        let sum = |sum: u32, a: &[u32], b: &[u32]| {
            let products = a.iter().zip(b).map(|(a, b)| {
                let bytes = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
                bytes
                    .map(|(a, b)| i32::from(a as i8) * i32::from(b))
                    .sum::<i32>()
            });
            (sum as i32 + products.sum::<i32>()) as u32
        };
        // SAFETY: passed on from the caller.
        unsafe { multiply(block, sum) };
    }
}

/// A unit that multiplies bytes as if they were bf16.
struct Faulty;

// SAFETY: as `Plain`.
unsafe impl TileUnit for Faulty {
    unsafe fn begin() {}
    unsafe fn end() {}
    unsafe fn multiply_bf16(block: &TileBlock) {
        // SAFETY: passed on from the caller.
        unsafe { Plain::multiply_bf16(block) };
    }
    unsafe fn multiply_int8(block: &TileBlock) {
        // SAFETY: passed on from the caller.
        unsafe { Plain::multiply_bf16(block) };
    }
}

#[test]
fn plain_tiles_and_those_of_the_machine_multiply_as_the_manual_says() {
    // SAFETY: plain Rust.
    let (plain, faulty) = unsafe { (amx::multiplies::<Plain>(), amx::multiplies::<Faulty>()) };
    assert!(plain && !faulty);
    if !Isa::Amx.is_available() {
        say("no AMX here: its own tiles were not tried");
    }
}

#[test]
fn products_of_bytes_in_tiles_are_exact() {
    for (m, n, k) in [
        (1, 1, 1),
        (3, 33, 70),
        (32, 32, 64),
        (40, 50, 129),
        (65, 64, 512),
    ] {
        let (a, w, residual) = (values(m * k, 2), values(n * k, 1), values(m * n, 3));
        let weight = IntegerWeight::new(Bits::Eight, n, k, |row, target| {
            target.copy_from_slice(&w[row * k..][..k]);
        });
        for residual in [None, Some(&residual[..])] {
            let mut expected = vec![0.0; m * n];
            integer_product::matmul(IntegerIsa::Portable, &a, &weight, residual, &mut expected);
            // Beyond the rows, where tiles read too, lie old numbers.
            let mut rows = IntegerRows {
                groups: vec![-1; 1 << 16],
                ..Default::default()
            };
            let quantizer = Quantizer {
                isa: IntegerIsa::Portable,
                bits: Bits::Eight,
                k,
                order: GroupOrder::Rows,
                threads: 1,
            };
            quantizer.quantize(&a, m, &mut rows);
            let mut c = vec![f32::NAN; m * n];
            let product = IntegerProduct {
                rows: &rows,
                weight: &weight,
                residual,
                output: ProductOutput::plain(SharedMut(c.as_mut_ptr()), n),
                m,
            };
            let task = ProductTask::plain(0..m, 0..n.div_ceil(PANEL));
            // SAFETY: plain Rust; the shapes are those of the product.
            unsafe { run_in_tiles::<Portable8, Plain>(&product, &task) };
            assert_eq!(c, expected, "{m} x {n} x {k}");
        }
    }
}

#[test]
fn products_in_tiles_equal_those_in_vectors() {
    if !Isa::Avx512Bf16.is_available() {
        say("no AVX512-BF16 here: what surrounds the tiles was not tried");
        return;
    }
    for (m, n, k) in [
        (1, 1, 1),
        (1, 33, 2),
        (3, 129, 33),
        (32, 32, 32),
        (33, 31, 64),
        (128, 64, 100),
        (70, 40, 1539),
        (128, 33, 3072),
    ] {
        let (a, w, residual) = (values(m * k, 2), values(n * k, 1), values(m * n, 3));
        let mut weight = PackedWeight::laid_out(Precision::Bf16, false);
        weight.pack(n, k, |row, target| {
            target.copy_from_slice(&w[row * k..][..k]);
        });
        for (adds, residual) in [(false, None), (true, Some(&residual[..]))] {
            let run = |rows: std::ops::Range<usize>, in_tiles: bool| {
                // Zeros or not, a product that does not add must not read them.
                let mut c = if adds {
                    values(m * n, 9)
                } else {
                    vec![f32::NAN; m * n]
                };
                let product = FloatProduct {
                    a: Left::Rows(&a),
                    weight: &weight,
                    residual,
                    adds,
                    output: ProductOutput::plain(SharedMut(c.as_mut_ptr()), n),
                    m,
                };
                let panels = 0..n.div_ceil(PANEL);
                // SAFETY: the CPU has AVX512-BF16; the shapes are those of the product.
                unsafe {
                    if in_tiles {
                        let task = ProductTask::plain(rows, panels);
                        dot_bf16::tiles::run_in_tiles::<Plain>(&product, &a, &task);
                    } else {
                        for first in rows.clone().step_by(12) {
                            let strip = first..(first + 12).min(rows.end);
                            dot_bf16::run(&product, &ProductTask::plain(strip, panels.clone()));
                        }
                    }
                }
                c
            };
            let (tiles, vectors) = (run(0..m, true), run(0..m, false));
            let bound = 1e-6 * (k as f32).sqrt().max(1.0) * 4.0;
            for (i, (tile, vector)) in tiles.iter().zip(&vectors).enumerate() {
                let far = (tile - vector).abs();
                assert!(far <= bound, "{m} x {n} x {k}, {i}: {tile} and {vector}");
            }
            // The same holds for a gated block.
            if n % PANEL == 0 && k > 1 {
                let (w, d_ff) = (values(2 * n * k, 1), n);
                let weight = PackedWeight::laid_out(Precision::Bf16, false);
                let weight = gated_weight(&w, d_ff, k, weight);
                // SAFETY: the CPU has AVX512-BF16; the shapes are those of the product.
                let tiles = gated(m, d_ff, &a, &weight, |product, task| unsafe {
                    dot_bf16::tiles::run_in_tiles::<Plain>(product, &a, task);
                });
                // SAFETY: as above.
                let vectors = gated(m, d_ff, &a, &weight, |product, task| unsafe {
                    dot_bf16::run(product, task);
                });
                for (tile, vector) in tiles.iter().zip(&vectors) {
                    let far = (tile - vector).abs();
                    assert!(
                        far <= bound * k as f32,
                        "{m} x {d_ff} x {k}: {tile} {vector}"
                    );
                }
            }
            // A row does not depend on the other rows.
            let last = run(m - 1..m, true);
            assert_eq!(last[(m - 1) * n..], tiles[(m - 1) * n..], "{m} x {n} x {k}");
            if !adds {
                assert!(last[..(m - 1) * n].iter().all(|value| value.is_nan()));
            }
        }
    }
}
