//! Reference results in f64, and the largest error of a result.

use ankh3::kernels::cuda::launch::Element;
use ankh3::kernels::dropout::Dropout;
use ankh3::kernels::plan::{Segment, Visibility};
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values in ±`size`.
pub fn random(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let mut stream = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| size * stream.random_range(-1.0..1.0))
        .collect()
}

/// The values as the element's type represents them.
pub fn stored(values: &[f32], element: Element) -> Vec<f64> {
    let store = |value: &f32| match element {
        Element::F32 => *value,
        Element::Bf16 => bf16::from_f32(*value).to_f32(),
    };
    values.iter().map(|value| f64::from(store(value))).collect()
}

/// Largest difference relative to the largest expected magnitude.
pub fn error(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-300_f64, |m, x| m.max(x.abs()));
    let difference = |(got, expected): (&f32, &f64)| (f64::from(*got) - expected).abs();
    let errors = got.iter().zip(expected).map(difference);
    errors.fold(0.0, |worst: f64, e| {
        if e.is_nan() || worst.is_nan() {
            f64::NAN
        } else {
            worst.max(e)
        }
    }) / largest
}

/// Fails where the error of a result exceeds `limit`.
pub fn assert_close(what: &str, got: &[f32], expected: &[f64], limit: f64) {
    let error = error(got, expected);
    assert!(
        error <= limit,
        "{what}: error {error:.2e}, limit {limit:.0e}"
    );
    // An all-zero expectation would test nothing.
    assert!(
        expected.iter().any(|x| *x != 0.0),
        "{what}: nothing but zeros"
    );
}

/// One attention, in f64.
pub struct Attention<'a> {
    pub q: &'a [f64],
    /// Rows of keys, `heads d_kv` wide.
    pub k: &'a [f64],
    pub v: &'a [f64],
    /// `(2 max_distance + 1, heads)`.
    pub bias: Option<&'a [f64]>,
    pub heads: usize,
    pub d: usize,
    pub visibility: Visibility,
    pub segments: &'a [Segment],
    pub dropout: Option<Dropout>,
}

/// Gradients.
pub struct Gradients {
    pub dq: Vec<f64>,
    pub dk: Vec<f64>,
    pub dv: Vec<f64>,
    pub d_bias: Vec<f64>,
    /// Sums of the magnitudes of the terms of `d_bias`.
    pub terms: Vec<f64>,
}

impl Attention<'_> {
    fn row<'b>(&self, x: &'b [f64], row: usize, head: usize) -> &'b [f64] {
        &x[(row * self.heads + head) * self.d..][..self.d]
    }

    fn distance(&self, segment: &Segment, i: usize, j: usize) -> usize {
        let limit = (self.bias.map_or(1, <[f64]>::len) / self.heads / 2) as i64;
        let distance = j as i64 - (segment.first_position + i) as i64;
        (distance.clamp(-limit, limit) + limit) as usize
    }

    /// Weights and dropout factors of query `i`.
    fn weights(&self, segment: &Segment, i: usize, head: usize) -> (Vec<f64>, Vec<f64>) {
        let q = self.row(self.q, segment.queries.start + i, head);
        let scores: Vec<f64> = (0..segment.keys.len())
            .map(|j| {
                if self.visibility == Visibility::Causal && j > segment.first_position + i {
                    return f64::NEG_INFINITY;
                }
                let k = self.row(self.k, segment.keys.start + j, head);
                let product: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                let row = self.distance(segment, i, j);
                product + self.bias.map_or(0.0, |bias| bias[row * self.heads + head])
            })
            .collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|s| (s - highest).exp()).collect();
        let total: f64 = powers.iter().sum();
        let place = (segment.queries.start + i) * self.heads + head;
        let factors = (0..segment.keys.len()).map(|j| {
            self.dropout
                .map_or(1.0, |d| f64::from(d.at(place as u64).factor_at(j as u32)))
        });
        (
            powers.iter().map(|p| p / total).collect(),
            factors.collect(),
        )
    }

    pub fn forward(&self) -> Vec<f64> {
        let mut out = vec![0.0; self.q.len()];
        for segment in self.segments {
            for i in 0..segment.queries.len() {
                for head in 0..self.heads {
                    let (weights, factors) = self.weights(segment, i, head);
                    let first = ((segment.queries.start + i) * self.heads + head) * self.d;
                    for (j, (weight, factor)) in weights.iter().zip(&factors).enumerate() {
                        let v = self.row(self.v, segment.keys.start + j, head);
                        for (out, v) in out[first..].iter_mut().zip(v) {
                            *out += weight * factor * v;
                        }
                    }
                }
            }
        }
        out
    }

    pub fn backward(&self, grad: &[f64]) -> Gradients {
        let mut g = Gradients {
            dq: vec![0.0; self.q.len()],
            dk: vec![0.0; self.k.len()],
            dv: vec![0.0; self.v.len()],
            d_bias: vec![0.0; self.bias.map_or(0, <[f64]>::len)],
            terms: vec![0.0; self.bias.map_or(0, <[f64]>::len)],
        };
        for segment in self.segments {
            for i in 0..segment.queries.len() {
                for head in 0..self.heads {
                    self.backward_query(segment, i, head, grad, &mut g);
                }
            }
        }
        g
    }

    fn backward_query(
        &self,
        segment: &Segment,
        i: usize,
        head: usize,
        grad: &[f64],
        g: &mut Gradients,
    ) {
        let (weights, factors) = self.weights(segment, i, head);
        let query = segment.queries.start + i;
        let (q, dy) = (self.row(self.q, query, head), self.row(grad, query, head));
        let slope_of = |j: usize| -> f64 {
            let v = self.row(self.v, segment.keys.start + j, head);
            dy.iter().zip(v).map(|(d, v)| d * v).sum::<f64>() * factors[j]
        };
        let slopes: Vec<f64> = (0..weights.len()).map(slope_of).collect();
        let mean: f64 = weights.iter().zip(&slopes).map(|(w, s)| w * s).sum();
        for (j, ((weight, slope), factor)) in weights.iter().zip(&slopes).zip(&factors).enumerate()
        {
            let ds = weight * (slope - mean);
            let key = ((segment.keys.start + j) * self.heads + head) * self.d;
            let from = (query * self.heads + head) * self.d;
            for (c, (d, q)) in dy.iter().zip(q).enumerate() {
                g.dv[key + c] += weight * factor * d;
                g.dk[key + c] += ds * q;
                g.dq[from + c] += ds * self.k[key + c];
            }
            if self.bias.is_some() {
                let at = self.distance(segment, i, j) * self.heads + head;
                g.d_bias[at] += ds;
                g.terms[at] += ds.abs();
            }
        }
    }
}
