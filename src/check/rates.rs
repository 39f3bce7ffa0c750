//! Speed of a device: copying, a matrix product, packed attention. Each rate is the median of a few
//! runs after one warm-up.

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};

use crate::kernels::attention::self_attention;
use crate::kernels::plan::{AttentionPlan, Precision, Segment, Visibility};

/// The size of the measured work.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Values copied.
    pub copied: usize,
    /// Side of the square matrices.
    pub side: usize,
    /// Number of segments.
    pub segments: usize,
    /// Tokens per segment.
    pub segment_tokens: usize,
}

impl Size {
    /// A few seconds of work for a GPU.
    pub const GPU: Size = Size {
        copied: 1 << 28,
        side: 8192,
        segments: 32,
        segment_tokens: 1024,
    };
    /// Just enough work to show that everything runs.
    pub const TINY: Size = Size {
        copied: 1 << 16,
        side: 64,
        segments: 2,
        segment_tokens: 100,
    };
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Rate {
    /// The measured operation.
    pub name: String,
    /// The rate in `unit`.
    pub value: f64,
    /// `GB/s` or `TFLOP/s`.
    pub unit: &'static str,
}

/// Rates of `device` in `dtype`.
///
/// # Errors
/// The device's errors, such as too little memory.
pub fn measure(device: &Device, dtype: DType, size: Size) -> Result<Vec<Rate>> {
    let tera = |operations: f64, seconds: f64| operations / seconds / 1e12;
    let values = Tensor::ones(size.copied, DType::F32, device)?;
    let seconds = median(device, || values.copy())?;
    let mut rates = vec![Rate {
        name: "copy (read and write)".to_owned(),
        value: 2.0 * 4.0 * size.copied as f64 / seconds / 1e9,
        unit: "GB/s",
    }];
    drop(values);
    let n = size.side;
    let (a, b) = (
        Tensor::ones((n, n), dtype, device)?,
        Tensor::ones((n, n), dtype, device)?,
    );
    let seconds = median(device, || a.matmul(&b.t()?))?;
    rates.push(Rate {
        name: format!("matrix product {n}³ {}", dtype.as_str()),
        value: tera(2.0 * (n as f64).powi(3), seconds),
        unit: "TFLOP/s",
    });
    rates.push(attention(device, dtype, size)?);
    Ok(rates)
}

fn attention(device: &Device, dtype: DType, size: Size) -> Result<Rate> {
    let (count, length) = (size.segments, size.segment_tokens);
    let (heads, d_kv) = (16, 64);
    let segments: Arc<[Segment]> = (0..count)
        .map(|i| Segment {
            queries: i * length..(i + 1) * length,
            keys: i * length..(i + 1) * length,
            first_position: 0,
        })
        .collect();
    let plan = AttentionPlan {
        heads,
        d_kv,
        visibility: Visibility::All,
        segments,
        precision: Precision::F32,
    };
    let qkv = (Tensor::ones((count * length, 3 * heads * d_kv), DType::F32, device)? * 0.1)?;
    let qkv = qkv.to_dtype(dtype)?;
    let bias = Tensor::zeros((257, heads), DType::F32, device)?;
    let seconds = median(device, || self_attention(&qkv, &bias, &plan, None))?;
    let operations = 4.0 * (count * heads * d_kv) as f64 * (length as f64).powi(2);
    Ok(Rate {
        name: format!(
            "attention, {count} x {length} tokens, 16 heads of 64, {}",
            dtype.as_str()
        ),
        value: operations / seconds / 1e12,
        unit: "TFLOP/s",
    })
}

/// The median of the seconds per run.
fn median(device: &Device, mut run: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..6 {
        device.synchronize()?;
        let begin = Instant::now();
        let result = run()?;
        device.synchronize()?;
        seconds.push(begin.elapsed().as_secs_f64());
        drop(result);
    }
    let mut counted = seconds.split_off(1);
    counted.sort_by(f64::total_cmp);
    Ok(counted[counted.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_is_measured() {
        let rates = measure(&Device::Cpu, DType::F32, Size::TINY).unwrap();
        assert_eq!(rates.len(), 3);
        assert!(
            rates
                .iter()
                .all(|rate| rate.value.is_finite() && rate.value > 0.0),
            "{rates:?}"
        );
    }
}
