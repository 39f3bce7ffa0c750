//! Which objective a training example has, and how often.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The position where a sequence is cut for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// In the middle.
    Half,
    /// Between 20 % and 80 % of the sequence, each position equally likely.
    Random,
}

/// The objectives of a run and their weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mixture {
    /// Weight of masking.
    pub masking: f64,
    /// Weight of completion.
    pub completion: f64,
    /// Masking probabilities, each used equally often.
    pub probabilities: Vec<f64>,
    /// Mean number of adjacent residues per sentinel; 1 in the paper.
    pub span: usize,
    /// The position where sequences are cut for completion.
    pub split: Split,
}

impl Default for Mixture {
    fn default() -> Self {
        Self {
            masking: 1.0,
            completion: 1.0,
            probabilities: vec![0.15, 0.2, 0.3],
            span: 1,
            split: Split::Random,
        }
    }
}

/// The objective of one training example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Masking with this probability.
    Masking(f64),
    /// Completion.
    Completion,
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Objective::Masking(probability) => write!(f, "masking {probability}"),
            Objective::Completion => f.write_str("completion"),
        }
    }
}

impl Mixture {
    /// Every objective with a weight above 0.
    pub fn tasks(&self) -> Vec<Objective> {
        let occurs = |task: &Objective| match task {
            Objective::Masking(_) => self.masking > 0.0,
            Objective::Completion => self.completion > 0.0,
        };
        self.all_tasks().into_iter().filter(occurs).collect()
    }

    /// Every objective, including those of weight 0.
    pub fn all_tasks(&self) -> Vec<Objective> {
        let masking = self.probabilities.iter().map(|p| Objective::Masking(*p));
        masking.chain([Objective::Completion]).collect()
    }

    /// Draws the objective of one sequence. A single residue cannot be cut and is masked.
    pub fn pick(&self, length: usize, rng: &mut impl Rng) -> Objective {
        let share = self.masking / (self.masking + self.completion);
        // Both numbers are always drawn, so that a weight of 0 changes no other draw.
        let (which, probability) = (
            rng.random::<f64>(),
            rng.random_range(0..self.probabilities.len()),
        );
        if length < 2 || which < share {
            Objective::Masking(self.probabilities[probability])
        } else {
            Objective::Completion
        }
    }
}

/// What masking loses where the vocabulary has fewer sentinels than residues to mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskingShortfall {
    /// The longest sequence that is masked with the full probability.
    pub longest: usize,
    /// Number of sequences that are not longer.
    pub fitting: usize,
    /// The share of all residues that are masked.
    pub share: f64,
}

impl Mixture {
    /// The shortfall of masking sequences of these lengths with `probability`; `None` if all have
    /// enough sentinels. Spans of more than one residue are never too many: they become longer.
    pub fn shortfall(
        &self,
        probability: f64,
        sentinels: usize,
        lengths: impl Iterator<Item = usize>,
    ) -> Option<MaskingShortfall> {
        let longest = (sentinels as f64 / probability) as usize;
        let (mut fitting, mut longer, mut residues, mut masked) = (0, 0, 0.0, 0.0);
        for length in lengths {
            if length <= longest {
                fitting += 1;
            } else {
                longer += 1;
            }
            residues += length as f64;
            masked += (probability * length as f64).min(sentinels as f64);
        }
        (longer > 0 && self.span <= 1).then(|| MaskingShortfall {
            longest,
            fitting,
            share: masked / residues,
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::training::objective::masked_spans;

    #[test]
    fn too_few_sentinels_mask_a_smaller_share() {
        let mixture = Mixture::default();
        let shortfall = |lengths: &[usize]| mixture.shortfall(0.3, 225, lengths.iter().copied());
        assert_eq!(shortfall(&[10, 512, 750]), None);
        assert_eq!(shortfall(&[]), None);
        let expected = MaskingShortfall {
            longest: 750,
            fitting: 0,
            share: 0.1875,
        };
        assert_eq!(shortfall(&[1200, 1200]), Some(expected));
        let mixed = shortfall(&[1000, 100]).unwrap();
        assert_eq!(mixed.fitting, 1);
        assert!((mixed.share - (225.0 + 30.0) / 1100.0).abs() < 1e-12);
        // The share is that of the masks that are drawn.
        for (length, share) in [(1200, 0.1875), (700, 0.3)] {
            let mut random = ChaCha8Rng::seed_from_u64(7);
            let draws: Vec<usize> = (0..200)
                .map(|_| masked_spans(length, 0.3, 1, 225, &mut random).len())
                .collect();
            let drawn = draws.iter().sum::<usize>() as f64 / (200 * length) as f64;
            assert!((drawn - share).abs() < 2e-3, "{length}: {drawn}");
        }
        let spans = Mixture { span: 3, ..mixture };
        assert_eq!(spans.shortfall(0.3, 225, [1200].into_iter()), None);
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let masked: usize = masked_spans(3000, 0.3, 3, 225, &mut random)
            .iter()
            .map(ExactSizeIterator::len)
            .sum();
        assert_eq!(masked, 900);
    }

    #[test]
    fn the_mixture_draws_what_it_says() {
        let mixture = Mixture {
            masking: 3.0,
            completion: 1.0,
            ..Mixture::default()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let tasks: Vec<Objective> = (0..40_000).map(|_| mixture.pick(100, &mut rng)).collect();
        let share = |wanted: Objective| {
            tasks.iter().filter(|task| **task == wanted).count() as f64 / 40_000.0
        };
        assert!((share(Objective::Completion) - 0.25).abs() < 0.01);
        for probability in [0.15, 0.2, 0.3] {
            assert!(
                (share(Objective::Masking(probability)) - 0.25).abs() < 0.01,
                "{probability}"
            );
        }
        assert_eq!(mixture.tasks().len(), 4);
        assert!(matches!(mixture.pick(1, &mut rng), Objective::Masking(_)));
    }
}
