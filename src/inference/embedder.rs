//! Proteins to embeddings: tokens in packed batches through the encoder, chunks of long proteins joined, residues pooled.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use thiserror::Error;

use super::pooling::Pooling;
use crate::model::{Encoder, Packed};
use crate::packing::by_token_budget;
use crate::sequence::{Chunk, Limit};
use crate::tokenizer::{TaskPrefix, Tokenizer, TokenizerError};

/// What is computed of each protein.
#[derive(Clone, Debug)]
pub struct Request {
    /// The task prefix in front.
    pub prefix: TaskPrefix,
    /// Layers, numbered as in [`Encoder::hidden_states`].
    pub layers: Vec<usize>,
    /// How residues are pooled; every pooling of every layer is a column.
    pub poolings: Vec<Pooling>,
    /// Longer proteins are cut into overlapping chunks where this says so.
    pub limit: Limit,
    /// Tokens in a batch, at most (but one chunk is never cut further).
    pub max_batch_tokens: usize,
}

/// One column's rows of one protein, row-major.
pub type Columns = Vec<Vec<f32>>;

/// Why a protein has no embedding.
#[derive(Debug, Error)]
pub enum EmbedError {
    /// The vocabulary cannot say it.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The network failed.
    #[error(transparent)]
    Model(#[from] candle_core::Error),
    /// The result holds NaN or infinity.
    #[error(
        "the model's result for {id} is not finite; the weights or the number type do not bear this sequence (try --dtype f32)"
    )]
    NotFinite {
        /// Whose result.
        id: String,
    },
}

/// The encoder, asked for embeddings.
pub struct Embedder<'a> {
    encoder: &'a Encoder,
    tokenizer: &'a Tokenizer,
    request: Request,
}

/// A chunk of one protein on its way through the network.
struct Piece {
    protein: usize,
    chunk: Chunk,
    token_ids: Vec<u32>,
    first_residue: usize,
}

impl<'a> Embedder<'a> {
    /// Asks `encoder` for what `request` names.
    pub fn new(encoder: &'a Encoder, tokenizer: &'a Tokenizer, request: Request) -> Self {
        Self {
            encoder,
            tokenizer,
            request,
        }
    }

    /// Values in a row of every column.
    pub fn width(&self) -> usize {
        self.encoder.config().d_model
    }

    /// The columns of every protein `(id, residues)`, in their order; of equal residues only the first is computed.
    ///
    /// # Errors
    /// The first protein without a finite result, or the network's failure.
    pub fn embed(&self, proteins: &[(&str, &[u8])]) -> Result<Vec<Arc<Columns>>, EmbedError> {
        let (unique, places) = without_repeats(proteins);
        let pieces = self.pieces(&unique)?;
        let width = self.width();
        let mut joined: Vec<Vec<Vec<f32>>> = unique
            .iter()
            .map(|(_, residues)| vec![vec![0.0; residues.len() * width]; self.request.layers.len()])
            .collect();
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.token_ids.len()).collect();
        for batch in by_token_budget(&lengths, self.request.max_batch_tokens) {
            self.run(&pieces[batch], &mut joined)?;
        }
        let mut results = Vec::with_capacity(unique.len());
        for ((id, _), layers) in unique.iter().zip(&mut joined) {
            results.push(Arc::new(self.pool(id, std::mem::take(layers))?));
        }
        Ok(places
            .into_iter()
            .map(|place| results[place].clone())
            .collect())
    }

    fn pieces(&self, proteins: &[(&str, &[u8])]) -> Result<Vec<Piece>, EmbedError> {
        let mut pieces = Vec::new();
        for (protein, (_, residues)) in proteins.iter().enumerate() {
            for chunk in self.request.limit.chunks(residues.len()) {
                let encoding = self
                    .tokenizer
                    .encode(&residues[chunk.range.clone()], self.request.prefix)?;
                let (token_ids, first_residue) = (encoding.token_ids, encoding.first_residue);
                pieces.push(Piece {
                    protein,
                    chunk,
                    token_ids,
                    first_residue,
                });
            }
        }
        Ok(pieces)
    }

    /// Runs one batch and adds its residues' rows to their proteins'.
    fn run(&self, pieces: &[Piece], joined: &mut [Vec<Vec<f32>>]) -> Result<(), EmbedError> {
        let packed = Packed::from_segments(pieces.iter().map(|piece| piece.token_ids.as_slice()));
        let states = self.encoder.hidden_states(&packed, &self.request.layers)?;
        for (layer, state) in states.iter().enumerate() {
            let values = to_f32(state)?;
            for (piece, rows) in pieces.iter().zip(packed.segments()) {
                add_rows(
                    &values,
                    piece,
                    &rows,
                    &mut joined[piece.protein][layer],
                    self.width(),
                );
            }
        }
        Ok(())
    }

    fn pool(&self, id: &str, layers: Vec<Vec<f32>>) -> Result<Columns, EmbedError> {
        if layers.iter().flatten().any(|value| !value.is_finite()) {
            return Err(EmbedError::NotFinite { id: id.to_owned() });
        }
        let poolings = &self.request.poolings;
        if let [Pooling::PerResidue] = poolings.as_slice() {
            return Ok(layers);
        }
        let pool = |layer: &Vec<f32>| {
            poolings
                .iter()
                .map(|pooling| pooling.apply(layer, self.width()))
                .collect::<Vec<_>>()
        };
        Ok(layers.iter().flat_map(pool).collect())
    }
}

/// The distinct proteins in order of appearance, and for each protein the place of its like among them.
fn without_repeats<'p>(proteins: &[(&'p str, &'p [u8])]) -> (Vec<(&'p str, &'p [u8])>, Vec<usize>) {
    let mut unique = Vec::new();
    let mut seen = HashMap::new();
    let places = proteins
        .iter()
        .map(|&(id, residues)| {
            *seen.entry(residues).or_insert_with(|| {
                unique.push((id, residues));
                unique.len() - 1
            })
        })
        .collect();
    (unique, places)
}

fn to_f32(state: &Tensor) -> candle_core::Result<Vec<f32>> {
    state.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Adds the rows of a piece's residues, weighted where a neighbouring chunk has them too.
fn add_rows(values: &[f32], piece: &Piece, rows: &Range<usize>, target: &mut [f32], width: usize) {
    let first = rows.start + piece.first_residue;
    for (offset, residue) in piece.chunk.range.clone().enumerate() {
        let weight = piece.chunk.weight(offset);
        let source = &values[(first + offset) * width..][..width];
        let target = &mut target[residue * width..][..width];
        for (sum, value) in target.iter_mut().zip(source) {
            *sum += weight * value;
        }
    }
}
