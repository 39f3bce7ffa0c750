//! A small random network on a device against its definition in f64 and against the CPU.

use candle_core::{DType, Device, Result, Tensor};

use super::{Check, plain, random, wide};
use crate::kernels::cpu::Isa;
use crate::kernels::plan::WeightForm;
use crate::model::config::FeedForward;
use crate::model::decoder::StepInput;
use crate::model::names::SHARED;
use crate::model::{Config, Decoder, Encoder, Loader, Packed, TensorView, WeightSource};
use crate::number::NumberType;

/// Random weights, seeded by their names.
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
            _ if name.contains("relative") || name == SHARED => value,
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

/// A small model of Ankh3's architecture, with an inner width that differs from `d_model`.
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

fn loader(device: &Device, dtype: DType) -> Loader<'_> {
    Loader {
        source: &Random,
        device,
        dtype,
        weights: WeightForm::Full,
    }
}

/// A small random encoder in f32 on `device` against the definition in f64; `limit` is the largest
/// error that passes.
///
/// # Errors
/// The device's errors.
pub fn encoder(device: &Device, limit: f64) -> Result<Check> {
    let config = config();
    let loader = loader(device, DType::F32);
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

/// A small random network on `device` against the CPU: the encoder, and the decoder at all
/// positions at once and position by position. And a segment alone in a batch against the same
/// segment among others.
///
/// # Errors
/// The device's errors.
pub fn against_cpu(device: &Device) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for (dtype, limit, invariance) in [(DType::F32, 1e-3, 1e-5), (DType::BF16, 3e-2, 1e-2)] {
        if device.is_cpu() && dtype != DType::F32 {
            continue;
        }
        let (expected, got) = (outputs(&Device::Cpu, DType::F32)?, outputs(device, dtype)?);
        let names = ["encoder", "decoder", "decoder, step by step"];
        for ((name, got), expected) in names.iter().zip(&got).zip(&expected) {
            let name = format!("{name} {}", dtype.as_str());
            checks.push(Check::of_tensors(name, got, expected, limit)?);
        }
        let [alone, among] = alone_and_among(device, dtype)?;
        let name = format!("alone or in a batch {}", dtype.as_str());
        checks.push(Check::of_tensors(name, &among, &alone, invariance)?);
    }
    Ok(checks)
}

fn small() -> Config {
    Config {
        d_kv: 32,
        num_decoder_layers: Some(2),
        ..config()
    }
}

fn tokens(length: u32) -> Vec<u32> {
    (0..length).map(|i| i * 7 % 32).collect()
}

/// The encoder's states, the decoder's logits at all positions at once, and the logits position by
/// position.
fn outputs(device: &Device, dtype: DType) -> Result<[Tensor; 3]> {
    let config = small();
    let loader = loader(device, dtype);
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

/// The states of one segment, alone in a batch and among others.
fn alone_and_among(device: &Device, dtype: DType) -> Result<[Tensor; 2]> {
    let loader = loader(device, dtype);
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
    fn the_cpu_agrees_with_itself() {
        let checks = against_cpu(&Device::Cpu).unwrap();
        assert_eq!(checks.len(), 4);
        assert!(checks.iter().all(Check::passed), "{checks:?}");
    }
}
