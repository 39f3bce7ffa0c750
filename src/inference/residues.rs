//! The residues that a model chooses among, and their probabilities: a softmax over the logits of
//! these residues alone, in double precision.
//!
//! ```text
//! log p(a) = logit(a) - log Σ_b exp(logit(b)),   b over the allowed residues
//! ```

use thiserror::Error;

use crate::tokenizer::Tokenizer;

/// The 20 standard residues in alphabetical order: the columns of every table of probabilities.
pub const STANDARD: &[u8; 20] = b"ACDEFGHIKLMNPQRSTVWY";

/// Why a choice of residues is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResiduesError {
    /// The choice is empty.
    #[error("no residue is allowed; name at least one, such as ACDEFGHIKLMNPQRSTVWY")]
    None,
    /// The vocabulary has no token for a residue.
    #[error("`{}` cannot be allowed: the model's vocabulary has no such residue", .0.escape_ascii())]
    Unknown(u8),
}

/// The residues that a model chooses among, each with its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residues {
    letters: Vec<u8>,
    token_ids: Vec<u32>,
}

impl Residues {
    /// The 20 standard residues.
    ///
    /// # Errors
    /// A vocabulary that lacks one of them.
    pub fn standard(tokenizer: &Tokenizer) -> Result<Self, ResiduesError> {
        Self::new(STANDARD, tokenizer)
    }

    /// The residues of `letters`, in either case, without duplicates, in alphabetical order.
    ///
    /// # Errors
    /// No letter, or one that the vocabulary lacks.
    pub fn new(letters: &[u8], tokenizer: &Tokenizer) -> Result<Self, ResiduesError> {
        let mut letters = letters.to_ascii_uppercase();
        letters.sort_unstable();
        letters.dedup();
        if letters.is_empty() {
            return Err(ResiduesError::None);
        }
        let id = |letter: &u8| {
            tokenizer
                .residue_id(*letter)
                .ok_or(ResiduesError::Unknown(*letter))
        };
        let token_ids = letters.iter().map(id).collect::<Result<_, _>>()?;
        Ok(Self { letters, token_ids })
    }

    /// Upper-case letters: the columns of [`Residues::log_probs`].
    pub fn letters(&self) -> &[u8] {
        &self.letters
    }

    /// The token of a column.
    pub fn token_id(&self, column: usize) -> u32 {
        self.token_ids[column]
    }

    /// The column of a residue, if it is allowed.
    pub fn column(&self, residue: u8) -> Option<usize> {
        self.letters.binary_search(&residue).ok()
    }

    /// Log-probabilities of the allowed residues from the logits of the whole vocabulary; `None`
    /// where the logit of an allowed residue is NaN or infinite.
    pub fn log_probs(&self, logits: &[f32]) -> Option<Vec<f64>> {
        let of = |id: &u32| logits.get(*id as usize).map(|logit| f64::from(*logit));
        let allowed: Vec<f64> = self.token_ids.iter().map(of).collect::<Option<_>>()?;
        if allowed.iter().any(|logit| !logit.is_finite()) {
            return None;
        }
        let largest = allowed.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = allowed.iter().map(|logit| (logit - largest).exp()).sum();
        let normalizer = largest + sum.ln();
        Some(allowed.iter().map(|logit| logit - normalizer).collect())
    }
}

/// The column of the largest value; of equals the first.
pub fn most_probable(log_probs: &[f64]) -> usize {
    let mut best = 0;
    for (column, value) in log_probs.iter().enumerate() {
        if *value > log_probs[best] {
            best = column;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_allowed_residues_alone() {
        let residues = Residues::new(b"wAa", &Tokenizer::ankh3()).unwrap();
        assert_eq!(residues.letters(), b"AW");
        assert_eq!(
            (residues.column(b'W'), residues.column(b'C')),
            (Some(1), None)
        );
        let mut logits = vec![1000.0; 256];
        (logits[8], logits[26]) = (-500.0, -500.0 + 3f32.ln());
        let log_probs = residues.log_probs(&logits).unwrap();
        assert!((log_probs[0] - 0.25f64.ln()).abs() < 1e-4, "{log_probs:?}");
        assert!((log_probs[1] - 0.75f64.ln()).abs() < 1e-4, "{log_probs:?}");
        logits[7] = f32::NAN;
        assert!(
            residues.log_probs(&logits).is_some(),
            "L is not asked about"
        );
        logits[8] = f32::NAN;
        assert_eq!(residues.log_probs(&logits), None);
        logits[8] = f32::INFINITY;
        assert_eq!(residues.log_probs(&logits), None);
    }

    #[test]
    fn residues_outside_the_vocabulary_are_errors() {
        let tokenizer = Tokenizer::ankh3();
        assert_eq!(Residues::new(b"", &tokenizer), Err(ResiduesError::None));
        for letter in [b'J', b'?', b'1'] {
            let error = Residues::new(&[b'A', letter], &tokenizer);
            assert_eq!(error, Err(ResiduesError::Unknown(letter)));
        }
        assert_eq!(Residues::standard(&tokenizer).unwrap().letters(), STANDARD);
    }

    #[test]
    fn the_first_of_equals_is_chosen() {
        assert_eq!(most_probable(&[-3.0, -1.0, -1.0, -2.0]), 1);
    }
}
