//! Beam search of one prompt, as Hugging Face's `GenerationMixin._beam_search` with
//! `early_stopping=False`:
//!
//! - The best `2 num_beams` continuations of the running beams are candidates.
//! - Candidates that end, among the best `num_beams`, are finished, with the score log-probability
//!   / length^penalty.
//! - The best `num_beams` candidates that do not end run on.
//! - The search stops at the length limit, or when `num_beams` sequences are finished and the
//!   log-probability of the best running beam, divided by the current length^penalty, is not above
//!   the score of the worst finished sequence.
//!
//! Hugging Face fills missing beams with a score of -1e9; here the first step has one beam.

use super::allowed::{Allowed, Choice};
use super::{BeamSearch, GeneratedSequence, NotFinite};

#[derive(Clone, Debug)]
struct Hypothesis {
    token_ids: Vec<u32>,
    log_probs: Vec<f64>,
    /// Σ ln p in the whole vocabulary.
    sum: f64,
}

/// The beams of one prompt.
#[derive(Debug)]
pub(super) struct Beams {
    search: BeamSearch,
    /// Best first.
    running: Vec<Hypothesis>,
    /// Best first.
    finished: Vec<(f64, GeneratedSequence)>,
}

struct Candidate {
    beam: usize,
    choice: Choice,
    sum: f64,
}

impl Beams {
    pub(super) fn new(search: BeamSearch) -> Self {
        let empty = Hypothesis {
            token_ids: Vec::new(),
            log_probs: Vec::new(),
            sum: 0.0,
        };
        Self {
            search,
            running: vec![empty],
            finished: Vec::new(),
        }
    }

    /// The tokens of each running beam.
    pub(super) fn running(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.running.iter().map(|beam| beam.token_ids.as_slice())
    }

    /// Continues the beams by their logits, one row `(vocab)` per running beam. Returns for each
    /// next beam the beam that it continues; an empty list ends the search.
    pub(super) fn advance<'a>(
        &mut self,
        logits: impl Iterator<Item = &'a [f32]>,
        allowed: &Allowed,
        min_new: usize,
        max_new: usize,
    ) -> Result<Vec<usize>, NotFinite> {
        let length = self.running[0].token_ids.len() + 1;
        let candidates = self.candidates(logits, allowed, length > min_new)?;
        let (mut parents, mut next) = (Vec::new(), Vec::new());
        for (rank, candidate) in candidates.iter().enumerate() {
            let ends = candidate.choice.id == allowed.end();
            if ends || length == max_new {
                if rank < self.search.num_beams {
                    self.finish(candidate, ends, length);
                }
            } else if next.len() < self.search.num_beams {
                parents.push(candidate.beam);
                next.push(self.continued(candidate));
            }
        }
        self.finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.finished.truncate(self.search.num_beams);
        self.running = next;
        if self.may_improve(length) {
            Ok(parents)
        } else {
            Ok(Vec::new())
        }
    }

    /// The best `2 num_beams` continuations, best first; of equals the earlier beam first, then the
    /// lower id.
    fn candidates<'a>(
        &self,
        logits: impl Iterator<Item = &'a [f32]>,
        allowed: &Allowed,
        may_end: bool,
    ) -> Result<Vec<Candidate>, NotFinite> {
        let mut candidates = Vec::new();
        for (beam, (hypothesis, logits)) in self.running.iter().zip(logits).enumerate() {
            let choices = allowed.choices(logits, may_end)?;
            candidates.extend(choices.into_iter().map(|choice| Candidate {
                beam,
                choice,
                sum: hypothesis.sum + choice.full_log_prob,
            }));
        }
        candidates.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        candidates.truncate(2 * self.search.num_beams);
        Ok(candidates)
    }

    fn continued(&self, candidate: &Candidate) -> Hypothesis {
        let mut hypothesis = self.running[candidate.beam].clone();
        hypothesis.token_ids.push(candidate.choice.id);
        hypothesis.log_probs.push(candidate.choice.log_prob);
        hypothesis.sum = candidate.sum;
        hypothesis
    }

    fn finish(&mut self, candidate: &Candidate, ends: bool, length: usize) {
        let hypothesis = if ends {
            self.running[candidate.beam].clone()
        } else {
            self.continued(candidate)
        };
        let score = self.score(candidate.sum, length);
        let completion = GeneratedSequence {
            token_ids: hypothesis.token_ids,
            log_probs: hypothesis.log_probs,
            end_log_prob: ends.then_some(candidate.choice.log_prob),
            score: Some(score),
        };
        self.finished.push((score, completion));
    }

    fn score(&self, sum: f64, length: usize) -> f64 {
        sum / (length as f64).powf(self.search.length_penalty)
    }

    fn may_improve(&self, length: usize) -> bool {
        let Some(best) = self.running.first() else {
            return false;
        };
        let worst = self.finished.get(self.search.num_beams - 1);
        worst.is_none_or(|(worst, _)| self.score(best.sum, length) > *worst)
    }

    /// The finished sequences, best first.
    pub(super) fn into_completions(self) -> impl Iterator<Item = GeneratedSequence> {
        self.finished.into_iter().map(|(_, completion)| completion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model without memory over tokens 0, 1 (ends) and 2.
    fn search(
        probabilities: [f32; 3],
        num_beams: usize,
        length_penalty: f64,
    ) -> Vec<GeneratedSequence> {
        let logits = probabilities.map(f32::ln);
        let allowed = Allowed::new(0..3, 1);
        let mut beams = Beams::new(BeamSearch {
            num_beams,
            length_penalty,
        });
        loop {
            let rows = vec![logits.as_slice(); beams.running().len()];
            if beams
                .advance(rows.into_iter(), &allowed, 0, 3)
                .unwrap()
                .is_empty()
            {
                return beams.into_completions().collect();
            }
        }
    }

    #[test]
    fn the_penalty_decides_between_short_and_long() {
        let short = search([0.45, 0.35, 0.2], 2, 0.0);
        assert_eq!(short[0].token_ids, [0; 0]);
        let long = search([0.45, 0.35, 0.2], 2, 2.0);
        assert_eq!(long[0].token_ids, [0, 0, 0]);
        assert_eq!(long[0].end_log_prob, None);
        let score = long[0].score.unwrap();
        assert!(
            (score - f64::from(0.45f32).ln() * 3.0 / 9.0).abs() < 1e-6,
            "{score}"
        );
    }

    #[test]
    fn more_beams_than_sequences_give_what_there_is() {
        let allowed = Allowed::new([0], 1);
        let mut beams = Beams::new(BeamSearch {
            num_beams: 4,
            length_penalty: 1.0,
        });
        let logits: &[f32] = &[0.0, 0.0];
        assert_eq!(
            beams.advance([logits].into_iter(), &allowed, 2, 2),
            Ok(vec![0])
        );
        assert_eq!(
            beams.advance([logits].into_iter(), &allowed, 2, 2),
            Ok(vec![])
        );
        assert_eq!(beams.into_completions().count(), 1);
    }
}
