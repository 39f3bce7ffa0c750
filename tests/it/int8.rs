//! Products in 8-bit and 16-bit integers: against exact arithmetic on odd shapes, and the same
//! bytes on every instruction set, in any batch.
#![allow(clippy::print_stdout, reason = "a test says what it ran on")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ankh3::kernels::cpu::elementwise;
use ankh3::kernels::cpu::integer_product::{gated, matmul};
use ankh3::kernels::cpu::integer_weight::{Bits, IntegerWeight};
use ankh3::kernels::cpu::layout::{interleaved, interleaved_width};
use ankh3::kernels::cpu::{IntegerIsa, Isa};
use ankh3::kernels::plan::Activation;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::kernels::random;

fn isas() -> Vec<IntegerIsa> {
    let isas: Vec<_> = IntegerIsa::ALL
        .into_iter()
        .filter(|isa| isa.is_available())
        .collect();
    println!("instruction sets: {isas:?}");
    isas
}

fn pack(w: &[f32], n: usize, k: usize) -> IntegerWeight {
    pack_in(Bits::Eight, w, n, k)
}

fn pack_in(bits: Bits, w: &[f32], n: usize, k: usize) -> IntegerWeight {
    IntegerWeight::new(bits, n, k, |row, values| {
        values.copy_from_slice(&w[row * k..(row + 1) * k]);
    })
}

/// The scale and the integers of a row, by definition: max |v| / 127, to the nearest, ties to even.
fn quantized(row: &[f32]) -> (f32, Vec<i64>) {
    let largest = row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let integer = |v: &f32| (v * inverse).round_ties_even() as i64;
    (largest / 127.0, row.iter().map(integer).collect())
}

/// The expected product, by definition, with sums in 64 bits.
fn expected(a: &[f32], w: &[f32], r: Option<&[f32]>, n: usize, k: usize) -> Vec<f32> {
    let rows: Vec<_> = a.chunks_exact(k).map(quantized).collect();
    let columns: Vec<_> = w.chunks_exact(k).map(quantized).collect();
    let mut out = Vec::new();
    for (row_scale, row) in &rows {
        for (scale, column) in &columns {
            let sum: i64 = row.iter().zip(column).map(|(a, w)| a * w).sum();
            let mut value = sum as f32 * (row_scale * scale);
            if let Some(r) = r {
                value += r[out.len()];
            }
            out.push(value);
        }
    }
    assert_eq!(out.len(), rows.len() * n);
    out
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

const SHAPES: [(usize, usize, usize); 14] = [
    (1, 1, 1),
    (1, 33, 5),
    (1, 300, 64),
    (2, 32, 512),
    (2, 290, 3),
    (3, 161, 513),
    (4, 31, 64),
    (5, 64, 31),
    (12, 96, 1025),
    (13, 97, 48),
    (119, 40, 17),
    (241, 130, 511),
    (250, 65, 530),
    (7, 300, 1537),
];

#[test]
fn products_are_those_of_the_integers_on_every_instruction_set() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (m, n, k) in SHAPES {
        let (a, w, r) = (
            random(&mut rng, m * k),
            random(&mut rng, n * k),
            random(&mut rng, m * n),
        );
        let weight = pack(&w, n, k);
        for residual in [None, Some(&r[..])] {
            let expected = expected(&a, &w, residual, n, k);
            for isa in isas() {
                let mut got = vec![f32::NAN; m * n];
                matmul(isa, &a, &weight, residual, &mut got);
                assert!(same(&got, &expected), "{isa:?} {m}x{n}x{k}");
            }
        }
    }
}

fn norm(values: &[f32]) -> f64 {
    let squares = values.iter().map(|v| f64::from(*v) * f64::from(*v));
    squares.sum::<f64>().sqrt()
}

/// The error of every value of either operand is at most half a step.
#[test]
fn sixteen_bits_are_as_close_as_their_steps_on_every_instruction_set() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for (m, n, k) in SHAPES {
        let (a, w, r) = (
            random(&mut rng, m * k),
            random(&mut rng, n * k),
            random(&mut rng, m * n),
        );
        let weight = pack_in(Bits::Sixteen, &w, n, k);
        let mut first = vec![f32::NAN; m * n];
        matmul(IntegerIsa::Portable, &a, &weight, Some(&r), &mut first);
        for isa in isas() {
            let mut got = vec![f32::NAN; m * n];
            matmul(isa, &a, &weight, Some(&r), &mut got);
            assert!(same(&got, &first), "{isa:?} {m}x{n}x{k}");
        }
        for (i, got) in first.iter().enumerate() {
            let (a, w) = (&a[i / n * k..][..k], &w[i % n * k..][..k]);
            let products = a.iter().zip(w).map(|(a, w)| f64::from(*a) * f64::from(*w));
            let far = (f64::from(*got) - products.sum::<f64>() - f64::from(r[i])).abs();
            let bound = norm(a) * norm(w) * ((k as f64).sqrt() / 46_000.0 + 1e-4);
            assert!(far <= bound + 1e-6, "{m}x{n}x{k}: {far} beyond {bound}");
        }
    }
}

/// 16-bit integers exist to be more exact than bf16.
#[test]
fn sixteen_bits_lose_far_less_than_bf16() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let (m, n, k) = (20, 64, 768);
    let a: Vec<f32> = random(&mut rng, m * k);
    let w: Vec<f32> = random(&mut rng, n * k)
        .iter()
        .map(|w| half::bf16::from_f32(*w).to_f32())
        .collect();
    let exact: Vec<f64> = (0..m * n)
        .map(|i| {
            let (a, w) = (&a[i / n * k..][..k], &w[i % n * k..][..k]);
            a.iter()
                .zip(w)
                .map(|(a, w)| f64::from(*a) * f64::from(*w))
                .sum()
        })
        .collect();
    let lost = |got: &[f32]| {
        let far = got
            .iter()
            .zip(&exact)
            .map(|(g, e)| (f64::from(*g) - e).powi(2));
        far.sum::<f64>().sqrt()
    };
    let mut got = vec![0.0; m * n];
    let weight = pack_in(Bits::Sixteen, &w, n, k);
    matmul(IntegerIsa::Portable, &a, &weight, None, &mut got);
    let in_integers = lost(&got);
    let rounded: Vec<f32> = a
        .iter()
        .map(|a| half::bf16::from_f32(*a).to_f32())
        .collect();
    let in_bf16: Vec<f32> = (0..m * n)
        .map(|i| {
            let (a, w) = (&rounded[i / n * k..][..k], &w[i % n * k..][..k]);
            a.iter().zip(w).map(|(a, w)| a * w).sum()
        })
        .collect();
    let in_bf16 = lost(&in_bf16);
    assert!(
        0.0 < in_integers && in_integers < in_bf16 / 4.0,
        "{in_integers}, {in_bf16}"
    );
}

/// A gate applied panel by panel gives the same bytes as a product followed by a gate.
#[test]
fn gated_products_are_products_and_then_a_gate() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for (m, d_ff, k) in SHAPES {
        let (a, w) = (random(&mut rng, m * k), random(&mut rng, 2 * d_ff * k));
        let stacked = pack(&w, 2 * d_ff, k);
        let weight = IntegerWeight::new(Bits::Eight, interleaved_width(d_ff), k, |row, values| {
            let (part, row) = interleaved(row);
            if row < d_ff {
                values.copy_from_slice(&w[(part * d_ff + row) * k..][..k]);
            } else {
                values.fill(0.0);
            }
        });
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut wide = vec![f32::NAN; m * 2 * d_ff];
            matmul(IntegerIsa::of(isa), &a, &stacked, None, &mut wide);
            let mut expected = vec![f32::NAN; m * d_ff];
            elementwise::gated(isa, Activation::Silu, &wide, d_ff, &mut expected);
            let got = gated(isa, &a, &weight, d_ff, Activation::Silu);
            assert_eq!(got, expected, "{isa:?} {m}x{d_ff}x{k}");
        }
    }
}

#[test]
fn the_largest_sums_fit() {
    let k = 60_000;
    for sign in [1.0, -1.0] {
        let (a, w) = (vec![sign; k], vec![1.0; k]);
        for isa in isas() {
            let mut got = [0.0];
            matmul(isa, &a, &pack(&w, 1, k), None, &mut got);
            assert!(
                (f64::from(got[0]) / (f64::from(sign) * k as f64) - 1.0).abs() < 1e-6,
                "{isa:?} {got:?}"
            );
        }
    }
}

/// Rows with the largest norms: many equal values, a single value, and values whose norm grows by
/// rounding.
#[test]
fn the_largest_sums_of_sixteen_bits_fit() {
    let k = 60_000;
    let rows = [
        vec![1.0; k],
        (0..k).map(|i| if i == 7 { 3.0 } else { 0.0 }).collect(),
        (0..k)
            .map(|i| if i % 9 == 0 { 1.51 } else { 1.0 })
            .collect(),
    ];
    for row in rows {
        let exact = norm(&row).powi(2);
        for sign in [1.0, -1.0] {
            let a: Vec<f32> = row.iter().map(|value| sign * value).collect();
            for isa in isas() {
                let mut got = [0.0];
                matmul(isa, &a, &pack_in(Bits::Sixteen, &row, 1, k), None, &mut got);
                let ratio = f64::from(got[0]) / (f64::from(sign) * exact);
                assert!((ratio - 1.0).abs() < 0.01, "{isa:?} {got:?}, not {exact}");
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_other_rows_or_threads() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (m, n, k) = (500, 200, 1100);
    let (a, w) = (random(&mut rng, m * k), random(&mut rng, n * k));
    let weights = [Bits::Eight, Bits::Sixteen].map(|bits| pack_in(bits, &w, n, k));
    for (isa, weight) in isas()
        .into_iter()
        .flat_map(|isa| weights.iter().map(move |w| (isa, w)))
    {
        let mut whole = vec![0.0; m * n];
        matmul(isa, &a, weight, None, &mut whole);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            for (first, rows) in [(0, 1), (17, 2), (17, 12), (100, 399), (499, 1)] {
                let mut part = vec![0.0; rows * n];
                let a = &a[first * k..(first + rows) * k];
                pool.install(|| matmul(isa, a, weight, None, &mut part));
                assert!(
                    same(&part, &whole[first * n..][..rows * n]),
                    "{isa:?} rows {first}+{rows} on {threads} threads"
                );
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_visible_and_zeros_are_zeros() {
    let (n, k) = (40, 37);
    let w = random(&mut ChaCha8Rng::seed_from_u64(3), n * k);
    let weights = [Bits::Eight, Bits::Sixteen].map(|bits| pack_in(bits, &w, n, k));
    for (isa, weight) in isas()
        .into_iter()
        .flat_map(|isa| weights.iter().map(move |w| (isa, w)))
    {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 15, 36] {
                let mut a = vec![0.5; 2 * k];
                a[place] = bad;
                let mut got = vec![0.0; 2 * n];
                matmul(isa, &a, weight, None, &mut got);
                assert!(
                    got[..n].iter().all(|v| v.is_nan()),
                    "{isa:?} {bad} at {place}"
                );
                assert!(got[n..].iter().all(|v| v.is_finite()), "{isa:?}");
            }
        }
        let mut got = vec![f32::NAN; n];
        matmul(isa, &vec![0.0; k], weight, None, &mut got);
        assert!(got.iter().all(|v| *v == 0.0), "{isa:?}");
        let mut got = vec![f32::NAN; n];
        matmul(isa, &vec![1e-44; k], weight, None, &mut got);
        assert!(got.iter().all(|v| v.abs() < 1e-40), "{isa:?}");
    }
}
