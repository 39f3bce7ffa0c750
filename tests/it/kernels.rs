//! The CPU kernels against plain f64 arithmetic on odd shapes, for every instruction set this
//! machine has, and their byte-exact invariances.
#![allow(clippy::print_stdout, reason = "a test says what it ran on")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attention;

use ankh3::kernels::cpu::Isa;
use ankh3::kernels::cpu::elementwise::{activate, gated, rms_norm};
use ankh3::kernels::cpu::gemm::{self, matmul, multiply, multiply_add};
use ankh3::kernels::cpu::layout::{interleaved, interleaved_width};
use ankh3::kernels::cpu::packed_weight::PackedWeight;
use ankh3::kernels::cpu::product::Left;
use ankh3::kernels::plan::{Activation, Precision};
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn isas() -> Vec<Isa> {
    let isas: Vec<_> = Isa::ALL
        .into_iter()
        .filter(|isa| isa.is_available())
        .collect();
    println!("instruction sets: {isas:?}");
    isas
}

/// Values between -1 and 1.
pub(crate) fn random(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Largest difference relative to the largest expected magnitude.
fn error(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
    got.iter()
        .zip(expected)
        .map(|(g, e)| (f64::from(*g) - e).abs())
        .fold(0.0, f64::max)
        / largest
}

fn pack(w: &[f32], n: usize, k: usize, precision: Precision) -> PackedWeight {
    PackedWeight::new(n, k, precision, |row, values| {
        values.copy_from_slice(&w[row * k..(row + 1) * k]);
    })
}

const SHAPES: [(usize, usize, usize); 13] = [
    (1, 1, 1),
    (1, 33, 5),
    (2, 32, 512),
    (3, 161, 513),
    (26, 70, 1031),
    (4, 31, 64),
    (5, 64, 31),
    (12, 96, 1025),
    (13, 97, 48),
    (119, 40, 17),
    (121, 130, 511),
    (250, 65, 530),
    (7, 300, 1537),
];

#[test]
fn matmul_equals_f64_on_odd_shapes() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (m, n, k) in SHAPES {
        let (a, w, r) = (
            random(&mut rng, m * k),
            random(&mut rng, n * k),
            random(&mut rng, m * n),
        );
        for precision in [Precision::F32, Precision::Bf16] {
            let weight = pack(&w, n, k, precision);
            for isa in isas() {
                let expected = product(&a, &w, (m, n, k), Rounding::of(isa, precision));
                let added: Vec<f64> = expected
                    .iter()
                    .zip(&r)
                    .map(|(e, r)| e + f64::from(*r))
                    .collect();
                let what = format!("{isa:?} {precision:?} {m}x{n}x{k}");
                let mut c = vec![f32::NAN; m * n];
                matmul(isa, &a, &weight, None, &mut c);
                assert!(error(&c, &expected) < 2e-6, "{what}");
                let columns: Vec<f32> = (0..k * m).map(|i| a[i % m * k + i / m]).collect();
                let mut same = vec![f32::NAN; m * n];
                multiply(isa, Left::Columns(&columns), &weight, None, &mut same);
                if isa == Isa::Amx && precision == Precision::Bf16 {
                    // Matrix tiles read A by rows only; vectors add in another order.
                    assert!(error(&same, &expected) < 2e-6, "{what}: A by columns");
                } else {
                    assert_eq!(c, same, "{what}: A by columns");
                }
                matmul(isa, &a, &weight, Some(&r), &mut c);
                assert!(error(&c, &added) < 2e-6, "{what} + residual");
                c.copy_from_slice(&r);
                multiply_add(isa, Left::Columns(&columns), &weight, &mut c);
                assert!(error(&c, &added) < 2e-6, "{what}, added to C");
            }
        }
    }
}

/// A gate applied panel by panel gives the same bytes as a product followed by a gate, and a row
/// does not depend on the other rows.
#[test]
fn gated_products_are_products_and_then_a_gate() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for (m, d_ff, k) in SHAPES {
        let (a, w) = (random(&mut rng, m * k), random(&mut rng, 2 * d_ff * k));
        for precision in [Precision::F32, Precision::Bf16] {
            let stacked = pack(&w, 2 * d_ff, k, precision);
            let weight = PackedWeight::new(interleaved_width(d_ff), k, precision, |row, values| {
                let (part, row) = interleaved(row);
                if row < d_ff {
                    values.copy_from_slice(&w[(part * d_ff + row) * k..][..k]);
                } else {
                    values.fill(0.0);
                }
            });
            for isa in isas() {
                let what = format!("{isa:?} {precision:?} {m}x{d_ff}x{k}");
                for activation in [Activation::GeluNew, Activation::Silu, Activation::Relu] {
                    let mut wide = vec![f32::NAN; m * 2 * d_ff];
                    matmul(isa, &a, &stacked, None, &mut wide);
                    let mut expected = vec![f32::NAN; m * d_ff];
                    gated(isa, activation, &wide, d_ff, &mut expected);
                    let got = gemm::gated(isa, &a, &weight, d_ff, activation);
                    assert_eq!(got, expected, "{what}");
                    let last = gemm::gated(isa, &a[(m - 1) * k..], &weight, d_ff, activation);
                    assert_eq!(
                        last,
                        expected[(m - 1) * d_ff..],
                        "{what}, the last row alone"
                    );
                }
            }
        }
    }
}

/// Old values in reused memory leave no trace.
#[test]
fn packing_again_is_packing() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for precision in [Precision::F32, Precision::Bf16] {
        let (mut rows, mut columns) = (
            PackedWeight::empty(precision),
            PackedWeight::empty(precision),
        );
        for (_, n, k) in SHAPES.into_iter().rev().chain(SHAPES) {
            let (a, w) = (random(&mut rng, 2 * k), random(&mut rng, n * k));
            let transposed: Vec<f32> = (0..k * n).map(|i| w[i % n * k + i / n]).collect();
            rows.pack(n, k, |row, values| {
                values.copy_from_slice(&w[row * k..][..k]);
            });
            columns.pack_transposed(n, k, |row| &transposed[row * n..][..n]);
            let new = pack(&w, n, k, precision);
            let product = |weight: &PackedWeight| {
                let mut c = vec![f32::NAN; 2 * n];
                matmul(Isa::current(), &a, weight, None, &mut c);
                c
            };
            let what = format!("{precision:?} {n}x{k}");
            assert_eq!(product(&rows), product(&new), "{what}");
            assert_eq!(product(&columns), product(&new), "{what}, transposed");
        }
    }
}

/// The operands of a product that are rounded to bf16 before the multiplication.
#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    Neither,
    Weights,
    Both,
}

impl Rounding {
    fn of(isa: Isa, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Rounding::Neither,
            Precision::Bf16 if isa.rounds_activations() => Rounding::Both,
            Precision::Bf16 => Rounding::Weights,
        }
    }
}

/// `a (m, k) · wᵀ`, `w (n, k)`, in f64.
fn product(a: &[f32], w: &[f32], (m, n, k): (usize, usize, usize), rounding: Rounding) -> Vec<f64> {
    let round = |values: &[f32], rounds: bool| -> Vec<f64> {
        let round = |v: &f32| {
            f64::from(if rounds {
                bf16::from_f32(*v).to_f32()
            } else {
                *v
            })
        };
        values.iter().map(round).collect()
    };
    let a = round(a, rounding == Rounding::Both);
    let w = round(w, rounding != Rounding::Neither);
    (0..m * n)
        .map(|i| {
            let (a, w) = (&a[i / n * k..][..k], &w[i % n * k..][..k]);
            a.iter().zip(w).map(|(a, w)| a * w).sum()
        })
        .collect()
}

#[test]
fn a_row_of_a_product_does_not_depend_on_the_other_rows_or_threads() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (m, n, k) = (250, 200, 1100);
    let (a, w) = (random(&mut rng, m * k), random(&mut rng, n * k));
    for precision in [Precision::F32, Precision::Bf16] {
        let weight = pack(&w, n, k, precision);
        for isa in isas() {
            let mut whole = vec![0.0; m * n];
            matmul(isa, &a, &weight, None, &mut whole);
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                for (first, rows) in [(0, 1), (17, 2), (17, 12), (100, 137), (249, 1)] {
                    let mut part = vec![0.0; rows * n];
                    let a = &a[first * k..(first + rows) * k];
                    pool.install(|| matmul(isa, a, &weight, None, &mut part));
                    let same = part
                        .iter()
                        .zip(&whole[first * n..])
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(
                        same,
                        "{isa:?} {precision:?} rows {first}+{rows} on {threads} threads"
                    );
                }
            }
        }
    }
}

#[test]
fn norms_and_activations_equal_f64() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for isa in isas() {
        for width in [1, 15, 16, 17, 48, 1000] {
            let rows = 5;
            let x: Vec<f32> = random(&mut rng, rows * width)
                .iter()
                .map(|v| v * 20.0)
                .collect();
            let w = random(&mut rng, width);
            let mut out = vec![f32::NAN; x.len()];
            rms_norm(isa, &x, &w, 1e-6, &mut out);
            let expected: Vec<f64> = (0..x.len())
                .map(|i| {
                    let row = &x[i / width * width..][..width];
                    let mean =
                        row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
                    f64::from(x[i]) / (mean + 1e-6).sqrt() * f64::from(w[i % width])
                })
                .collect();
            assert!(error(&out, &expected) < 1e-6, "{isa:?} rms_norm {width}");
            for activation in [Activation::Relu, Activation::GeluNew, Activation::Silu] {
                let f = |x: f64| match activation {
                    Activation::Relu => x.max(0.0),
                    Activation::GeluNew => {
                        0.5 * x
                            * (1.0
                                + ((2.0 / std::f64::consts::PI).sqrt()
                                    * (x + 0.044_715 * x.powi(3)))
                                .tanh())
                    }
                    Activation::Silu => x / (1.0 + (-x).exp()),
                };
                let expected: Vec<f64> = x.iter().map(|v| f(f64::from(*v))).collect();
                activate(isa, activation, &x, &mut out);
                assert!(
                    error(&out, &expected) < 1e-6,
                    "{isa:?} {activation:?} {width}"
                );
                let wide: Vec<f32> = random(&mut rng, rows * 2 * width)
                    .iter()
                    .map(|v| v * 9.0)
                    .collect();
                let mut gated_out = vec![f32::NAN; rows * width];
                gated(isa, activation, &wide, width, &mut gated_out);
                let expected: Vec<f64> = (0..rows * width)
                    .map(|i| {
                        let row = &wide[i / width * 2 * width..];
                        f(f64::from(row[i % width])) * f64::from(row[width + i % width])
                    })
                    .collect();
                assert!(
                    error(&gated_out, &expected) < 1e-6,
                    "{isa:?} gated {activation:?} {width}"
                );
            }
        }
    }
}

#[test]
fn activations_keep_nan_and_infinity_visible() {
    for isa in isas() {
        let x = [f32::NAN, f32::INFINITY, 200.0, -200.0];
        let mut out = [0.0; 4];
        activate(isa, Activation::Silu, &x, &mut out);
        assert!(out[0].is_nan(), "{isa:?}");
        assert_eq!(out[1..3], [f32::INFINITY, 200.0], "{isa:?}");
        assert!(out[3].abs() < 1e-30, "{isa:?}");
    }
}
