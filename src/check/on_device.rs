//! Every kernel of a device, forward and backward, against the CPU's on the same random ragged inputs; then a whole small model.
//!
//! In f32, and in bf16 from inputs rounded to bf16, which the CPU computes in f32. The CPU's kernels are themselves checked against f64 ([`super::kernels`]).

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Check, Random, WeightForm, config};
use crate::kernels::attention::{Precision, attention, self_attention};
use crate::kernels::cross_entropy::cross_entropy;
use crate::kernels::dropout::Dropout;
use crate::kernels::elementwise::{gated, rms_norm};
use crate::kernels::gather::gather;
use crate::kernels::plan::{Activation, AttentionPlan as Plan, Segment, Visibility};
use crate::model::decoder::StepInput;
use crate::model::{Decoder, Encoder, Loader, Packed};

/// What is right in f32, and in bf16, forward and backward.
const LIMITS: [(DType, f64, f64); 2] = [(DType::F32, 1e-5, 1e-4), (DType::BF16, 1e-2, 2e-2)];

/// A device against the CPU, on inputs of one seed.
pub struct Trial<'a> {
    device: &'a Device,
    stream: ChaCha8Rng,
    dtype: DType,
    limits: (f64, f64),
    checks: Vec<Check>,
}

/// Every kernel on `device`; on a CPU in f32 alone, and against itself.
///
/// # Errors
/// What the device meets.
pub fn kernels(device: &Device, seed: u64) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for (dtype, forward, backward) in LIMITS {
        if device.is_cpu() && dtype != DType::F32 {
            continue;
        }
        let mut trial = Trial {
            device,
            stream: ChaCha8Rng::seed_from_u64(seed),
            dtype,
            limits: (forward, backward),
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
        // Both sides begin with what the device's type holds.
        Tensor::from_vec(values, shape, &Device::Cpu)?
            .to_dtype(self.dtype)?
            .to_dtype(DType::F32)
    }

    /// `f` of variables, and the gradients of a random weighting of it: on the CPU in f32, and on the device. `plain` inputs stay f32 on both (weights of norms,
    /// biases).
    fn compare(
        &mut self,
        name: &str,
        inputs: &[(Tensor, bool)],
        f: impl Fn(&[Tensor]) -> Result<Tensor>,
    ) -> Result<()> {
        let shape = f(&inputs.iter().map(|(x, _)| x.clone()).collect::<Vec<_>>())?;
        let weights = self.random(shape.dims(), 1.0)?;
        let name = format!("{name} {}", self.dtype.as_str());
        let expected = run(inputs, &weights, &Device::Cpu, DType::F32, &f)?;
        let got = run(inputs, &weights, self.device, self.dtype, &f)?;
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let (what, limit) = match i {
                0 => (name.clone(), self.limits.0),
                _ => (format!("{name}, gradient {i}"), self.limits.1),
            };
            self.checks.push(check(what, got, expected, limit)?);
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
            self.compare(&name, &[(x, false), (w, true)], |x| {
                rms_norm(&x[0], &x[1], 1e-6)
            })?;
        }
        for activation in [Activation::Silu, Activation::GeluNew] {
            let x = self.random(&[13, 2 * 777], 5.0)?;
            let name = format!("gated {activation:?}").to_lowercase();
            self.compare(&name, &[(x, false)], |x| gated(activation, &x[0]))?;
        }
        let (x, residual) = (self.random(&[11, 96], 1.0)?, self.random(&[11, 96], 1.0)?);
        let dropout = Dropout::new(0.2, self.stream.random());
        self.compare("dropout", &[(x, false), (residual, false)], |x| {
            dropout.add(&x[0], &x[1])
        })
    }

    fn rows(&mut self) -> Result<()> {
        let table = self.random(&[40, 130], 1.0)?;
        let ids: Vec<u32> = (0..200).map(|_| self.stream.random_range(0..40)).collect();
        self.compare("gather", &[(table, false)], |x| gather(&x[0], &ids))?;
        let logits = self.random(&[77, 256], 6.0)?;
        let targets: Vec<u32> = (0..77).map(|_| self.stream.random_range(0..256)).collect();
        self.compare("cross-entropy", &[(logits, false)], |x| {
            cross_entropy(&x[0], &targets, 1e-3)
        })
    }

    /// Lengths around the tiles and at random.
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
        self.compare(&name, &[(qkv, false), (bias, true)], |x| {
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
        self.compare("attention to a source", &[(q, false), (kv, false)], |x| {
            attention(&x[0], &x[1], None, &plan, None)
        })
    }

    /// One query a segment: a form without gradients.
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
        let (got, expected) = (on(self.device, self.dtype)?, on(&Device::Cpu, DType::F32)?);
        let name = format!("attention of one query {}", self.dtype.as_str());
        self.checks
            .push(check(name, &got, &expected, self.limits.0)?);
        Ok(())
    }
}

/// Segments of so many queries and keys each, the first query at a position.
fn plan(
    heads: usize,
    d_kv: usize,
    visibility: Visibility,
    lengths: impl Iterator<Item = (usize, usize, usize)>,
) -> Plan {
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
    Plan {
        heads,
        d_kv,
        visibility,
        segments,
        precision: Precision::F32,
    }
}

/// The result, and the gradient of every input.
fn run(
    inputs: &[(Tensor, bool)],
    weights: &Tensor,
    device: &Device,
    dtype: DType,
    f: &impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let place = |(x, plain): &(Tensor, bool)| {
        let dtype = if *plain { DType::F32 } else { dtype };
        Var::from_tensor(&x.to_dtype(dtype)?.to_device(device)?)
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

fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

fn check(name: String, got: &Tensor, expected: &Tensor, limit: f64) -> Result<Check> {
    let expected: Vec<f64> = values(expected)?.into_iter().map(f64::from).collect();
    Ok(Check::new(name, &values(got)?, &expected, limit))
}

/// A small random model on `device` against the CPU: the encoder, all target positions at once, and the same one after the other; and a segment alone against the
/// same among others.
///
/// # Errors
/// What the device meets.
pub fn model(device: &Device) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for (dtype, limit, invariance) in [(DType::F32, 1e-3, 1e-5), (DType::BF16, 3e-2, 1e-2)] {
        if device.is_cpu() && dtype != DType::F32 {
            continue;
        }
        let (expected, got) = (outputs(&Device::Cpu, DType::F32)?, outputs(device, dtype)?);
        let names = ["encoder", "decoder", "decoder, step by step"];
        for ((name, got), expected) in names.iter().zip(&got).zip(&expected) {
            let name = format!("{name} {}", dtype.as_str());
            checks.push(check(name, got, expected, limit)?);
        }
        let [alone, among] = alone_and_among(device, dtype)?;
        let name = format!("alone or in a batch {}", dtype.as_str());
        checks.push(check(name, &among, &alone, invariance)?);
    }
    Ok(checks)
}

fn small() -> super::Config {
    super::Config {
        d_kv: 32,
        num_decoder_layers: Some(2),
        ..config()
    }
}

fn tokens(length: u32) -> Vec<u32> {
    (0..length).map(|i| i * 7 % 32).collect()
}

/// States of the encoder; logits of the decoder at once, and step by step.
fn outputs(device: &Device, dtype: DType) -> Result<[Tensor; 3]> {
    let config = small();
    let loader = Loader {
        source: &Random,
        device,
        dtype,
        weights: WeightForm::Full,
    };
    let (encoder, decoder) = (
        Encoder::load(&loader, &config)?,
        Decoder::load(&loader, &config)?,
    );
    let sources = [1, 70, 129].map(tokens);
    let packed = Packed::from_segments(sources.iter().map(Vec::as_slice));
    let encoded = encoder.forward(&packed)?;
    let source = decoder.source(&encoded, &packed)?;
    let target = tokens(9);
    let one = Packed::from_segments([target.as_slice()]);
    let logits = decoder.forward(&one, &[1], &source)?;
    let mut cache = decoder.cache(1, target.len())?;
    let steps = target
        .iter()
        .map(|token_id| {
            let input = StepInput {
                token_id: *token_id,
                slot: 0,
                source: 1,
            };
            decoder.step(&[input], &mut cache, &source)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok([encoded, logits, Tensor::cat(&steps, 0)?])
}

fn alone_and_among(device: &Device, dtype: DType) -> Result<[Tensor; 2]> {
    let loader = Loader {
        source: &Random,
        device,
        dtype,
        weights: WeightForm::Full,
    };
    let encoder = Encoder::load(&loader, &small())?;
    let (one, others) = (tokens(90), [tokens(64), tokens(200)]);
    let alone = encoder.forward(&Packed::from_segments([one.as_slice()]))?;
    let among = [&others[0], &one, &others[1]];
    let among = encoder.forward(&Packed::from_segments(among.map(Vec::as_slice)))?;
    Ok([alone, among.narrow(0, 64, 90)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPU against itself shows that the comparison compares.
    #[test]
    fn a_device_agrees_with_itself() {
        let mut checks = kernels(&Device::Cpu, 5).unwrap();
        checks.extend(model(&Device::Cpu).unwrap());
        assert!(checks.len() > 25, "{}", checks.len());
        for check in checks {
            assert!(check.passed(), "{check:?}");
        }
    }
}
