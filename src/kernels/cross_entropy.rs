//! The loss of one token: `log Σ exp(logits) − logit of the target`, and optionally the z-loss `z ·
//! (log Σ exp(logits))²` which keeps logits from drifting (PaLM, arXiv 2204.02311, section 5).
//! Equals PyTorch's `cross_entropy(reduction="none")` where `z` is 0.
//!
//! Gradient: `softmax(logits) · (1 + 2 z log Σ exp) − one_hot(target)`.

use std::sync::Arc;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{cpu_f32, cpu_tensor, has_kernels, on_values};

/// Rows that one thread takes at a time.
const ROWS: usize = 64;

/// Losses `(tokens)` in f32 of `logits (tokens, vocab)`, with one target per row.
///
/// # Errors
/// Where there is not one target per row, or a target is outside the vocabulary.
pub fn cross_entropy(logits: &Tensor, targets: &[u32], z_loss: f64) -> Result<Tensor> {
    let (rows, vocab) = logits.dims2()?;
    if targets.len() != rows || targets.iter().any(|target| *target as usize >= vocab) {
        candle_core::bail!(
            "{} targets for {rows} rows of {vocab} logits",
            targets.len()
        );
    }
    if has_kernels(logits) {
        return logits.apply_op1(CrossEntropy {
            targets: targets.into(),
            z_loss: z_loss as f32,
        });
    }
    let wide = logits.to_dtype(DType::F32)?;
    let log_sum = wide.log_sum_exp(D::Minus1)?;
    let targets = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    let loss = (&log_sum - wide.gather(&targets, 1)?.squeeze(1)?)?;
    loss + (log_sum.sqr()? * z_loss)?
}

/// Losses of `logits (tokens, vocab)`, which are replaced by the gradient of the sum of the losses.
///
/// # Panics
/// If there is not one target per row, or a target is outside the vocabulary.
pub fn gradient_in_place(
    logits: &mut [f32],
    vocab: usize,
    targets: &[u32],
    z_loss: f32,
) -> Vec<f32> {
    assert_eq!(logits.len(), targets.len() * vocab, "one target per row");
    let rows = logits.par_chunks_mut(vocab).with_min_len(ROWS);
    let losses = rows.zip(targets).map(|(row, target)| {
        let target = *target as usize;
        let maximum = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let own = row[target];
        for value in &mut *row {
            *value = (*value - maximum).exp();
        }
        let sum = row.iter().sum::<f32>();
        let log_sum = maximum + sum.ln();
        let scale = (1.0 + 2.0 * z_loss * log_sum) / sum;
        for value in &mut *row {
            *value *= scale;
        }
        row[target] -= 1.0;
        log_sum - own + z_loss * log_sum * log_sum
    });
    losses.collect()
}

struct CrossEntropy {
    targets: Arc<[u32]>,
    z_loss: f32,
}

fn log_sum_exp(logits: &[f32]) -> f32 {
    let maximum = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // NaN and infinite logits must not look like a finite loss.
    maximum + logits.iter().map(|x| (x - maximum).exp()).sum::<f32>().ln()
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let vocab = layout.dims()[1];
        let rows = cpu_f32(logits, layout)?.par_chunks(vocab);
        let losses: Vec<f32> = rows
            .zip(&self.targets[..])
            .map(|(row, target)| {
                let log_sum = log_sum_exp(row);
                log_sum - row[*target as usize] + self.z_loss * log_sum * log_sum
            })
            .collect();
        let shape = Shape::from(losses.len());
        Ok((CpuStorage::F32(losses), shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, logits: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        super::cuda::ops::cross_entropy((logits, layout), &self.targets, self.z_loss)
    }

    fn bwd(&self, logits: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if logits.device().is_cuda() {
            let d = super::cuda::ops::cross_entropy_backward;
            return d(logits, &self.targets, grad, self.z_loss).map(Some);
        }
        let vocab = logits.dims2()?.1;
        let d = on_values([logits, &grad.contiguous()?], |[logits, grad]| {
            let mut d = vec![0.0; logits.len()];
            d.par_chunks_mut(vocab)
                .zip(logits.par_chunks(vocab))
                .zip(self.targets.par_iter().zip(grad))
                .for_each(|((d, row), (target, grad))| {
                    let log_sum = log_sum_exp(row);
                    let scale = grad * (1.0 + 2.0 * self.z_loss * log_sum);
                    for (d, x) in d.iter_mut().zip(row) {
                        *d = scale * (x - log_sum).exp();
                    }
                    d[*target as usize] -= grad;
                });
            d
        })?;
        Ok(Some(cpu_tensor(d, logits.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn the_gradient_is_that_of_candles_own_operations() {
        let values: Vec<f32> = (0..40)
            .map(|i| ((i * 37 % 23) as f32 - 11.0) / 3.0)
            .collect();
        let targets = [3u32, 0, 9, 5];
        let ours = Var::from_vec(values.clone(), (4, 10), &Device::Cpu).unwrap();
        let theirs = Var::from_vec(values, (4, 10), &Device::Cpu).unwrap();
        for z in [0.0, 0.01] {
            let loss = cross_entropy(&ours, &targets, z).unwrap();
            let log_sum = theirs.log_sum_exp(1).unwrap();
            let ids = Tensor::new(&targets, &Device::Cpu)
                .unwrap()
                .unsqueeze(1)
                .unwrap();
            let picked = theirs.gather(&ids, 1).unwrap().squeeze(1).unwrap();
            let expected =
                ((&log_sum - picked).unwrap() + (log_sum.sqr().unwrap() * z).unwrap()).unwrap();
            let close = |a: &Tensor, b: &Tensor| {
                let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
                assert!(difference.to_scalar::<f32>().unwrap() < 1e-6);
            };
            close(&loss, &expected);
            let a = loss.sum_all().unwrap().backward().unwrap();
            let b = expected.sum_all().unwrap().backward().unwrap();
            close(a.get(&ours).unwrap(), b.get(&theirs).unwrap());
            let mut values = ours.flatten_all().unwrap().to_vec1().unwrap();
            let losses = gradient_in_place(&mut values, 10, &targets, z as f32);
            close(&Tensor::new(losses, &Device::Cpu).unwrap(), &expected);
            let d = Tensor::from_vec(values, (4, 10), &Device::Cpu).unwrap();
            close(&d, b.get(&theirs).unwrap());
        }
    }

    #[test]
    fn a_loss_of_nonsense_is_not_finite() {
        for bad in [f32::NAN, f32::INFINITY] {
            let logits = Tensor::from_vec(vec![0.0, bad, 1.0], (1, 3), &Device::Cpu).unwrap();
            let loss = cross_entropy(&logits, &[0], 0.0).unwrap();
            assert!(!loss.to_vec1::<f32>().unwrap()[0].is_finite());
        }
        assert!(
            cross_entropy(
                &Tensor::zeros((1, 3), DType::F32, &Device::Cpu).unwrap(),
                &[3],
                0.0
            )
            .is_err()
        );
    }
}
