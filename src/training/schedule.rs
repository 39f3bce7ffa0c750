//! The learning rate of a step, as a pure function of the step.

use serde::{Deserialize, Serialize};

/// The course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Always the peak.
    Constant,
    /// `peak · √(warm-up / step)`, as T5 was trained.
    InverseSquareRoot,
    /// Half a cosine period from the peak to the final rate.
    Cosine,
    /// Warm-up, stable, decay: the peak, then linear decay to the final rate over the last steps
    /// (arXiv 2404.06395).
    Wsd,
}

/// The schedule of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The course after the warm-up.
    pub kind: ScheduleKind,
    /// Steps over which the rate rises linearly to the peak.
    pub warmup_steps: u64,
    /// The final rate as a fraction of the peak (cosine, wsd).
    pub final_fraction: f64,
    /// The fraction of all steps over which wsd decays.
    pub decay_fraction: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Cosine,
            warmup_steps: 500,
            final_fraction: 0.01,
            decay_fraction: 0.2,
        }
    }
}

impl Schedule {
    /// The rate of step `step` of `steps`, counted from 0, as a fraction of the peak.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let line =
            |from: f64, done: f64| from + (self.final_fraction - from) * done.clamp(0.0, 1.0);
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::InverseSquareRoot => (self.warmup_steps.max(1) as f64
                / (step + 1) as f64)
                .sqrt()
                .min(1.0),
            ScheduleKind::Cosine => {
                let all = steps.saturating_sub(self.warmup_steps).max(1) as f64;
                let done = ((step - self.warmup_steps) as f64 / all).min(1.0);
                let half = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
                self.final_fraction + (1.0 - self.final_fraction) * half
            }
            ScheduleKind::Wsd => {
                let decay = (steps as f64 * self.decay_fraction).max(1.0);
                line(1.0, (step as f64 - (steps as f64 - decay)) / decay)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_cases() {
        let schedule = |kind| Schedule {
            kind,
            warmup_steps: 10,
            final_fraction: 0.1,
            decay_fraction: 0.2,
        };
        let table = [
            (ScheduleKind::Constant, 0, 0.1),
            (ScheduleKind::Constant, 9, 1.0),
            (ScheduleKind::Constant, 99, 1.0),
            (ScheduleKind::InverseSquareRoot, 4, 0.5),
            (ScheduleKind::InverseSquareRoot, 9, 1.0),
            (ScheduleKind::InverseSquareRoot, 39, 0.5),
            (ScheduleKind::InverseSquareRoot, 999, 0.1),
            (ScheduleKind::Cosine, 10, 1.0),
            (ScheduleKind::Cosine, 55, 0.55),
            (ScheduleKind::Cosine, 100, 0.1),
            (ScheduleKind::Cosine, 1000, 0.1),
            (ScheduleKind::Wsd, 10, 1.0),
            (ScheduleKind::Wsd, 80, 1.0),
            (ScheduleKind::Wsd, 90, 0.55),
            (ScheduleKind::Wsd, 100, 0.1),
        ];
        for (kind, step, expected) in table {
            let got = schedule(kind).factor(step, 100);
            assert!((got - expected).abs() < 1e-12, "{kind:?} {step}: {got}");
        }
        let none = Schedule {
            warmup_steps: 0,
            ..schedule(ScheduleKind::InverseSquareRoot)
        };
        assert_eq!(none.factor(0, 100), 1.0);
    }
}
