//! Contacts from attention maps: a logistic regression over the maps of all heads, fitted to known
//! structures (Rao et al. 2021, the regression of ESM).
//!
//! Like ESM's: each map symmetrised and corrected (APC), pairs of residues at least 6 apart, an L1
//! penalty of 1 / (0.15 · pairs) on the mean loss per pair, which is scikit-learn's `C=0.15` on the
//! sum. Unlike ESM's: features are standardised (mean 0, deviation 1) before they are penalised, so
//! that the penalty does not depend on how sharp a head's attention is, and the bias is not
//! penalised.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::error::ProbeError;
use super::logistic::{self, LogisticFit, Samples};
use super::native::{KnownChain, LEAST_SEPARATION};
use crate::inference::contacts::{PairMap, attention};
use crate::model::Encoder;
use crate::tokenizer::{TaskPrefix, Tokenizer};

/// ESM's weight of the summed losses against the L1 norm.
const ESM_C: f64 = 0.15;
/// Features held in memory, at most.
const MAX_FEATURES: usize = 1 << 29;
/// Distance from the minimum at which the regression stops.
const TOLERANCE: f64 = 1e-6;
/// Steps of the regression, at most.
const MAX_STEPS: usize = 3000;

/// An encoder whose attention maps are read.
#[derive(Debug)]
pub struct AttentionReader {
    /// The encoder.
    pub encoder: Encoder,
    /// The encoder's vocabulary.
    pub tokenizer: Tokenizer,
    /// The task prefix in front of each protein.
    pub prefix: TaskPrefix,
}

/// A fitted regression.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionFit {
    /// One weight per map, for maps that are not standardised.
    pub weights: Vec<f64>,
    /// Added to the weighted sum.
    pub bias: f64,
    /// The weight of the L1 norm.
    pub penalty: f64,
}

/// A pair of residues and whether the residues touch.
type LabelledPair = (usize, usize, bool);

impl AttentionReader {
    /// Number of maps: layers × heads.
    pub fn maps(&self) -> usize {
        attention::num_features(&self.encoder)
    }

    /// The logit of a contact of every pair of residues.
    ///
    /// # Errors
    /// A protein that cannot be tokenized, or a failure of the model.
    pub fn logits(
        &self,
        residues: &[u8],
        weights: &[f64],
        bias: f64,
    ) -> Result<PairMap, ProbeError> {
        let encoding = self.tokenizer.encode(residues, self.prefix)?;
        let logits = attention::weighted(&self.encoder, &encoding, weights, bias)?;
        Ok(logits)
    }

    /// Fits a regression to known structures; `penalty` is the weight of the L1 norm per pair,
    /// ESM's by default.
    ///
    /// # Errors
    /// Structures without contacts, a protein that cannot be tokenized, or a failure of the model.
    pub fn fit(
        &self,
        chains: &[KnownChain],
        penalty: Option<f64>,
    ) -> Result<AttentionFit, ProbeError> {
        let samples = self.samples(chains)?;
        let pairs = samples.answers.len();
        let contacts = samples.answers.iter().filter(|answer| **answer).count();
        if contacts == 0 || contacts == pairs {
            return Err(ProbeError::NoContacts { contacts, pairs });
        }
        tracing::info!(
            "{pairs} pairs, {contacts} of them contacts, {} attention maps",
            samples.width
        );
        let penalty = penalty.unwrap_or(1.0 / (ESM_C * pairs as f64));
        let fit = logistic::fit(&samples, penalty, TOLERANCE, MAX_STEPS);
        log_fit(&fit);
        Ok(AttentionFit {
            weights: fit.weights,
            bias: fit.bias,
            penalty,
        })
    }

    /// The features of all counted pairs of residues, or of as many drawn at random as memory
    /// allows.
    fn samples(&self, chains: &[KnownChain]) -> Result<Samples, ProbeError> {
        let width = self.maps();
        let chosen = pairs(chains, width);
        let mut samples = Samples {
            width,
            ..Samples::default()
        };
        for (chain, pairs) in chains.iter().zip(&chosen) {
            let encoding = self.tokenizer.encode(&chain.residues, self.prefix)?;
            let first = samples.features.len();
            samples.features.resize(first + pairs.len() * width, 0.0);
            let read = attention::features(&self.encoder, &encoding, |number, map| {
                for (row, (i, j, _)) in pairs.iter().enumerate() {
                    samples.features[first + row * width + number] = map.get(*i, *j);
                }
            });
            read.map_err(|source| ProbeError::Attention {
                name: chain.name.clone(),
                source,
            })?;
            let answers = pairs.iter().map(|(_, _, touch)| *touch);
            samples.answers.extend(answers);
        }
        Ok(samples)
    }
}

/// The pairs of each chain that are learnt from.
fn pairs(chains: &[KnownChain], width: usize) -> Vec<Vec<LabelledPair>> {
    let mut chosen: Vec<Vec<LabelledPair>> = chains.iter().map(counted_pairs).collect();
    let all: usize = chosen.iter().map(Vec::len).sum();
    let most = MAX_FEATURES / width;
    if all > most {
        tracing::warn!(
            "{all} pairs of {width} maps do not fit in memory: {most} pairs drawn at random are used; --limit N uses fewer structures"
        );
        let mut stream = ChaCha8Rng::seed_from_u64(7);
        for pairs in &mut chosen {
            let share = (pairs.len() as f64 * most as f64 / all as f64) as usize;
            pairs.shuffle(&mut stream);
            pairs.truncate(share);
            pairs.sort_unstable();
        }
    }
    chosen
}

/// Pairs of resolved residues that are at least [`LEAST_SEPARATION`] apart.
fn counted_pairs(chain: &KnownChain) -> Vec<LabelledPair> {
    let native = &chain.native;
    let length = native.length();
    (0..length)
        .flat_map(|i| (i + LEAST_SEPARATION..length).map(move |j| (i, j)))
        .filter_map(|(i, j)| Some((i, j, native.touch(i, j)?)))
        .collect()
}

fn log_fit(fit: &LogisticFit) {
    let used = fit.weights.iter().filter(|weight| **weight != 0.0).count();
    tracing::info!(
        "{used} maps used after {} steps (within {:.1e} of the minimum)",
        fit.steps,
        fit.violation
    );
}
