//! Sampling of a token: temperature, top-k and nucleus sampling (top-p) in the order of Hugging
//! Face's warpers, and the random stream of one sample.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The changes to a distribution before a token is drawn from it, applied in the order of the
/// fields.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sampling {
    /// The divisor of the logits, above 0.
    pub temperature: f64,
    /// Tokens less probable than the k-th are removed; tokens as probable as the k-th remain.
    pub top_k: Option<usize>,
    /// The least probable tokens are removed while their probabilities sum to at most 1 - p; the
    /// most probable token always remains.
    pub top_p: Option<f64>,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: None,
        }
    }
}

impl Sampling {
    /// The probabilities with which tokens of these `log_probs`, given up to a constant, are drawn;
    /// the sum is 1.
    pub fn probabilities(&self, log_probs: &[f64]) -> Vec<f64> {
        let mut scores: Vec<f64> = log_probs
            .iter()
            .map(|log_prob| log_prob / self.temperature)
            .collect();
        if let Some(k) = self.top_k.filter(|k| *k < scores.len()) {
            let mut sorted = scores.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let least = sorted[k.max(1) - 1];
            for score in scores.iter_mut().filter(|score| **score < least) {
                *score = f64::NEG_INFINITY;
            }
        }
        let probabilities = softmax(&scores);
        match self.top_p {
            Some(top_p) if top_p < 1.0 => nucleus(probabilities, top_p),
            _ => probabilities,
        }
    }
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials = scores.iter().map(|score| (score - largest).exp()).collect();
    normalized(exponentials)
}

fn normalized(mut weights: Vec<f64>) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    for weight in &mut weights {
        *weight /= total;
    }
    weights
}

fn nucleus(mut probabilities: Vec<f64>, top_p: f64) -> Vec<f64> {
    let mut ascending: Vec<usize> = (0..probabilities.len()).collect();
    ascending.sort_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
    ascending.pop();
    let mut sum = 0.0;
    for token in ascending {
        sum += probabilities[token];
        if sum > 1.0 - top_p {
            break;
        }
        probabilities[token] = 0.0;
    }
    normalized(probabilities)
}

/// The random numbers of one sample: `ChaCha12`, keyed by seed, sequence id and sample number
/// alone. Each token uses one number.
#[derive(Clone, Debug)]
pub struct RandomStream(ChaCha12Rng);

impl RandomStream {
    /// The stream of sample `sample` (from 0) of sequence `id`.
    pub fn new(seed: u64, id: &str, sample: u64) -> Self {
        let mut key = Sha256::new();
        key.update(b"ankh3 sample\0");
        key.update(seed.to_le_bytes());
        key.update(sample.to_le_bytes());
        key.update(id);
        Self(ChaCha12Rng::from_seed(key.finalize().into()))
    }

    /// An index drawn with `probabilities`, whose sum is 1.
    ///
    /// # Panics
    /// No probability above 0.
    pub fn draw(&mut self, probabilities: &[f64]) -> usize {
        // 53 random bits, the precision of an f64.
        let mut left = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        for (index, probability) in probabilities.iter().enumerate() {
            if left < *probability {
                return index;
            }
            left -= probability;
        }
        // Rounding may leave a small remainder, which counts for the last token that can be drawn.
        probabilities
            .iter()
            .rposition(|probability| *probability > 0.0)
            .expect("a distribution has a token to draw")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
    }

    type Case<'a> = (f64, Option<usize>, Option<f64>, &'a [f64]);

    #[test]
    fn warpers_in_the_order_of_hugging_face() {
        let log_probs = [0.5f64, 0.25, 0.125, 0.125].map(f64::ln);
        let table: [Case<'_>; 9] = [
            (1.0, None, None, &[0.5, 0.25, 0.125, 0.125]),
            (
                0.5,
                None,
                None,
                &[8.0 / 11.0, 2.0 / 11.0, 0.5 / 11.0, 0.5 / 11.0],
            ),
            (1.0, Some(1), None, &[1.0, 0.0, 0.0, 0.0]),
            (1.0, Some(2), None, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]),
            // Tokens as probable as the k-th remain.
            (1.0, Some(3), None, &[0.5, 0.25, 0.125, 0.125]),
            (1.0, Some(9), Some(1.0), &[0.5, 0.25, 0.125, 0.125]),
            (1.0, None, Some(0.7), &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]),
            (1.0, None, Some(0.01), &[1.0, 0.0, 0.0, 0.0]),
            // Top-p applies after temperature and top-k: 2/3 and 1/3, squared 4/5 and 1/5.
            (0.5, Some(2), Some(0.75), &[1.0, 0.0, 0.0, 0.0]),
        ];
        for (temperature, top_k, top_p, expected) in table {
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
            };
            close(&sampling.probabilities(&log_probs), expected);
        }
    }

    #[test]
    fn a_stream_depends_on_seed_id_and_sample_and_on_nothing_else() {
        let uniform = [1.0 / 1024.0; 1024];
        let numbers = |seed, id, sample| {
            let mut stream = RandomStream::new(seed, id, sample);
            std::array::from_fn::<_, 8, _>(|_| stream.draw(&uniform))
        };
        let first = numbers(1, "a", 0);
        assert_eq!(first, numbers(1, "a", 0));
        for other in [numbers(2, "a", 0), numbers(1, "b", 0), numbers(1, "a", 1)] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn what_has_no_probability_is_never_drawn() {
        let mut stream = RandomStream::new(0, "", 0);
        for _ in 0..1000 {
            assert_eq!(stream.draw(&[0.0, 1.0 - 1e-9, 0.0]), 1);
        }
    }
}
