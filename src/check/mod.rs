//! Does the network compute what it should on this very machine? Kernels and a small random encoder against their definitions in f64.
//!
//! Each kernel is checked on every instruction set that the CPU has, the encoder on the one that is used ([`Isa::current`]). Errors are the largest
//! difference divided by the largest magnitude of the definition's result. Whether the definition is that of Hugging Face is for `tests/golden`; this
//! tells a broken build, compiler or CPU from a sound one.

pub mod on_device;
mod plain;
pub mod rates;

use candle_core::{DType, Device, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::kernels::cpu::attention::{Attention, Bias, Heads, Segment, Visibility, attend};
use crate::kernels::cpu::elementwise::{Activation, gated, rms_norm};
use crate::kernels::cpu::gemm::matmul;
use crate::kernels::cpu::integer_product;
use crate::kernels::cpu::integer_weight::{Bits, IntegerWeight};
use crate::kernels::cpu::packed_weight::{PackedWeight, Precision};
use crate::kernels::cpu::{IntegerIsa, Isa};
use crate::kernels::linear::WeightForm;
use crate::model::config::FeedForward;
use crate::model::{Config, Encoder, Loader, Packed, TensorView, WeightSource};
use crate::number::NumberType;

/// One comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was compared, such as `matmul f32, avx2`.
    pub name: String,
    /// Largest difference relative to the largest magnitude; NaN where a value is none.
    pub error: f64,
    /// What is still right.
    pub limit: f64,
}

impl Check {
    fn new(name: String, got: &[f32], expected: &[f64], limit: f64) -> Self {
        let error = relative_error(got, expected);
        Check { name, error, limit }
    }

    /// True within the limit; a NaN is not.
    pub fn passed(&self) -> bool {
        self.error <= self.limit
    }
}

/// Largest difference relative to the largest magnitude expected; NaN if any value is.
fn relative_error(got: &[f32], expected: &[f64]) -> f64 {
    let mut largest = f64::MIN_POSITIVE;
    let mut error = 0.0_f64;
    for (got, expected) in got.iter().zip(expected) {
        let difference = (f64::from(*got) - expected).abs();
        if difference.is_nan() {
            return f64::NAN;
        }
        error = error.max(difference);
        largest = largest.max(expected.abs());
    }
    if got.len() == expected.len() {
        error / largest
    } else {
        f64::NAN
    }
}

/// Every kernel on every instruction set of this CPU.
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

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut stream = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| stream.random_range(-1.0..1.0)).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
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

/// On values that 8 bits hold exactly, so that nothing but the kernel can be off; 16 bits, whose scale is that of a norm, are off by their steps.
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

/// Weights made of their names.
struct Random;

impl Random {
    fn values(name: &str, shape: &[usize]) -> Vec<f32> {
        let seed = name.bytes().fold(shape.len() as u64, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        let values = random(seed, shape.iter().product());
        let fan_in = *shape.last().unwrap_or(&1) as f32;
        let scale = |value: f32| match shape {
            [_] => 1.0 + 0.3 * value,
            _ if name.contains("relative") || name == "shared.weight" => value,
            _ => value * (3.0 / fan_in).sqrt(),
        };
        values.into_iter().map(scale).collect()
    }
}

impl WeightSource for Random {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        let values = Random::values(name, shape);
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Ok(TensorView {
            dtype: NumberType::F32,
            shape: shape.to_vec(),
            bytes: bytes.into(),
        })
    }

    fn has(&self, _name: &str) -> bool {
        true
    }
}

/// A small encoder of Ankh3's kind, inner width ≠ `d_model` as in Ankh3's smaller relatives.
fn config() -> Config {
    Config {
        vocab_size: 32,
        d_model: 48,
        d_kv: 20,
        d_ff: 80,
        num_layers: 2,
        num_decoder_layers: None,
        num_heads: 3,
        relative_attention_num_buckets: 64,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: FeedForward::GatedSilu,
        tie_word_embeddings: false,
        scale_decoder_outputs: None,
        dropout_rate: 0.0,
        pad_token_id: 0,
        eos_token_id: 1,
        decoder_start_token_id: 0,
    }
}

/// A small random encoder in f32 on `device`; `limit` is what the device may be off.
///
/// # Errors
/// What the device meets.
pub fn encoder(device: &Device, limit: f64) -> Result<Check> {
    let config = config();
    let loader = Loader {
        source: &Random,
        device,
        dtype: DType::F32,
        weights: WeightForm::Full,
    };
    let encoder = Encoder::load(&loader, &config)?;
    let lengths = [1, 17, 300];
    let segments = lengths.map(|length: u32| (0..length).map(|i| i * 7 % 32).collect::<Vec<_>>());
    let packed = Packed::from_segments(segments.iter().map(Vec::as_slice));
    let got = encoder.forward(&packed)?.flatten_all()?.to_vec1::<f32>()?;
    let weight = |name: &str, shape: &[usize]| wide(&Random::values(name, shape));
    let expected = plain::encoder(&config, &weight, &segments);
    let name = format!("encoder f32, {}", device_name(device));
    Ok(Check::new(name, &got, &expected, limit))
}

fn device_name(device: &Device) -> &'static str {
    if device.is_cpu() {
        Isa::current().name()
    } else {
        "cuda"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_sound() {
        let mut checks = kernels();
        checks.push(encoder(&Device::Cpu, 2e-5).unwrap());
        assert!(checks.len() >= 6);
        for check in checks {
            assert!(check.passed(), "{check:?}");
            // Something was compared: f32 is never exact here.
            assert!(check.error > 0.0, "{check:?}");
        }
    }

    #[test]
    fn a_miss_is_seen() {
        let error = |got: &[f32]| relative_error(got, &[1.0, -4.0]);
        assert_eq!(error(&[1.0, -4.0]), 0.0);
        assert_eq!(error(&[2.0, -4.0]), 0.25);
        for broken in [&[1.0, f32::NAN][..], &[1.0], &[1.0, f32::INFINITY]] {
            let check = Check {
                name: String::new(),
                error: error(broken),
                limit: 1e-5,
            };
            assert!(!check.passed(), "{broken:?}");
        }
    }
}
