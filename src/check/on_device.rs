//! The kernels below on a device, forward and backward, against the CPU's kernels on the same
//! random ragged inputs.
//!
//! Not checked: pooling, the activation `Relu`, dropout without a residual, dropout of attention
//! probabilities, gradients of attention of one query, and linear layers, which are candle's own
//! operations on a device.
//!
//! In f32, and in bf16 on inputs rounded to bf16, which the CPU computes in f32. The CPU's kernels
//! are themselves checked against f64 ([`super::cpu`]).

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Check;
use crate::kernels::attention::{attention, self_attention};
use crate::kernels::cross_entropy::cross_entropy;
use crate::kernels::dropout::Dropout;
use crate::kernels::elementwise::{gated, rms_norm};
use crate::kernels::gather::gather;
use crate::kernels::plan::{Activation, AttentionPlan, Precision, Segment, Visibility};

/// The largest errors that pass with one number type.
#[derive(Clone, Copy)]
struct Limits {
    dtype: DType,
    forward: f64,
    backward: f64,
}

const LIMITS: [Limits; 2] = [
    Limits {
        dtype: DType::F32,
        forward: 1e-5,
        backward: 1e-4,
    },
    Limits {
        dtype: DType::BF16,
        forward: 1e-2,
        backward: 2e-2,
    },
];

/// A device against the CPU with one number type, on inputs of one seed.
struct Trial<'a> {
    device: &'a Device,
    stream: ChaCha8Rng,
    limits: Limits,
    checks: Vec<Check>,
}

/// The number type of an input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InputType {
    /// f32 on the CPU, the tested type on the device.
    Tested,
    /// f32 on both: weights of norms, and biases.
    F32,
}

/// An input of a kernel.
struct KernelInput {
    values: Tensor,
    kind: InputType,
}

fn tested(values: Tensor) -> KernelInput {
    KernelInput {
        values,
        kind: InputType::Tested,
    }
}

fn f32_on_both(values: Tensor) -> KernelInput {
    KernelInput {
        values,
        kind: InputType::F32,
    }
}

/// The kernels above on `device`; on a CPU in f32 alone, and against itself.
///
/// # Errors
/// The device's errors.
pub fn kernels(device: &Device, seed: u64) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for limits in LIMITS {
        if device.is_cpu() && limits.dtype != DType::F32 {
            continue;
        }
        let mut trial = Trial {
            device,
            stream: ChaCha8Rng::seed_from_u64(seed),
            limits,
            checks: Vec::new(),
        };
        trial.elementwise()?;
        trial.rows()?;
        trial.attentions()?;
        checks.extend(trial.checks);
    }
    Ok(checks)
}

impl Trial<'_> {
    fn random(&mut self, shape: &[usize], size: f32) -> Result<Tensor> {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|_| size * self.stream.random_range(-1.0..1.0))
            .collect();
        // Both sides start from values that the device's type holds.
        Tensor::from_vec(values, shape, &Device::Cpu)?
            .to_dtype(self.limits.dtype)?
            .to_dtype(DType::F32)
    }

    /// Compares `f` of the inputs, and the gradients of a randomly weighted sum of it, on the CPU
    /// in f32 and on the device.
    fn compare(
        &mut self,
        name: &str,
        inputs: &[KernelInput],
        f: impl Fn(&[Tensor]) -> Result<Tensor>,
    ) -> Result<()> {
        let shape = f(&inputs
            .iter()
            .map(|input| input.values.clone())
            .collect::<Vec<_>>())?;
        let weights = self.random(shape.dims(), 1.0)?;
        let name = format!("{name} {}", self.limits.dtype.as_str());
        let expected = run(inputs, &weights, &Device::Cpu, DType::F32, &f)?;
        let got = run(inputs, &weights, self.device, self.limits.dtype, &f)?;
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let (what, limit) = match i {
                0 => (name.clone(), self.limits.forward),
                _ => (format!("{name}, gradient {i}"), self.limits.backward),
            };
            self.checks
                .push(Check::of_tensors(what, got, expected, limit)?);
        }
        Ok(())
    }

    fn elementwise(&mut self) -> Result<()> {
        for (rows, width) in [(1, 48), (37, 1536), (5, 205)] {
            let (x, w) = (
                self.random(&[rows, width], 2.0)?,
                self.random(&[width], 1.5)?,
            );
            let name = format!("rms norm {rows} x {width}");
            self.compare(&name, &[tested(x), f32_on_both(w)], |x| {
                rms_norm(&x[0], &x[1], 1e-6)
            })?;
        }
        for activation in [Activation::Silu, Activation::GeluNew] {
            let x = self.random(&[13, 2 * 777], 5.0)?;
            let name = format!("gated {activation:?}").to_lowercase();
            self.compare(&name, &[tested(x)], |x| gated(activation, &x[0]))?;
        }
        let (x, residual) = (self.random(&[11, 96], 1.0)?, self.random(&[11, 96], 1.0)?);
        let dropout = Dropout::new(0.2, self.stream.random());
        self.compare("dropout", &[tested(x), tested(residual)], |x| {
            dropout.add(&x[0], &x[1])
        })
    }

    fn rows(&mut self) -> Result<()> {
        let table = self.random(&[40, 130], 1.0)?;
        let ids: Vec<u32> = (0..200).map(|_| self.stream.random_range(0..40)).collect();
        self.compare("gather", &[tested(table)], |x| gather(&x[0], &ids))?;
        let logits = self.random(&[77, 256], 6.0)?;
        let targets: Vec<u32> = (0..77).map(|_| self.stream.random_range(0..256)).collect();
        self.compare("cross-entropy", &[tested(logits)], |x| {
            cross_entropy(&x[0], &targets, 1e-3)
        })
    }

    /// Lengths of segments: around the sizes of tiles, and random.
    fn lengths(&mut self) -> Vec<usize> {
        let mut lengths = vec![1, 31, 64, 65, 128];
        lengths.extend((0..3).map(|_| self.stream.random_range(1..300)));
        lengths
    }

    fn attentions(&mut self) -> Result<()> {
        for (d_kv, visibility) in [
            (64, Visibility::All),
            (64, Visibility::Causal),
            (32, Visibility::All),
            (128, Visibility::All),
            (20, Visibility::Causal),
        ] {
            self.self_attention(d_kv, visibility)?;
        }
        self.cross_attention()?;
        self.decoding()
    }

    fn self_attention(&mut self, d_kv: usize, visibility: Visibility) -> Result<()> {
        let (heads, lengths) = (3, self.lengths());
        let rows: usize = lengths.iter().sum();
        let inner = heads * d_kv;
        let qkv = self.random(&[rows, 3 * inner], 2.5 / (d_kv as f32).powf(0.25))?;
        let bias = self.random(&[2 * 40 + 1, heads], 2.0)?;
        let pairs = lengths.iter().map(|n| (*n, *n, 0));
        let plan = plan(heads, d_kv, visibility, pairs);
        let name = format!("attention of {d_kv}, {visibility:?}").to_lowercase();
        self.compare(&name, &[tested(qkv), f32_on_both(bias)], |x| {
            self_attention(&x[0], &x[1], &plan, None)
        })
    }

    fn cross_attention(&mut self) -> Result<()> {
        let (heads, d_kv) = (3, 64);
        let (targets, sources) = (self.lengths(), self.lengths());
        let inner = heads * d_kv;
        let q = self.random(&[targets.iter().sum(), inner], 0.9)?;
        let kv = self.random(&[sources.iter().sum(), 2 * inner], 0.9)?;
        let pairs = targets.iter().zip(&sources).map(|(q, k)| (*q, *k, 0));
        let plan = plan(heads, d_kv, Visibility::All, pairs);
        self.compare("attention to a source", &[tested(q), tested(kv)], |x| {
            attention(&x[0], &x[1], None, &plan, None)
        })
    }

    /// One query per segment, without gradients.
    fn decoding(&mut self) -> Result<()> {
        let (heads, d_kv) = (3, 64);
        let (inner, lengths) = (heads * d_kv, self.lengths());
        let q = self.random(&[lengths.len(), inner], 0.9)?;
        let kv = self.random(&[lengths.iter().sum(), 2 * inner], 0.9)?;
        let bias = self.random(&[2 * 40 + 1, heads], 2.0)?;
        let pairs = lengths.iter().map(|n| (1, *n, n - 1));
        let plan = plan(heads, d_kv, Visibility::Causal, pairs);
        let on = |device: &Device, dtype: DType| {
            let place = |x: &Tensor| x.to_dtype(dtype)?.to_device(device);
            attention(
                &place(&q)?,
                &place(&kv)?,
                Some(&bias.to_device(device)?),
                &plan,
                None,
            )
        };
        let (got, expected) = (
            on(self.device, self.limits.dtype)?,
            on(&Device::Cpu, DType::F32)?,
        );
        let name = format!("attention of one query {}", self.limits.dtype.as_str());
        self.checks.push(Check::of_tensors(
            name,
            &got,
            &expected,
            self.limits.forward,
        )?);
        Ok(())
    }
}

/// Segments with the given numbers of queries and keys and the position of the first query.
fn plan(
    heads: usize,
    d_kv: usize,
    visibility: Visibility,
    lengths: impl Iterator<Item = (usize, usize, usize)>,
) -> AttentionPlan {
    let (mut q, mut k) = (0, 0);
    let take = |at: &mut usize, count: usize| -> Range<usize> {
        *at += count;
        *at - count..*at
    };
    let segments: Arc<[Segment]> = lengths
        .map(|(queries, keys, first_position)| Segment {
            queries: take(&mut q, queries),
            keys: take(&mut k, keys),
            first_position,
        })
        .collect();
    AttentionPlan {
        heads,
        d_kv,
        visibility,
        segments,
        precision: Precision::F32,
    }
}

/// The result, and the gradient of every input.
fn run(
    inputs: &[KernelInput],
    weights: &Tensor,
    device: &Device,
    dtype: DType,
    f: &impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let place = |input: &KernelInput| {
        let dtype = match input.kind {
            InputType::Tested => dtype,
            InputType::F32 => DType::F32,
        };
        Var::from_tensor(&input.values.to_dtype(dtype)?.to_device(device)?)
    };
    let variables = inputs.iter().map(place).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let out = f(&tensors)?;
    let weights = weights.to_dtype(out.dtype())?.to_device(device)?;
    let gradients = (&out * weights)?.sum_all()?.backward()?;
    let mut results = vec![out];
    for variable in &variables {
        let Some(gradient) = gradients.get(variable) else {
            candle_core::bail!("no gradient came back");
        };
        results.push(gradient.clone());
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPU against itself shows that the comparison compares.
    #[test]
    fn a_device_agrees_with_itself() {
        let checks = kernels(&Device::Cpu, 5).unwrap();
        assert!(checks.len() > 21, "{}", checks.len());
        for check in checks {
            assert!(check.passed(), "{check:?}");
        }
    }
}
