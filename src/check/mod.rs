//! Does this machine compute the network correctly, and how fast? The checks and measurements of
//! `ankh3 doctor`.
//!
//! | file | compares | with |
//! |---|---|---|
//! | [`cpu`] | every kernel on every instruction set of this CPU | its definition in f64 (`plain`) |
//! | [`on_device`] | most kernels of a device, forward and backward | the CPU's kernel |
//! | [`network`] | a small random network on a device | its definition in f64, and the CPU |
//! | [`published`] | an official model on a device | values that others published |
//!
//! [`rates`] measures speed. An error is the largest difference divided by the largest magnitude of
//! the expected values. Whether the definitions are those of Hugging Face is tested by
//! `tests/it/golden.rs`; the checks of this room find a broken build, compiler, driver or
//! processor.
//!
//! ```
//! use ankh3::check::{Check, cpu};
//!
//! assert!(cpu::kernels().iter().all(Check::passed));
//! ```

pub mod cpu;
pub mod network;
pub mod on_device;
mod plain;
pub mod published;
pub mod rates;

use candle_core::{DType, Result, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// The values compared, such as `matrix product f32, avx2`.
    pub name: String,
    /// Largest difference relative to the largest magnitude; NaN where any value is NaN.
    pub error: f64,
    /// The largest error that passes.
    pub limit: f64,
}

impl Check {
    fn new(name: String, got: &[f32], expected: &[f64], limit: f64) -> Self {
        let error = relative_error(got, expected);
        Check { name, error, limit }
    }

    fn of_tensors(name: String, got: &Tensor, expected: &Tensor, limit: f64) -> Result<Self> {
        let expected: Vec<f64> = values(expected)?.into_iter().map(f64::from).collect();
        Ok(Check::new(name, &values(got)?, &expected, limit))
    }

    /// True within the limit; false for NaN.
    pub fn passed(&self) -> bool {
        self.error <= self.limit
    }
}

/// Largest difference relative to the largest magnitude expected; NaN where any value is NaN.
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

fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut stream = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| stream.random_range(-1.0..1.0)).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_sound() {
        let mut checks = cpu::kernels();
        checks.push(network::encoder(&candle_core::Device::Cpu, 2e-5).unwrap());
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
