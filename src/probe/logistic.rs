//! Logistic regression with an L1 penalty, by accelerated proximal gradients (FISTA, Beck &
//! Teboulle 2009, doi 10.1137/080716542).
//!
//! ```text
//! minimise  1/n Σ log(1 + exp(−s (w·x + b))) + λ Σ |w|,   s = ±1, x of mean 0 and deviation 1
//! ```
//!
//! At the minimum the derivative of the first sum by `w_k` is `−λ sign w_k` where `w_k ≠ 0`, and
//! within ±λ elsewhere; [`LogisticFit::violation`] is the distance of a fit from that. Weights are
//! returned for the features before standardisation. Sums are computed in chunks of a fixed size
//! and added in order.

use rayon::prelude::*;

/// Rows per partial sum.
const CHUNK: usize = 4096;

/// Rows of features with one answer per row.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Features per row.
    pub width: usize,
    /// `(rows, width)`, row-major.
    pub features: Vec<f32>,
    /// One answer per row.
    pub answers: Vec<bool>,
}

/// A fitted regression.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticFit {
    /// One weight per feature.
    pub weights: Vec<f64>,
    /// Added to the weighted sum.
    pub bias: f64,
    /// The largest distance of a derivative from its value at the minimum.
    pub violation: f64,
    /// Steps taken.
    pub steps: usize,
}

/// Fits a regression; stops when all derivatives are within `tolerance` of their values at the
/// minimum, or after `steps`.
///
/// # Panics
/// Without rows, or where the numbers of rows and answers differ.
pub fn fit(samples: &Samples, penalty: f64, tolerance: f64, steps: usize) -> LogisticFit {
    let Samples {
        width,
        features,
        answers,
    } = samples;
    let rows = answers.len();
    assert!(
        rows > 0 && features.len() == rows * width,
        "one row of features per answer"
    );
    let scale = Standardisation::of(samples);
    let rate = 1.0 / lipschitz(samples, &scale);
    // The last place is the bias.
    let mut w = vec![0.0; width + 1];
    let mut ahead = w.clone();
    let mut momentum = 1.0f64;
    let mut fitted = (f64::INFINITY, 0);
    for step in 0..steps {
        let gradient = gradient(samples, &scale, &ahead);
        let mut next: Vec<f64> = ahead
            .iter()
            .zip(&gradient)
            .map(|(w, g)| w - rate * g)
            .collect();
        for weight in &mut next[..*width] {
            *weight = weight.signum() * (weight.abs() - rate * penalty).max(0.0);
        }
        // Momentum that leads uphill is reset (O'Donoghue & Candès 2015).
        let uphill: f64 = (0..=*width)
            .map(|k| (ahead[k] - next[k]) * (next[k] - w[k]))
            .sum();
        let grown = if uphill > 0.0 {
            1.0
        } else {
            f64::midpoint(1.0, (1.0 + 4.0 * momentum * momentum).sqrt())
        };
        let lead = if uphill > 0.0 {
            0.0
        } else {
            (momentum - 1.0) / grown
        };
        ahead = next
            .iter()
            .zip(&w)
            .map(|(next, w)| next + lead * (next - w))
            .collect();
        (momentum, w) = (grown, next);
        fitted.1 = step + 1;
        if step % 10 == 9 || step + 1 == steps {
            fitted.0 = violation(&w, &self::gradient(samples, &scale, &w), penalty);
            if fitted.0 <= tolerance {
                break;
            }
        }
    }
    let weights: Vec<f64> = (0..*width).map(|k| w[k] / scale.deviations[k]).collect();
    let shift: f64 = weights
        .iter()
        .zip(&scale.means)
        .map(|(w, mean)| w * mean)
        .sum();
    LogisticFit {
        weights,
        bias: w[*width] - shift,
        violation: fitted.0,
        steps: fitted.1,
    }
}

/// The means and deviations that standardise features.
struct Standardisation {
    means: Vec<f64>,
    deviations: Vec<f64>,
}

impl Standardisation {
    fn of(samples: &Samples) -> Self {
        let n = samples.answers.len() as f64;
        let means: Vec<f64> = sums(samples, |row, _, sums| {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, x)| *sum += f64::from(*x));
        })
        .iter()
        .map(|sum| sum / n)
        .collect();
        let squares = sums(samples, |row, _, sums| {
            for ((sum, x), mean) in sums.iter_mut().zip(row).zip(&means) {
                *sum += (f64::from(*x) - mean).powi(2);
            }
        });
        // A constant feature carries no information and must not be divided by 0.
        let deviation = |square: &f64| {
            if *square > 0.0 {
                (square / n).sqrt()
            } else {
                1.0
            }
        };
        let deviations = squares[..samples.width].iter().map(deviation).collect();
        Self {
            means: means[..samples.width].to_vec(),
            deviations,
        }
    }

    fn apply(&self, row: &[f32], to: &mut [f64]) {
        for (k, (to, x)) in to.iter_mut().zip(row).enumerate() {
            *to = (f64::from(*x) - self.means[k]) / self.deviations[k];
        }
    }
}

/// Sums of `width + 1` values over all rows, in an order that does not depend on threads.
fn sums(samples: &Samples, add: impl Fn(&[f32], bool, &mut [f64]) + Sync) -> Vec<f64> {
    let width = samples.width;
    let partial: Vec<Vec<f64>> = samples
        .features
        .par_chunks(CHUNK * width.max(1))
        .zip(samples.answers.par_chunks(CHUNK))
        .map(|(features, answers)| {
            let mut sums = vec![0.0; width + 1];
            for (row, answer) in features.chunks_exact(width.max(1)).zip(answers) {
                add(row, *answer, &mut sums);
            }
            sums
        })
        .collect();
    partial
        .into_iter()
        .fold(vec![0.0; width + 1], |mut all, part| {
            all.iter_mut()
                .zip(part)
                .for_each(|(all, part)| *all += part);
            all
        })
}

/// Derivatives of the mean loss by the weights and the bias.
fn gradient(samples: &Samples, scale: &Standardisation, w: &[f64]) -> Vec<f64> {
    let (width, n) = (samples.width, samples.answers.len() as f64);
    let mut all = sums(samples, |row, answer, sums| {
        let mut x = vec![0.0; width];
        scale.apply(row, &mut x);
        let logit: f64 = x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + w[width];
        let residual = 1.0 / (1.0 + (-logit).exp()) - f64::from(u8::from(answer));
        sums.iter_mut()
            .zip(&x)
            .for_each(|(sum, x)| *sum += residual * x);
        sums[width] += residual;
    });
    for value in &mut all {
        *value /= n;
    }
    all
}

fn violation(w: &[f64], gradient: &[f64], penalty: f64) -> f64 {
    let (bias, weights) = gradient.split_last().expect("the bias is there");
    let each = w.iter().zip(weights).map(|(w, g)| {
        if *w == 0.0 {
            (g.abs() - penalty).max(0.0)
        } else {
            (g + penalty * w.signum()).abs()
        }
    });
    each.fold(bias.abs(), f64::max)
}

/// An upper bound of the gradient's Lipschitz constant: a quarter of the largest eigenvalue of the
/// features' correlation matrix with the bias, from 20 power iterations and 20 % on top.
fn lipschitz(samples: &Samples, scale: &Standardisation) -> f64 {
    let width = samples.width;
    let n = samples.answers.len() as f64;
    let mut v = vec![1.0; width + 1];
    let mut largest = 1.0;
    for _ in 0..20 {
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        for x in &mut v {
            *x /= norm;
        }
        let product = sums(samples, |row, _, sums| {
            let mut x = vec![0.0; width];
            scale.apply(row, &mut x);
            let dot = x.iter().zip(&v).map(|(x, v)| x * v).sum::<f64>() + v[width];
            sums.iter_mut().zip(&x).for_each(|(sum, x)| *sum += dot * x);
            sums[width] += dot;
        });
        v = product.iter().map(|x| x / n).collect();
        largest = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    }
    1.2 * largest.max(1.0) / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// 500 rows of five features on different scales, the first two of which decide.
    fn samples() -> Samples {
        let mut stream = ChaCha8Rng::seed_from_u64(1);
        let (mut features, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..500 {
            let x: [f64; 5] = std::array::from_fn(|_| stream.random_range(-1.0..1.0));
            let logit = 3.0 * x[0] - 2.0 * x[1] + 0.5;
            answers.push(stream.random_range(0.0..1.0) < 1.0 / (1.0 + (-logit).exp()));
            features.extend(
                x.iter()
                    .enumerate()
                    .map(|(k, x)| (x * 10f64.powi(k as i32 - 2) + 3.0) as f32),
            );
        }
        Samples {
            width: 5,
            features,
            answers,
        }
    }

    #[test]
    fn the_minimum_is_found_and_features_without_influence_get_no_weight() {
        let samples = samples();
        let fitted = fit(&samples, 0.02, 1e-9, 5000);
        assert!(fitted.violation <= 1e-9, "{fitted:?}");
        assert!(
            fitted.weights[0] > 0.0 && fitted.weights[1] < 0.0,
            "{fitted:?}"
        );
        assert_eq!(&fitted.weights[2..], [0.0; 3], "{fitted:?}");
        // A heavier penalty leaves nothing but the bias: the logarithm of the odds.
        let none = fit(&samples, 10.0, 1e-9, 5000);
        let positive = samples.answers.iter().filter(|answer| **answer).count() as f64;
        assert_eq!(none.weights, [0.0; 5]);
        assert!((none.bias - (positive / (500.0 - positive)).ln()).abs() < 1e-6);
    }

    #[test]
    fn without_a_penalty_the_true_weights_are_found() {
        let fitted = fit(&samples(), 0.0, 1e-9, 20_000);
        assert!((fitted.weights[0] * 0.01 - 3.0).abs() < 0.6, "{fitted:?}");
        assert!((fitted.weights[1] * 0.1 + 2.0).abs() < 0.6, "{fitted:?}");
    }
}
