//! How a head is trained. The defaults are the paper's: 5 epochs, gradients of 16 proteins averaged
//! per step, AdamW without weight decay, a peak learning rate of 1e-3 after 1000 steps of warm-up,
//! seed 7; the best epoch on the validation set is kept.

use serde::{Deserialize, Serialize};

/// The hyperparameters of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FitSettings {
    /// Passes over the training proteins.
    pub epochs: usize,
    /// Proteins per step.
    pub accumulation: usize,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// Steps of warm-up; never more than half of all steps, which matters for small sets only.
    pub warmup_steps: usize,
    /// The largest norm of a step's gradients, to which larger ones are scaled down; 0 for no
    /// limit.
    pub clip_norm: f64,
    /// Decides the first weights, the order of proteins, and dropout.
    pub seed: u64,
}

impl Default for FitSettings {
    fn default() -> Self {
        Self {
            epochs: 5,
            accumulation: 16,
            learning_rate: 1e-3,
            warmup_steps: 1000,
            clip_norm: 1.0,
            seed: 7,
        }
    }
}

impl FitSettings {
    /// Steps per epoch over `proteins` proteins.
    pub fn steps_per_epoch(&self, proteins: usize) -> usize {
        proteins.div_ceil(self.accumulation.max(1))
    }

    /// The learning rate of a step (from 0) among `steps`: rises linearly to the peak, then falls
    /// linearly to 0 at the end.
    pub fn rate(&self, step: usize, steps: usize) -> f64 {
        let warmup = self.warmup_steps.min(steps / 2);
        let share = if step < warmup {
            (step + 1) as f64 / warmup as f64
        } else {
            (steps - step.min(steps)) as f64 / (steps - warmup).max(1) as f64
        };
        self.learning_rate * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let settings = FitSettings::default();
        let table = [
            (0, 5000, 1e-6),
            (499, 5000, 5e-4),
            (999, 5000, 1e-3),
            (1000, 5000, 1e-3),
            (3000, 5000, 5e-4),
            (4999, 5000, 2.5e-7),
            // Few steps: half of them are warm-up.
            (4, 10, 1e-3),
            (9, 10, 2e-4),
            (0, 1, 1e-3),
        ];
        for (step, steps, rate) in table {
            let got = settings.rate(step, steps);
            assert!((got - rate).abs() < 1e-12, "{step} of {steps}: {got}");
        }
        assert_eq!(settings.steps_per_epoch(33), 3);
    }
}
