//! Effects of variants: a positive score means that the model prefers the variant to the protein
//! itself.
//!
//! ```text
//! S        the variant's substitutions w_i → m_i
//! masked   Σ_{i∈S} log p(m_i | x, i masked) - log p(w_i | x, i masked)       each position masked alone (Meier et al. 2021, additive)
//! wild-type  as masked, but several positions are masked in one copy of the protein, and the decoder reads the wild type at
//!          earlier masks: Σ_{i∈S} log p(m_i | x_M, w_{j∈M, j<i}) - log p(w_i | x_M, w_{j∈M, j<i})
//! pll      log_likelihood(mutant) - log_likelihood(x)
//! ```
//!
//! In the wild-type marginal of BERT-like models the input contains the residue that is predicted.
//! A T5 is trained to predict only masked residues, so here the decoder reads the wild type:
//! teacher forcing over about `1 / fraction` copies instead of one copy per position.

use std::collections::BTreeSet;

use super::{Masking, Row, ScoreQuery, Scorer, Substitution, Variant, column};
use crate::inference::masked::MaskedError;
use crate::inference::residues::STANDARD;

use super::masking::{num_copies, standard_positions};

/// The largest number of masked copies in memory while mutants are scored, and of copies that a
/// resumed run computes again.
const COPIES: usize = 1024;

/// The method that scores variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum EffectMethod {
    /// Several residues masked per pass, the decoder reads the wild type: the fastest
    WildType,
    /// One residue masked per pass; one pass gives all substitutions of that residue
    Masked,
    /// The pseudo-log-likelihood of the whole mutant minus that of the wild type: the slowest
    #[cfg_attr(feature = "cli", value(name = "pll"))]
    PseudoLikelihood,
}

/// Scores variants of proteins.
pub struct Effects<'s, 'a> {
    scorer: &'s Scorer<'a>,
    method: EffectMethod,
    masking: Masking,
}

/// Every single substitution of every standard residue, position by position, in alphabetical
/// order.
pub fn full_scan(residues: &[u8]) -> Vec<Variant> {
    let of = |position: usize| {
        let wild_type = residues[position];
        let mutants = STANDARD.iter().filter(move |mutant| **mutant != wild_type);
        mutants.map(move |&mutant| {
            Variant::single(Substitution {
                wild_type,
                position: position + 1,
                mutant,
            })
        })
    };
    standard_positions(residues)
        .into_iter()
        .flat_map(of)
        .collect()
}

impl<'s, 'a> Effects<'s, 'a> {
    /// Scores by `method`; `masking` is the number of residues masked at once, which must be one
    /// for [`EffectMethod::Masked`].
    pub fn new(scorer: &'s Scorer<'a>, method: EffectMethod, masking: Masking) -> Self {
        Self {
            scorer,
            method,
            masking,
        }
    }

    /// One score per variant, in order; `None` where the network's result is NaN or infinite.
    /// Variants must fit the protein ([`Variant::apply`]).
    ///
    /// # Errors
    /// A residue that the vocabulary cannot encode, or the network's failure.
    pub fn score(
        &self,
        id: &str,
        residues: &[u8],
        variants: &[Variant],
    ) -> Result<Option<Vec<f64>>, MaskedError> {
        match self.method {
            _ if variants.is_empty() => Ok(Some(Vec::new())),
            EffectMethod::WildType | EffectMethod::Masked => self.marginals(id, residues, variants),
            EffectMethod::PseudoLikelihood => self.ratios(id, residues, variants),
        }
    }

    fn marginals(
        &self,
        id: &str,
        residues: &[u8],
        variants: &[Variant],
    ) -> Result<Option<Vec<f64>>, MaskedError> {
        let changed = variants.iter().flat_map(Variant::substitutions);
        let positions: BTreeSet<usize> = changed.map(|s| s.position - 1).collect();
        let positions: Vec<usize> = positions.into_iter().collect();
        let job = ScoreQuery {
            id,
            residues,
            positions: &positions,
        };
        let rows = self.scorer.rows(&[job], self.masking)?.remove(0);
        let effect = |rows: &[Row], substitution: &Substitution| {
            let place = positions.binary_search(&(substitution.position - 1));
            let row = &rows[place.expect("every changed position was asked about")];
            row[column(substitution.mutant)] - row[column(substitution.wild_type)]
        };
        let sum = |rows: &[Row], variant: &Variant| -> f64 {
            let effects = variant.substitutions().iter().map(|s| effect(rows, s));
            effects.sum()
        };
        Ok(rows.map(|rows| variants.iter().map(|variant| sum(&rows, variant)).collect()))
    }

    fn ratios(
        &self,
        id: &str,
        residues: &[u8],
        variants: &[Variant],
    ) -> Result<Option<Vec<f64>>, MaskedError> {
        let Some(wild_type) = self.likelihoods(id, &[residues.to_vec()])? else {
            return Ok(None);
        };
        let sentinels = self.scorer.model.num_sentinels();
        let copies = num_copies(self.masking, standard_positions(residues).len(), sentinels);
        let mut ratios = Vec::with_capacity(variants.len());
        for variants in variants.chunks((COPIES / copies.max(1)).max(1)) {
            let mutants: Vec<Vec<u8>> = variants
                .iter()
                .map(|variant| variant.apply(residues))
                .collect::<Result<_, _>>()
                .expect("variants were checked against the protein");
            let Some(mutants) = self.likelihoods(id, &mutants)? else {
                return Ok(None);
            };
            ratios.extend(mutants.iter().map(|mutant| mutant - wild_type[0]));
        }
        Ok(Some(ratios))
    }

    /// Log-likelihoods; all proteins have the same id, so that all are masked at the same
    /// positions.
    fn likelihoods(&self, id: &str, proteins: &[Vec<u8>]) -> Result<Option<Vec<f64>>, MaskedError> {
        let named: Vec<(&str, &[u8])> = proteins
            .iter()
            .map(|residues| (id, residues.as_slice()))
            .collect();
        let sums = self.scorer.sums(&named, self.masking)?;
        Ok(sums.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_names_nineteen_substitutions_of_every_standard_residue() {
        let scan = full_scan(b"MXA");
        assert_eq!(scan.len(), 38);
        assert_eq!(scan[0].to_string(), "M1A");
        assert_eq!(scan[18].to_string(), "M1Y");
        assert_eq!(scan[19].to_string(), "A3C");
        assert!(scan.iter().all(|variant| variant.apply(b"MXA").is_ok()));
    }
}
