//! Every kernel of the CPU against its definition in f64, on every instruction set that this CPU
//! has.

use super::{Check, plain, random, wide};
use crate::kernels::cpu::attend::attend;
use crate::kernels::cpu::attention::{Attention, Heads};
use crate::kernels::cpu::elementwise::{gated, rms_norm};
use crate::kernels::cpu::gemm::matmul;
use crate::kernels::cpu::integer_product;
use crate::kernels::cpu::integer_weight::{Bits, IntegerWeight};
use crate::kernels::cpu::packed_weight::PackedWeight;
use crate::kernels::cpu::{IntegerIsa, Isa};
use crate::kernels::plan::{Activation, Bias, Precision, Segment, Visibility};

/// The checks of all kernels.
pub fn kernels() -> Vec<Check> {
    let available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    available
        .flat_map(|isa| {
            let product = |precision| check_matmul(isa, precision);
            let mut checks = vec![product(Precision::F32), product(Precision::Bf16)];
            checks.push(check_norm(isa));
            checks.push(check_gated(isa));
            checks.push(check_attention(isa));
            checks
        })
        .chain(
            IntegerIsa::ALL
                .into_iter()
                .filter(|isa| isa.is_available())
                .flat_map(|isa| [Bits::Eight, Bits::Sixteen].map(|bits| check_integers(isa, bits))),
        )
        .collect()
}

fn check_matmul(isa: Isa, precision: Precision) -> Check {
    let (rows, n, k) = (61, 77, 531);
    let (mut a, mut w) = (random(1, rows * k), random(2, n * k));
    if precision == Precision::Bf16 {
        round_to_bf16(&mut w);
        if isa.rounds_activations() {
            round_to_bf16(&mut a);
        }
    }
    let weight = PackedWeight::new(n, k, precision, |row, values| {
        values.copy_from_slice(&w[row * k..][..k]);
    });
    let mut got = vec![f32::NAN; rows * n];
    matmul(isa, &a, &weight, None, &mut got);
    let expected = plain::linear(&wide(&a), &wide(&w), k);
    let name = format!("matrix product {precision:?}, {}", isa.name()).to_lowercase();
    Check::new(name, &got, &expected, 2e-6)
}

/// The inputs are values that 8 bits hold exactly, so that any error is the kernel's. With 16 bits,
/// whose scale is that of a norm, rounding to the steps of the integers is allowed too.
fn check_integers(isa: IntegerIsa, bits: Bits) -> Check {
    let (rows, n, k) = (61, 77, 531);
    let exact = |seed, count| {
        let mut values = random(seed, count);
        for row in values.chunks_exact_mut(k) {
            row[0] = 1.0;
            for value in row {
                *value = (*value * 127.0).round() / 127.0;
            }
        }
        values
    };
    let (a, w) = (exact(1, rows * k), exact(2, n * k));
    let weight = IntegerWeight::new(bits, n, k, |row, values| {
        values.copy_from_slice(&w[row * k..][..k]);
    });
    let mut got = vec![f32::NAN; rows * n];
    integer_product::matmul(isa, &a, &weight, None, &mut got);
    let expected = plain::linear(&wide(&a), &wide(&w), k);
    let (bits, tolerance) = match bits {
        Bits::Eight => (8, 2e-6),
        Bits::Sixteen => (16, 5e-4),
    };
    let name = format!("matrix product int{bits}, {isa:?}").to_lowercase();
    Check::new(name, &got, &expected, tolerance)
}

fn round_to_bf16(values: &mut [f32]) {
    for value in values {
        *value = half::bf16::from_f32(*value).to_f32();
    }
}

fn check_norm(isa: Isa) -> Check {
    let width = 205;
    let (x, w) = (random(3, 7 * width), random(4, width));
    let mut got = vec![f32::NAN; x.len()];
    rms_norm(isa, &x, &w, 1e-6, &mut got);
    let expected = plain::rms_norm(&wide(&x), &wide(&w), 1e-6);
    Check::new(format!("rms norm, {}", isa.name()), &got, &expected, 2e-6)
}

fn check_gated(isa: Isa) -> Check {
    let d_ff = 83;
    let x: Vec<f32> = random(5, 7 * 2 * d_ff).iter().map(|v| 9.0 * v).collect();
    let mut got = vec![f32::NAN; 7 * d_ff];
    gated(isa, Activation::Silu, &x, d_ff, &mut got);
    let expected = plain::gated_silu(&wide(&x), d_ff);
    Check::new(format!("gated silu, {}", isa.name()), &got, &expected, 2e-6)
}

fn check_attention(isa: Isa) -> Check {
    let (heads, d_kv, max_distance) = (3, 20, 33);
    let inner = heads * d_kv;
    let lengths = [1, 12, 150];
    let rows: usize = lengths.iter().sum();
    let qkv = random(6, rows * 3 * inner);
    let bias = random(7, (2 * max_distance + 1) * heads);
    let mut first = 0;
    let segments = lengths.map(|length| {
        let rows = first..first + length;
        first += length;
        Segment {
            queries: rows.clone(),
            keys: rows,
            first_position: 0,
        }
    });
    let part = |number| Heads {
        data: &qkv,
        stride: 3 * inner,
        offset: number * inner,
    };
    let attention = Attention {
        q: part(0),
        k: part(1),
        v: part(2),
        heads,
        d_kv,
        bias: Some(Bias {
            by_distance: &bias,
            max_distance,
        }),
        visibility: Visibility::All,
        segments: &segments,
        dropout: None,
        precision: Precision::F32,
    };
    let mut got = vec![f32::NAN; rows * inner];
    attend(isa, &attention, &mut got);
    let expected = plain::attention(&wide(&qkv), heads, d_kv, &lengths, |distance, head| {
        let limit = max_distance as i64;
        let row = (distance.clamp(-limit, limit) + limit) as usize;
        f64::from(bias[row * heads + head])
    });
    Check::new(format!("attention, {}", isa.name()), &got, &expected, 2e-6)
}
