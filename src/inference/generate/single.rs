//! One sequence, token by token: greedy decoding or sampling.

use super::allowed::Allowed;
use super::sampling::{RandomStream, Sampling};
use super::{GeneratedSequence, NotFinite};
use crate::inference::residues::most_probable;

/// A sequence that is being written.
#[derive(Debug)]
pub(super) struct Single {
    written: GeneratedSequence,
    /// `None` for greedy decoding.
    random: Option<(Sampling, RandomStream)>,
}

impl Single {
    pub(super) fn new(random: Option<(Sampling, RandomStream)>) -> Self {
        let written = GeneratedSequence {
            token_ids: Vec::new(),
            log_probs: Vec::new(),
            end_log_prob: None,
            score: None,
        };
        Self { written, random }
    }

    pub(super) fn token_ids(&self) -> &[u32] {
        &self.written.token_ids
    }

    /// Chooses the next token by `logits (vocab)`. True when the sequence is complete.
    pub(super) fn advance(
        &mut self,
        logits: &[f32],
        allowed: &Allowed,
        min_new: usize,
        max_new: usize,
    ) -> Result<bool, NotFinite> {
        let written = &mut self.written;
        let choices = allowed.choices(logits, written.token_ids.len() >= min_new)?;
        let log_probs: Vec<f64> = choices.iter().map(|choice| choice.log_prob).collect();
        let chosen = match &mut self.random {
            Some((sampling, stream)) => stream.draw(&sampling.probabilities(&log_probs)),
            None => most_probable(&log_probs),
        };
        let chosen = choices[chosen];
        if chosen.id == allowed.end() {
            written.end_log_prob = Some(chosen.log_prob);
            return Ok(true);
        }
        written.token_ids.push(chosen.id);
        written.log_probs.push(chosen.log_prob);
        Ok(written.token_ids.len() == max_new)
    }

    pub(super) fn into_completion(self) -> GeneratedSequence {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token 1 ends.
    const LOGITS: [f32; 4] = [0.0, 5.0, 2.0, 2.0];

    #[test]
    fn greedy_takes_the_first_of_equals_and_ends_where_it_may() {
        let allowed = Allowed::new(0..4, 1);
        let mut single = Single::new(None);
        for step in 0..3 {
            let complete = single.advance(&LOGITS, &allowed, 2, 10).unwrap();
            assert_eq!(complete, step == 2);
        }
        let written = single.into_completion();
        assert_eq!(written.token_ids, [2, 2]);
        assert!(written.end_log_prob.is_some());
        assert_eq!(written.log_probs.len(), 2);
    }

    #[test]
    fn an_exact_number_needs_no_end() {
        let allowed = Allowed::new(0..4, 1);
        let mut single = Single::new(None);
        assert!(!single.advance(&LOGITS, &allowed, 2, 2).unwrap());
        assert!(single.advance(&LOGITS, &allowed, 2, 2).unwrap());
        assert_eq!(single.into_completion().end_log_prob, None);
    }

    #[test]
    fn a_logit_that_is_no_number_is_an_error() {
        let allowed = Allowed::new(0..4, 1);
        let logits = [0.0, f32::NAN, 0.0, 0.0];
        assert!(Single::new(None).advance(&logits, &allowed, 2, 2).is_err());
    }
}
