//! The tokens that may be written, and the model's distribution over them.

use super::NotFinite;

/// A token that may be written at a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    pub id: u32,
    /// ln p among the allowed tokens.
    pub log_prob: f64,
    /// ln p in the whole vocabulary.
    pub full_log_prob: f64,
}

/// The tokens that may be written, and the token that ends a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Ascending, without the end.
    token_ids: Vec<u32>,
    end: u32,
}

impl Allowed {
    /// Allows `token_ids`, and `end` as the token that ends a sequence.
    pub fn new(token_ids: impl IntoIterator<Item = u32>, end: u32) -> Self {
        let mut token_ids: Vec<u32> = token_ids.into_iter().filter(|id| *id != end).collect();
        token_ids.sort_unstable();
        token_ids.dedup();
        Self { token_ids, end }
    }

    /// Ascending, without the end.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// The token that ends a sequence.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The distribution of one position by `logits (vocab)`, in ascending order of ids; with
    /// `may_end` the end is one of the tokens.
    pub(super) fn choices(&self, logits: &[f32], may_end: bool) -> Result<Vec<Choice>, NotFinite> {
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(NotFinite);
        }
        let (before, after) = self
            .token_ids
            .split_at(self.token_ids.partition_point(|id| *id < self.end));
        let end = may_end.then_some(&self.end);
        let ids = || before.iter().chain(end).chain(after).copied();
        let logit = |id: u32| f64::from(logits[id as usize]);
        let allowed = log_sum_exp(ids().map(logit));
        let all = log_sum_exp(logits.iter().copied().map(f64::from));
        let choice = |id| Choice {
            id,
            log_prob: logit(id) - allowed,
            full_log_prob: logit(id) - all,
        };
        Ok(ids().map(choice).collect())
    }
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    largest
        + values
            .map(|value| (value - largest).exp())
            .sum::<f64>()
            .ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_what_may_be_written() {
        let allowed = Allowed::new([3, 0, 3, 1], 1);
        assert_eq!(allowed.token_ids(), [0, 3]);
        let logits = [1.0f32, 2.0, 50.0, 3.0];
        let ids = |may_end| -> Vec<u32> {
            let choices = allowed.choices(&logits, may_end).unwrap();
            let total: f64 = choices.iter().map(|choice| choice.log_prob.exp()).sum();
            assert!((total - 1.0).abs() < 1e-12, "{total}");
            choices.iter().map(|choice| choice.id).collect()
        };
        assert_eq!(ids(false), [0, 3]);
        assert_eq!(ids(true), [0, 1, 3]);
        let choices = allowed.choices(&logits, false).unwrap();
        assert!((choices[0].log_prob - -(1.0 + 2f64.exp()).ln()).abs() < 1e-12);
        assert!((choices[0].full_log_prob - -49.0).abs() < 1e-12);
    }

    #[test]
    fn a_logit_that_is_no_number_is_an_error_at_any_position() {
        let allowed = Allowed::new([0], 1);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(allowed.choices(&[0.0, 1.0, bad], true), Err(NotFinite));
        }
    }
}
