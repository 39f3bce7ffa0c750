//! Dropout with masks that are computed, not stored: whether a value is kept is a hash of (key, index), so that the backward pass, a recomputed
//! layer and another number of threads all see the same mask.
//!
//! `y = x · kept / (1 − rate)`, as PyTorch's `nn.Dropout`. The hash is the 32-bit finaliser of C. Wellons' search (`lowbias32`,
//! github.com/skeeto/hash-prospector); keys are derived by the finaliser of `SplitMix64` (Steele et al. 2014).

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{cpu_f32, has_kernels, same_as_input};

/// Values given to one thread at a time.
const CHUNK: usize = 1 << 14;

/// A rate and the key of a random stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    rate: f32,
    key: u64,
}

/// What decides over the values of one place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    low: u32,
    high: u32,
    threshold: u32,
    scale: f32,
}

impl Dropout {
    /// Drops values with probability `rate` (0 to below 1).
    pub fn new(rate: f64, key: u64) -> Self {
        let rate = rate.clamp(0.0, 0.999_999) as f32;
        Self { rate, key }
    }

    /// The stream of place `n` below this one: a layer, a sub-layer, a row.
    pub fn at(self, n: u64) -> Self {
        let key = finalise(self.key ^ n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { key, ..self }
    }

    pub(crate) fn mask(self) -> Mask {
        Mask {
            low: self.key as u32,
            high: (self.key >> 32) as u32,
            threshold: (f64::from(self.rate) * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - self.rate),
        }
    }

    /// Key, threshold and scale, as the CUDA kernels take them.
    pub fn parts(self) -> (u64, u32, f32) {
        let mask = self.mask();
        (self.key, mask.threshold, mask.scale)
    }

    /// What value `i` of this place is multiplied by.
    pub fn factor_at(self, i: u32) -> f32 {
        self.mask().factor(i)
    }

    /// `dropout(x)`, same shape.
    ///
    /// # Errors
    /// Where `x` is not contiguous f32 (CPU).
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        if !has_kernels(x) {
            return x * self.factors(x)?;
        }
        x.apply_op1(Dropped(self))
    }

    /// `residual + dropout(x)`.
    ///
    /// # Errors
    /// Where shapes differ.
    pub fn add(self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        if !has_kernels(x) {
            return residual + self.apply(x)?;
        }
        x.apply_op2(residual, Dropped(self))
    }

    /// `target = dropout(x)`: the forward pass of values, the backward pass of their gradient.
    ///
    /// # Panics
    /// If lengths differ.
    pub fn apply_to(self, x: &[f32], target: &mut [f32]) {
        assert_eq!(x.len(), target.len(), "dropout keeps the shape");
        self.for_each(target, |i, target, factor| *target = x[i] * factor);
    }

    /// `x = dropout(x)`.
    pub fn apply_in_place(self, x: &mut [f32]) {
        self.for_each(x, |_, x, factor| *x *= factor);
    }

    /// `x = residual + dropout(x)`.
    ///
    /// # Panics
    /// If lengths differ.
    pub fn add_in_place(self, x: &mut [f32], residual: &[f32]) {
        assert_eq!(x.len(), residual.len(), "the residual has the same shape");
        self.for_each(x, |i, x, factor| *x = *x * factor + residual[i]);
    }

    /// Calls `f` with the number of each value, the value and its factor, in parallel.
    fn for_each(self, values: &mut [f32], f: impl Fn(usize, &mut f32, f32) + Sync) {
        let mask = self.mask();
        let chunks = values.par_chunks_mut(CHUNK).enumerate();
        chunks.for_each(|(chunk, values)| {
            for (i, value) in (chunk * CHUNK..).zip(values) {
                f(i, value, mask.factor(i as u32));
            }
        });
    }

    /// 0 or `1 / (1 − rate)` for each value of `x`.
    fn factors(self, x: &Tensor) -> Result<Tensor> {
        let mask = self.mask();
        let factors: Vec<f32> = (0..x.elem_count() as u32).map(|i| mask.factor(i)).collect();
        Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())
    }
}

impl Mask {
    /// What value `i` is multiplied by.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "it must be compiled for the instruction set of its loop"
    )]
    pub(crate) fn factor(&self, i: u32) -> f32 {
        let mut x = i.wrapping_mul(0x9e37_79b9) ^ self.low;
        x ^= x >> 16;
        x = x.wrapping_mul(0x21f0_aaad);
        x ^= (x >> 15) ^ self.high;
        x = x.wrapping_mul(0xd35a_2d97);
        x ^= x >> 15;
        if x >= self.threshold { self.scale } else { 0.0 }
    }
}

/// The finaliser of `SplitMix64`.
fn finalise(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Dropped(Dropout);

impl Dropped {
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

impl CustomOp1 for Dropped {
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

impl CustomOp2 for Dropped {
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

    fn kept(dropout: Dropout, count: usize) -> Vec<bool> {
        let mask = dropout.mask();
        (0..count).map(|i| mask.factor(i as u32) > 0.0).collect()
    }

    #[test]
    fn the_rate_is_kept_at_every_place() {
        for rate in [0.1, 0.5] {
            for place in 0..20 {
                let kept = kept(Dropout::new(rate, 7).at(place), 100_000);
                let share = kept.iter().filter(|kept| !**kept).count() as f64 / 1e5;
                // Five standard deviations.
                assert!(
                    (share - rate).abs() < 5.0 * (rate * (1.0 - rate) / 1e5).sqrt(),
                    "{share}"
                );
            }
        }
    }

    #[test]
    fn neighbours_and_places_are_independent() {
        let (a, b) = (
            kept(Dropout::new(0.5, 1).at(0), 100_000),
            kept(Dropout::new(0.5, 1).at(1), 100_000),
        );
        let same = |x: &[bool], y: &[bool]| {
            x.iter().zip(y).filter(|(x, y)| x == y).count() as f64 / x.len() as f64
        };
        assert!((same(&a, &b) - 0.5).abs() < 0.01);
        for step in [1, 2, 16, 256] {
            assert!(
                (same(&a[step..], &a[..a.len() - step]) - 0.5).abs() < 0.01,
                "{step}"
            );
        }
    }

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
