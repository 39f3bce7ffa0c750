//! Measures of predicted classes: a confusion matrix and what follows from it, and the area under
//! the ROC curve.

use serde::{Deserialize, Serialize};

/// How often each class was taken for each: `counts[truth · classes + predicted]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

impl Confusion {
    /// An empty matrix.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            counts: vec![0; classes * classes],
        }
    }

    /// Counts one prediction.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        self.counts[truth * self.classes + predicted] += 1;
    }

    /// The sum of several matrices, each as often as `times` says.
    pub fn sum(classes: usize, each: &[Confusion], times: &[u32]) -> Self {
        let mut all = Self::new(classes);
        for (one, times) in each.iter().zip(times) {
            for (sum, count) in all.counts.iter_mut().zip(&one.counts) {
                *sum += count * u64::from(*times);
            }
        }
        all
    }

    /// How often `truth` was taken for `predicted`.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        self.counts[truth * self.classes + predicted]
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of predictions.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Number of predictions whose true class is `class`.
    pub fn truths(&self, class: usize) -> u64 {
        (0..self.classes)
            .map(|other| self.count(class, other))
            .sum()
    }

    fn predictions(&self, class: usize) -> u64 {
        (0..self.classes)
            .map(|other| self.count(other, class))
            .sum()
    }

    fn hits(&self) -> u64 {
        (0..self.classes)
            .map(|class| self.count(class, class))
            .sum()
    }

    /// The share of correct predictions: Q3, Q8.
    pub fn accuracy(&self) -> Option<f64> {
        (self.total() > 0).then(|| self.hits() as f64 / self.total() as f64)
    }

    /// The share of correct predictions among those whose true class is `class`.
    pub fn class_accuracy(&self, class: usize) -> Option<f64> {
        let truths = self.truths(class);
        (truths > 0).then(|| self.count(class, class) as f64 / truths as f64)
    }

    /// Matthews' correlation coefficient in Gorodkin's form for any number of classes (doi
    /// 10.1016/j.compbiolchem.2004.09.006); none where there is only one true or one predicted
    /// class.
    pub fn mcc(&self) -> Option<f64> {
        let total = self.total() as f64;
        let (mut products, mut truths, mut predictions) = (0.0, 0.0, 0.0);
        for class in 0..self.classes {
            let (t, p) = (self.truths(class) as f64, self.predictions(class) as f64);
            products += t * p;
            truths += t * t;
            predictions += p * p;
        }
        let spread = (total * total - truths) * (total * total - predictions);
        (spread > 0.0).then(|| (self.hits() as f64 * total - products) / spread.sqrt())
    }
}

/// The score of a residue or protein, whether its true class is the one scored, and the number of
/// its protein.
pub type Scored = (f32, bool, u32);

/// Sorts by score, for [`auroc`].
pub fn sort_scored(scored: &mut [Scored]) {
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
}

/// The area under the ROC curve of sorted scores, each as often as its protein counts: the
/// probability that a member of the class scores higher than a non-member, equal scores counting
/// half. None where there are no members or no non-members.
pub fn auroc(sorted: &[Scored], times: &[u32]) -> Option<f64> {
    let (mut below, mut wins, mut positives) = (0.0, 0.0, 0.0);
    for group in sorted.chunk_by(|a, b| a.0 == b.0) {
        let (mut yes, mut no) = (0.0, 0.0);
        for (_, positive, protein) in group {
            let weight = f64::from(times[*protein as usize]);
            if *positive {
                yes += weight;
            } else {
                no += weight;
            }
        }
        wins += yes * (below + no / 2.0);
        below += no;
        positives += yes;
    }
    (positives > 0.0 && below > 0.0).then(|| wins / (positives * below))
}
