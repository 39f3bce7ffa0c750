//! 95 % intervals by the percentile bootstrap (Efron 1979): proteins are drawn with replacement and
//! the measure is computed again; the middle 95 % of the results are the interval.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Number of bootstrap draws.
pub const RESAMPLES: usize = 1000;

/// A measure and the ends of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The measure of the proteins themselves, without resampling.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4} [{:.4}, {:.4}]", self.value, self.low, self.high)
    }
}

/// The measure of `units` proteins and its interval. `measure` receives how often each protein
/// counts and may return none; where it returns none for the proteins themselves there is no
/// estimate. The draws depend on `seed` alone.
pub fn bootstrap(
    units: usize,
    resamples: usize,
    seed: u64,
    measure: impl Fn(&[u32]) -> Option<f64> + Sync,
) -> Option<Estimate> {
    let value = measure(&vec![1; units])?;
    let draw = |number: usize| {
        let mut stream = ChaCha8Rng::seed_from_u64(seed);
        stream.set_stream(number as u64);
        let mut counts = vec![0; units];
        (0..units).for_each(|_| counts[stream.random_range(0..units)] += 1);
        measure(&counts)
    };
    let mut drawn: Vec<f64> = (0..resamples).into_par_iter().filter_map(draw).collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (drawn.len().max(1) - 1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        let part = place - place.floor();
        Some(drawn.get(below)? * (1.0 - part) + drawn.get(above)? * part)
    };
    Some(Estimate {
        value,
        low: at(0.025).unwrap_or(value),
        high: at(0.975).unwrap_or(value),
    })
}

/// The mean of one value per protein, and its interval; missing values are left out.
pub fn mean_of(values: &[Option<f64>], resamples: usize, seed: u64) -> Option<Estimate> {
    bootstrap(values.len(), resamples, seed, |counts| {
        let (mut sum, mut all) = (0.0, 0);
        for (value, count) in values.iter().zip(counts) {
            if let Some(value) = value {
                sum += value * f64::from(*count);
                all += count;
            }
        }
        (all > 0).then(|| sum / f64::from(all))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_that_of_the_normal_distribution() {
        // 400 values of mean 0.5 and deviation 0.5: the interval is 0.5 ± 1.96 · 0.025.
        let values: Vec<Option<f64>> = (0..400).map(|i| Some(f64::from(i % 2))).collect();
        let estimate = mean_of(&values, 4000, 1).unwrap();
        assert_eq!(estimate.value, 0.5);
        assert!((estimate.low - 0.451).abs() < 0.004, "{estimate}");
        assert!((estimate.high - 0.549).abs() < 0.004, "{estimate}");
        assert_eq!(mean_of(&values, 100, 3), mean_of(&values, 100, 3));
    }

    #[test]
    fn nothing_to_measure_is_no_estimate() {
        assert_eq!(mean_of(&[], 10, 1), None);
        assert_eq!(mean_of(&[None, None], 10, 1), None);
        let one = mean_of(&[Some(2.0), None], 50, 1).unwrap();
        assert_eq!((one.value, one.low, one.high), (2.0, 2.0, 2.0));
    }
}
