//! The contact map of one protein, by any of the methods.

use super::attention_maps::AttentionReader;
use super::error::ProbeError;
use super::features::{FeatureSource, Protein};
use super::head::Head;
use super::native::BySeparation;
use super::outputs::contact_logits;
use crate::inference::EncoderDecoder;
use crate::inference::contacts::jacobian::{Jacobian, Outputs, from_hidden_states};
use crate::inference::contacts::{PairMap, rounds};
use crate::inference::masked::MaskedModel;
use crate::inference::residues::Residues;
use crate::model::{Decoder, Encoder};
use crate::tokenizer::{TaskPrefix, Tokenizer};

/// A method with everything that it needs.
#[derive(Debug)]
pub enum ContactPredictor {
    /// A head on embeddings.
    Head {
        /// What computes the embeddings.
        source: FeatureSource,
        /// The head.
        head: Box<Head>,
    },
    /// A logistic regression over attention maps.
    Attention {
        /// The encoder whose attention is read.
        reader: Box<AttentionReader>,
        /// One weight per map.
        weights: Vec<f64>,
        /// Added to the weighted sum.
        bias: f64,
    },
    /// What substitutions change elsewhere.
    Jacobian(Box<JacobianPredictor>),
    /// How often residues touch by their separation in the chain.
    Separation(BySeparation),
}

/// What the Jacobian needs.
#[derive(Debug)]
pub struct JacobianPredictor {
    /// The encoder.
    pub encoder: Encoder,
    /// The decoder; none where hidden states are observed.
    pub decoder: Option<Decoder>,
    /// The model's vocabulary.
    pub tokenizer: Tokenizer,
    /// The task prefix in front of each protein.
    pub prefix: TaskPrefix,
    /// The share of residues that are masked together.
    pub mask_fraction: f64,
    /// Decides which residues are masked together.
    pub seed: u64,
    /// GiB that one protein may take.
    pub max_memory: f64,
    /// Tokens per batch, at most.
    pub max_batch_tokens: usize,
}

impl ContactPredictor {
    /// What a value of a map is: `probability` or `score`.
    pub fn value(&self) -> &'static str {
        match self {
            ContactPredictor::Head { .. } | ContactPredictor::Attention { .. } => "probability",
            ContactPredictor::Jacobian(_) | ContactPredictor::Separation(_) => "score",
        }
    }

    /// The map of one protein; `name` is the protein's name in messages, and its `id` decides what
    /// a Jacobian masks together. `None` where the model's result holds NaN or infinity.
    ///
    /// # Errors
    /// A protein that cannot be tokenized, too little memory, or a failure of the model.
    pub fn predict(
        &mut self,
        id: &str,
        protein: Protein<'_>,
    ) -> Result<Option<PairMap>, ProbeError> {
        let map = match self {
            ContactPredictor::Head { source, head } => {
                match source.prepare(&[protein]) {
                    Err(ProbeError::EmbeddingNotFinite(_)) => return Ok(None),
                    prepared => prepared?,
                }
                let logits = contact_logits(head, &source.features(&[protein]), 0)?;
                Some(probabilities(logits))
            }
            ContactPredictor::Attention {
                reader,
                weights,
                bias,
            } => Some(probabilities(reader.logits(
                protein.residues,
                weights,
                *bias,
            )?)),
            ContactPredictor::Jacobian(jacobian) => jacobian.predict(id, protein)?,
            ContactPredictor::Separation(by_separation) => {
                Some(by_separation.map(protein.residues.len()))
            }
        };
        Ok(map.filter(PairMap::is_finite))
    }
}

impl JacobianPredictor {
    /// What is observed while residues are substituted.
    fn outputs(&self) -> Outputs {
        match self.decoder {
            Some(_) => Outputs::Residues,
            None => Outputs::Hidden,
        }
    }

    fn predict(&self, id: &str, protein: Protein<'_>) -> Result<Option<PairMap>, ProbeError> {
        let length = protein.residues.len();
        let needed = self.outputs().memory(length) as f64 / f64::from(1 << 30);
        if needed > self.max_memory {
            return Err(ProbeError::Memory {
                name: protein.name.to_owned(),
                length,
                needed,
            });
        }
        let tokenizer = &self.tokenizer;
        let Some(decoder) = &self.decoder else {
            let encoding = tokenizer.encode(protein.residues, self.prefix)?;
            return Ok(from_hidden_states(
                &self.encoder,
                tokenizer,
                &encoding,
                self.max_batch_tokens,
            )?);
        };
        let model = MaskedModel::new(
            EncoderDecoder {
                encoder: &self.encoder,
                decoder,
            },
            tokenizer,
            self.prefix,
            Residues::standard(tokenizer)?,
            self.max_batch_tokens,
        )?;
        let sentinels = model.num_sentinels();
        let rounds = rounds(id, length, self.mask_fraction, sentinels, self.seed);
        let jacobian = Jacobian::compute(&model, protein.residues, &rounds)?;
        Ok(jacobian.map(Jacobian::contact_map))
    }
}

/// Probabilities of logits. A head's logits of `(i, j)` and `(j, i)` are equal but for rounding; the
/// probabilities are those of `i <= j`, so that maps are symmetric.
fn probabilities(mut map: PairMap) -> PairMap {
    let length = map.length();
    let values = map.values_mut();
    for i in 0..length {
        for j in i..length {
            let probability = 1.0 / (1.0 + (-values[i * length + j]).exp());
            values[i * length + j] = probability;
            values[j * length + i] = probability;
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_symmetric() {
        let map = probabilities(PairMap::new(2, vec![0.0, 1.0, 1.000_001, -1.0]));
        let [a, b, c, d] = map.values() else {
            panic!("four values: {map:?}");
        };
        assert_eq!(b.to_bits(), c.to_bits());
        for (got, logit) in [(a, 0.0_f32), (b, 1.0), (d, -1.0)] {
            assert!((got - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-7, "{map:?}");
        }
    }
}
