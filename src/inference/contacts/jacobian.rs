//! The categorical Jacobian: each residue is replaced by each of the 20, and the change of the
//! model's outputs at all other positions is measured.
//!
//! ```text
//! J[i, a, j, b]  log p(b at j | a at i), j masked, the rest of the protein as it is; 0 where i = j
//! centred        over i, a, j and b in turn
//! c_ij           √ Σ_ab J²,  c_ii = 0
//! contact map    APC of c, then the mean with its transpose
//! ```
//!
//! As Zhang et al. 2024 (doi 10.1101/2024.01.30.577970), except that observed residues are masked,
//! because this model predicts only masked residues ([`super::rounds`]). [`Outputs::Hidden`]
//! observes the encoder's last hidden states instead, `c_ij = √ Σ_a |h_j(a at i) − mean over a|²`,
//! which needs one pass per substitution and no masks.

use candle_core::{DType, Tensor};

use super::{PairMap, Round};
use crate::inference::masked::{MaskedError, MaskedModel, Question};
use crate::inference::residues::STANDARD;
use crate::model::{Encoder, Packed};
use crate::packing::by_token_budget;
use crate::tokenizer::{Encoding, Tokenizer};

const KINDS: usize = STANDARD.len();
/// Positions substituted per call of the model: enough for full batches of short proteins.
const TOGETHER: usize = 32;

/// The outputs that are observed while residues are substituted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Outputs {
    /// Probabilities of the 20 residues at masked positions: at least 20 · length / mask-fraction
    /// passes of the whole model
    Residues,
    /// The encoder's last hidden states: 20 · length passes of the encoder
    Hidden,
}

impl Outputs {
    /// Bytes of memory for a protein of `length` residues, beside the network.
    pub fn memory(self, length: usize) -> u64 {
        let pairs = (length * length) as u64;
        match self {
            Outputs::Residues => pairs * (KINDS * KINDS * 4 + 8) as u64,
            Outputs::Hidden => pairs * 8,
        }
    }
}

/// `J` of one protein: `(length, 20, length, 20)`, row-major.
#[derive(Clone, Debug)]
pub struct Jacobian {
    length: usize,
    values: Vec<f32>,
}

impl Jacobian {
    /// Computes the substitutions of `rounds` in batches. `None` where a result is NaN or infinite.
    ///
    /// # Errors
    /// A residue that the vocabulary cannot encode, or the network's failure.
    ///
    /// # Panics
    /// A `model` that does not choose among the 20 standard residues.
    pub fn compute(
        model: &MaskedModel<'_>,
        residues: &[u8],
        rounds: &[Round],
    ) -> Result<Option<Self>, MaskedError> {
        assert_eq!(
            model.residues().letters(),
            STANDARD,
            "a Jacobian is of the 20 standard residues"
        );
        let length = residues.len();
        let mut jacobian = Self::new(length, vec![0.0; length * length * KINDS * KINDS]);
        let encoding = model.encode(residues)?;
        for round in rounds {
            for substituted in round.substituted.chunks(TOGETHER) {
                if !jacobian.run(model, &encoding, &round.masked, substituted)? {
                    return Ok(None);
                }
            }
        }
        Ok(Some(jacobian))
    }

    /// Substitutes each of `substituted` and observes `masked`; false where a result is NaN or
    /// infinite.
    fn run(
        &mut self,
        model: &MaskedModel<'_>,
        encoding: &Encoding,
        masked: &[usize],
        substituted: &[usize],
    ) -> Result<bool, MaskedError> {
        let changes = substituted
            .iter()
            .flat_map(|at| (0..KINDS).map(move |kind| (*at, kind)));
        let copies: Vec<Encoding> = changes
            .map(|(at, kind)| {
                let mut copy = encoding.clone();
                copy.token_ids[copy.first_residue + at] = model.residues().token_id(kind);
                copy
            })
            .collect();
        let questions: Vec<Question<'_>> = copies
            .iter()
            .map(|encoding| Question {
                encoding,
                masked: masked.to_vec(),
            })
            .collect();
        for (number, answer) in model.answer(&questions)?.iter().enumerate() {
            let (i, a) = (substituted[number / KINDS], number % KINDS);
            let Some(rows) = answer else {
                return Ok(false);
            };
            for (j, row) in masked.iter().zip(rows) {
                let into = self.block_row(i, a, *j).iter_mut();
                into.zip(row).for_each(|(to, from)| *to = *from as f32);
            }
        }
        Ok(true)
    }

    /// A Jacobian of `values (length, 20, length, 20)`.
    ///
    /// # Panics
    /// `values` of another length than `length² · 400`.
    pub fn new(length: usize, values: Vec<f32>) -> Self {
        assert_eq!(
            values.len(),
            length * length * KINDS * KINDS,
            "20 by 20 a pair"
        );
        Self { length, values }
    }

    fn block_row(&mut self, i: usize, a: usize, j: usize) -> &mut [f32] {
        let start = ((i * KINDS + a) * self.length + j) * KINDS;
        &mut self.values[start..start + KINDS]
    }

    /// The contact map, as defined at the top of this file.
    pub fn contact_map(mut self) -> PairMap {
        let n = self.length;
        for [outer, axis, inner] in [
            [1, n, KINDS * n * KINDS],
            [n, KINDS, n * KINDS],
            [n * KINDS, n, KINDS],
            [n * KINDS * n, KINDS, 1],
        ] {
            centre(&mut self.values, outer, axis, inner);
        }
        let mut squares = vec![0.0f64; n * n];
        for (row, values) in self.values.chunks_exact((n * KINDS).max(1)).enumerate() {
            for (j, block) in values.chunks_exact(KINDS).enumerate() {
                squares[row / KINDS * n + j] +=
                    block.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            }
        }
        finish(n, &squares)
    }
}

/// Subtracts the mean over `axis` of an array `(outer, axis, inner)`.
fn centre(values: &mut [f32], outer: usize, axis: usize, inner: usize) {
    for part in values.chunks_exact_mut((axis * inner).max(1)).take(outer) {
        let mut means = vec![0.0f64; inner];
        for row in part.chunks_exact(inner) {
            means
                .iter_mut()
                .zip(row)
                .for_each(|(mean, value)| *mean += f64::from(*value));
        }
        for row in part.chunks_exact_mut(inner) {
            for (value, mean) in row.iter_mut().zip(&means) {
                *value -= (mean / axis as f64) as f32;
            }
        }
    }
}

/// Norms with a zero diagonal, corrected, averaged with their transpose.
fn finish(length: usize, squares: &[f64]) -> PairMap {
    let mut map = PairMap::new(
        length,
        squares.iter().map(|square| square.sqrt() as f32).collect(),
    );
    (0..length).for_each(|i| map.values_mut()[i * length + i] = 0.0);
    map.apc();
    map.symmetrize();
    map.values_mut().iter_mut().for_each(|value| *value /= 2.0);
    map
}

/// [`Outputs::Hidden`]: the contact map of a protein from the encoder alone. `None` where a result
/// is NaN or infinite.
///
/// # Errors
/// A vocabulary without a standard residue, or the network's failure.
pub fn from_hidden_states(
    encoder: &Encoder,
    tokenizer: &Tokenizer,
    encoding: &Encoding,
    max_batch_tokens: usize,
) -> candle_core::Result<Option<PairMap>> {
    let first = encoding.first_residue;
    let length = encoding.residues().len();
    let mut squares = vec![0.0; length * length];
    let tokens = encoding.token_ids.len();
    for i in 0..length {
        let mut copies = Vec::with_capacity(KINDS);
        for letter in STANDARD {
            let Some(id) = tokenizer.residue_id(*letter) else {
                candle_core::bail!("the vocabulary has no residue {}", char::from(*letter));
            };
            let mut copy = encoding.token_ids.clone();
            copy[first + i] = id;
            copies.push(copy);
        }
        let mut states = Vec::with_capacity(KINDS);
        for batch in by_token_budget(&[tokens; KINDS], max_batch_tokens) {
            let packed = Packed::from_segments(copies[batch.clone()].iter().map(Vec::as_slice));
            let hidden = encoder.forward(&packed)?.to_dtype(DType::F32)?;
            for number in 0..batch.len() {
                states.push(hidden.narrow(0, number * tokens + first, length)?);
            }
        }
        let states = Tensor::stack(&states, 0)?;
        let spread = states.broadcast_sub(&states.mean_keepdim(0)?)?;
        let row: Vec<f32> = spread.sqr()?.sum(2)?.sum(0)?.to_vec1()?;
        if row.iter().any(|value| !value.is_finite()) {
            return Ok(None);
        }
        let into = squares[i * length..][..length].iter_mut();
        into.zip(row).for_each(|(to, from)| *to = f64::from(from));
    }
    Ok(Some(finish(length, &squares)))
}
