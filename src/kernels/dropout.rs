//! Dropout with masks that are computed, not stored: a hash of (key, index) decides whether a value
//! is kept, so that the backward pass, a recomputed layer and any number of threads see the same
//! mask.
//!
//! `y = x · kept / (1 − rate)`, as PyTorch's `nn.Dropout`. `dropout_op` applies it to
//! tensors. The hash is the 32-bit finaliser of C. Wellons' search (`lowbias32`,
//! github.com/skeeto/hash-prospector); keys are derived by the finaliser of `SplitMix64` (Steele et
//! al. 2014).

use rayon::prelude::*;

/// Values that one thread takes at a time.
pub(super) const CHUNK: usize = 1 << 14;

/// A dropout rate and the key of a random stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    rate: f32,
    key: u64,
}

/// A dropout as the CUDA kernels take it; all zeros stand for no dropout.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DropoutParts {
    /// Key of the random stream.
    pub key: u64,
    /// Hashes below this one drop their value.
    pub threshold: u32,
    /// Factor of the values that are kept.
    pub scale: f32,
}

/// The mask of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    low: u32,
    high: u32,
    threshold: u32,
    scale: f32,
}

impl Dropout {
    /// Dropout that drops values with probability `rate` (0 to below 1).
    pub fn new(rate: f64, key: u64) -> Self {
        let rate = rate.clamp(0.0, 0.999_999) as f32;
        Self { rate, key }
    }

    /// The stream of place `n` inside this one: a layer, a sub-layer or a row.
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

    /// The arguments of the CUDA kernels.
    pub fn parts(self) -> DropoutParts {
        let mask = self.mask();
        DropoutParts {
            key: self.key,
            threshold: mask.threshold,
            scale: mask.scale,
        }
    }

    /// The factor of value `i`: 0 or `1 / (1 − rate)`.
    pub fn factor_at(self, i: u32) -> f32 {
        self.mask().factor(i)
    }

    /// `target = dropout(x)`: the forward pass of values, or the backward pass of gradients.
    ///
    /// # Panics
    /// If lengths differ.
    pub fn apply_to(self, x: &[f32], target: &mut [f32]) {
        assert_eq!(x.len(), target.len(), "dropout keeps the shape");
        self.for_each(target, |i, target, factor| *target = x[i] * factor);
    }

    /// `x = dropout(x)`, in place.
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

    /// Calls `f` with the index of each value, the value and its factor, in parallel.
    fn for_each(self, values: &mut [f32], f: impl Fn(usize, &mut f32, f32) + Sync) {
        let mask = self.mask();
        let chunks = values.par_chunks_mut(CHUNK).enumerate();
        chunks.for_each(|(chunk, values)| {
            for (i, value) in (chunk * CHUNK..).zip(values) {
                f(i, value, mask.factor(i as u32));
            }
        });
    }
}

impl Mask {
    /// The factor of value `i`: 0 or `1 / (1 − rate)`.
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

#[cfg(test)]
mod tests {
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
}
