//! The probability of a protein, residue by residue, and the effects of substitutions.
//!
//! ```text
//! log p(a at i)           log-softmax over the 20 standard residues of the decoder's logits behind the sentinel of position i
//! Masking::Single         position i alone is masked: the official pseudo-likelihood, one copy of the protein per residue
//! Masking::Fraction       several positions per copy, each position of the protein in exactly one copy; the decoder reads
//!                         the protein's own residues at the copy's earlier masks (teacher forcing)
//!
//! log_likelihood          Σ_i log p(x_i at i), over the protein's standard residues
//! pseudo_perplexity       exp(-log_likelihood / their number)
//! ```
//!
//! Residues besides the 20 (`X B U Z O`) are never masked and never scored; they stay as context.

mod answers;
mod effects;
mod masking;
mod spearman;
mod variant;

pub use answers::{AnswerKey, AnswerWriter, Answers};
pub use effects::{EffectMethod, Effects, full_scan};
pub use masking::{Masking, standard_positions};
pub use spearman::spearman;
pub use variant::{Substitution, Variant, VariantError};

use super::masked::{Answer, MaskedError, MaskedModel, Question};
use super::residues::STANDARD;
use crate::tokenizer::Encoding;

/// Log-probabilities of the 20 standard residues at one position, in the order of [`STANDARD`].
pub type Row = Vec<f64>;

/// One protein and the positions to score.
#[derive(Clone, Copy, Debug)]
pub struct ScoreQuery<'a> {
    /// The protein's id, which decides together with the seed which residues are masked together.
    pub id: &'a str,
    /// The protein's residues, upper case.
    pub residues: &'a [u8],
    /// The positions to score, from 0, ascending, all of standard residues.
    pub positions: &'a [usize],
}

/// A masked model that computes scores.
pub struct Scorer<'a> {
    pub(super) model: MaskedModel<'a>,
    answers: Option<Answers<'a>>,
}

impl<'a> Scorer<'a> {
    /// A scorer with `model`, which must choose among the 20 standard residues.
    ///
    /// # Panics
    /// A `model` that chooses among other residues.
    pub fn new(model: MaskedModel<'a>) -> Self {
        assert_eq!(
            model.residues().letters(),
            STANDARD,
            "scores are over the 20 standard residues"
        );
        Self {
            model,
            answers: None,
        }
    }

    /// The same scorer, which stores its answers and does not compute those of an earlier run
    /// again.
    #[must_use]
    pub fn remembering(self, answers: Answers<'a>) -> Self {
        Self {
            answers: Some(answers),
            ..self
        }
    }

    /// The masked model.
    pub fn model(&self) -> &MaskedModel<'a> {
        &self.model
    }

    /// A [`Row`] for every position of every query, in order; `None` for a protein where the
    /// network's result is NaN or infinite.
    ///
    /// # Errors
    /// A residue that the vocabulary cannot encode, or the network's failure.
    pub fn rows(
        &self,
        queries: &[ScoreQuery<'_>],
        masking: Masking,
    ) -> Result<Vec<Option<Vec<Row>>>, MaskedError> {
        self.compute_rows(queries, masking, self.answers.as_ref())
    }

    /// [`Scorer::rows`], with the answers that `known` stores, if given.
    fn compute_rows(
        &self,
        queries: &[ScoreQuery<'_>],
        masking: Masking,
        known: Option<&Answers<'_>>,
    ) -> Result<Vec<Option<Vec<Row>>>, MaskedError> {
        let encodings: Vec<Encoding> = queries
            .iter()
            .map(|query| self.model.encode(query.residues))
            .collect::<Result<_, _>>()?;
        let mut questions = Vec::new();
        let mut owners = Vec::new();
        for (owner, (query, encoding)) in queries.iter().zip(&encodings).enumerate() {
            for masked in masking.copies(query, self.model.num_sentinels()) {
                questions.push(Question { encoding, masked });
                owners.push(owner);
            }
        }
        let mut rows: Vec<Option<Vec<Row>>> = queries
            .iter()
            .map(|query| Some(vec![Row::new(); query.positions.len()]))
            .collect();
        let answers = self.answer(&questions, known)?;
        for ((owner, question), answer) in owners.into_iter().zip(&questions).zip(answers) {
            let Some(answer) = answer else {
                rows[owner] = None;
                continue;
            };
            let Some(rows) = &mut rows[owner] else {
                continue;
            };
            for (position, row) in question.masked.iter().zip(answer) {
                if let Ok(place) = queries[owner].positions.binary_search(position) {
                    rows[place] = row;
                }
            }
        }
        Ok(rows)
    }

    /// Answers all questions; those that `stored` knows are not computed again, new ones are added
    /// to it.
    fn answer(
        &self,
        questions: &[Question<'_>],
        stored: Option<&Answers<'_>>,
    ) -> Result<Vec<Answer>, MaskedError> {
        let Some(stored) = stored else {
            return self.model.answer(questions);
        };
        let keys: Vec<AnswerKey> = questions.iter().map(answers::of_copy).collect();
        let columns = self.model.residues().letters().len();
        let known: Vec<Answer> = keys
            .iter()
            .map(|key| {
                let rows = stored.known(key)?;
                Some(rows.chunks_exact(columns).map(<[f64]>::to_vec).collect())
            })
            .collect();
        let open: Vec<usize> = (0..questions.len())
            .filter(|number| known[*number].is_none())
            .collect();
        let asked: Vec<Question<'_>> = open.iter().map(|&at| questions[at].clone()).collect();
        let answered = self.model.answer_and_keep(&asked, |number, answer| {
            let Some(rows) = answer else { return Ok(()) };
            stored.keep(&keys[open[number]], &rows.concat())
        })?;
        let mut all = known;
        for (number, answer) in open.into_iter().zip(answered) {
            all[number] = answer;
        }
        Ok(all)
    }

    /// `log p(x_i at i)` of every residue of every protein, NaN for residues besides the 20; `None`
    /// as in [`Scorer::rows`].
    ///
    /// # Errors
    /// As [`Scorer::rows`].
    pub fn log_likelihoods(
        &self,
        proteins: &[(&str, &[u8])],
        masking: Masking,
    ) -> Result<Vec<Option<Vec<f64>>>, MaskedError> {
        self.compute_log_likelihoods(proteins, masking, self.answers.as_ref())
    }

    fn compute_log_likelihoods(
        &self,
        proteins: &[(&str, &[u8])],
        masking: Masking,
        stored: Option<&Answers<'_>>,
    ) -> Result<Vec<Option<Vec<f64>>>, MaskedError> {
        let positions: Vec<Vec<usize>> = proteins
            .iter()
            .map(|(_, residues)| standard_positions(residues))
            .collect();
        let queries: Vec<ScoreQuery<'_>> = proteins
            .iter()
            .zip(&positions)
            .map(|((id, residues), positions)| ScoreQuery {
                id,
                residues,
                positions,
            })
            .collect();
        let own = |(query, rows): (&ScoreQuery<'_>, Option<Vec<Row>>)| {
            let mut values = vec![f64::NAN; query.residues.len()];
            for (&position, row) in query.positions.iter().zip(rows?) {
                values[position] = row[column(query.residues[position])];
            }
            Some(values)
        };
        let rows = self.compute_rows(&queries, masking, stored)?;
        Ok(queries.iter().zip(rows).map(own).collect())
    }

    /// The log-likelihood of each protein. The sums are stored, not the many answers that they are
    /// made of.
    ///
    /// # Errors
    /// As [`Scorer::rows`].
    pub(super) fn sums(
        &self,
        proteins: &[(&str, &[u8])],
        masking: Masking,
    ) -> Result<Vec<Option<f64>>, MaskedError> {
        let key = |(id, residues): &(&str, &[u8])| answers::of_protein(id, residues, masking);
        let keys: Vec<AnswerKey> = proteins.iter().map(key).collect();
        let known = |key| Some(self.answers.as_ref()?.known(key)?[0]);
        let mut sums: Vec<Option<f64>> = keys.iter().map(known).collect();
        let open: Vec<usize> = (0..keys.len()).filter(|at| sums[*at].is_none()).collect();
        let asked: Vec<(&str, &[u8])> = open.iter().map(|&at| proteins[at]).collect();
        let values = self.compute_log_likelihoods(&asked, masking, None)?;
        for (at, values) in open.into_iter().zip(values) {
            let Some(values) = values else { continue };
            let sum = log_likelihood(&values).1;
            if let Some(stored) = &self.answers {
                stored.keep(&keys[at], &[sum])?;
            }
            sums[at] = Some(sum);
        }
        Ok(sums)
    }
}

/// The column of a standard residue in a [`Row`].
pub(super) fn column(residue: u8) -> usize {
    STANDARD
        .binary_search(&residue)
        .expect("only standard residues are asked about")
}

/// The number of scored residues, and the sum of their log-probabilities.
pub fn log_likelihood(values: &[f64]) -> (usize, f64) {
    let scored = values.iter().filter(|value| !value.is_nan());
    scored.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value))
}

/// `exp(-log_likelihood / scored)`; NaN where nothing was scored.
pub fn pseudo_perplexity(scored: usize, log_likelihood: f64) -> f64 {
    if scored == 0 {
        f64::NAN
    } else {
        (-log_likelihood / scored as f64).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_of_a_uniform_guess_is_the_number_of_residues() {
        let values = [-(20f64.ln()), f64::NAN, -(20f64.ln())];
        let (scored, sum) = log_likelihood(&values);
        assert_eq!(scored, 2);
        assert!((pseudo_perplexity(scored, sum) - 20.0).abs() < 1e-12);
        assert!(pseudo_perplexity(0, 0.0).is_nan());
    }
}
