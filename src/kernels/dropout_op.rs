//! [`Dropout`] of tensors, as candle operations. The gradient has the same mask.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::dropout::{CHUNK, Dropout};
use super::{cpu_f32, has_kernels, same_as_input};

impl Dropout {
    /// `dropout(x)`, same shape.
    ///
    /// # Errors
    /// Where `x` is not contiguous f32, on a CPU.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        if !has_kernels(x) {
            return x * self.factors(x)?;
        }
        x.apply_op1(DropoutOp(self))
    }

    /// `residual + dropout(x)`.
    ///
    /// # Errors
    /// Where shapes differ.
    pub fn add(self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        if !has_kernels(x) {
            return residual + self.apply(x)?;
        }
        x.apply_op2(residual, DropoutOp(self))
    }

    /// The factor of each value of `x`: 0 or `1 / (1 − rate)`.
    fn factors(self, x: &Tensor) -> Result<Tensor> {
        let mask = self.mask();
        let factors: Vec<f32> = (0..x.elem_count() as u32).map(|i| mask.factor(i)).collect();
        Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())
    }
}

struct DropoutOp(Dropout);

impl DropoutOp {
    fn run(&self, x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let mask = self.0.mask();
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(chunk, out)| {
                let first = chunk * CHUNK;
                let x = &x[first..first + out.len()];
                for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
                    *out = x * mask.factor((first + i) as u32);
                }
                if let Some(residual) = residual {
                    let residual = &residual[first..first + out.len()];
                    out.iter_mut().zip(residual).for_each(|(out, r)| *out += r);
                }
            });
        out
    }
}

impl CustomOp1 for DropoutOp {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(same_as_input(self.run(cpu_f32(x, layout)?, None), layout))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        super::cuda::ops::dropout(self.0, (x, layout), None)
    }

    fn bwd(&self, _x: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.apply_op1_no_bwd(self)?))
    }
}

impl CustomOp2 for DropoutOp {
    fn name(&self) -> &'static str {
        "dropout-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        r: &CpuStorage,
        r_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, r) = (cpu_f32(x, layout)?, cpu_f32(r, r_layout)?);
        if x.len() != r.len() {
            candle_core::bail!("a residual of {} values for {}", r.len(), x.len());
        }
        Ok(same_as_input(self.run(x, Some(r)), layout))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        r: &CudaStorage,
        r_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        super::cuda::ops::dropout(self.0, (x, layout), Some((r, r_layout)))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _residual: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.apply_op1_no_bwd(self)?), Some(grad.clone())))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_gradient_has_the_same_mask() {
        let x = candle_core::Var::new(vec![1.0f32; 1000], &Device::Cpu).unwrap();
        let y = Dropout::new(0.3, 5).apply(&x).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        let got: Vec<f32> = grads.get(&x).unwrap().to_vec1().unwrap();
        assert_eq!(got, y.to_vec1::<f32>().unwrap());
        assert!(got.contains(&0.0) && got.contains(&(1.0 / 0.7)));
    }
}
