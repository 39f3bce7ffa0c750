//! Proteins to embeddings: tokens in packed batches through the encoder, chunks of long proteins joined, residues pooled.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use thiserror::Error;

use super::pooling::Pooling;
use super::recent::Recent;
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
}

/// The encoder, asked for embeddings.
pub struct Embedder<'a> {
    encoder: &'a Encoder,
    tokenizer: &'a Tokenizer,
    request: Request,
    recent: Recent,
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
            recent: Recent::default(),
        }
    }

    /// Values in a row of every column.
    pub fn width(&self) -> usize {
        self.encoder.config().d_model
    }

    /// The columns of every protein, in order; `None` where the network's result holds NaN or infinity. Equal proteins are computed once.
    ///
    /// # Errors
    /// A sequence that the vocabulary cannot say, or the network's failure.
    pub fn embed(&mut self, proteins: &[&[u8]]) -> Result<Vec<Option<Arc<Columns>>>, EmbedError> {
        let mut known: HashMap<&[u8], Option<Arc<Columns>>> = HashMap::new();
        let mut new = Vec::new();
        for residues in proteins {
            known.entry(residues).or_insert_with(|| {
                let recent = self.recent.get(residues);
                if recent.is_none() {
                    new.push(*residues);
                }
                recent
            });
        }
        for (residues, columns) in new.iter().zip(self.compute(&new)?) {
            if let Some(columns) = &columns {
                self.recent.insert(residues, columns);
            }
            known.insert(residues, columns);
        }
        Ok(proteins
            .iter()
            .map(|residues| known[residues].clone())
            .collect())
    }

    fn compute(&self, proteins: &[&[u8]]) -> Result<Vec<Option<Arc<Columns>>>, EmbedError> {
        let pieces = self.pieces(proteins)?;
        let width = self.width();
        let empty =
            |residues: &&[u8]| vec![vec![0.0; residues.len() * width]; self.request.layers.len()];
        let mut joined: Vec<Vec<Vec<f32>>> = proteins.iter().map(empty).collect();
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.token_ids.len()).collect();
        for batch in by_token_budget(&lengths, self.request.max_batch_tokens) {
            self.run(&pieces[batch], &mut joined)?;
        }
        Ok(joined
            .into_iter()
            .map(|layers| self.pool(layers).map(Arc::new))
            .collect())
    }

    fn pieces(&self, proteins: &[&[u8]]) -> Result<Vec<Piece>, EmbedError> {
        let mut pieces = Vec::new();
        for (protein, residues) in proteins.iter().enumerate() {
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

    fn pool(&self, layers: Vec<Vec<f32>>) -> Option<Columns> {
        if layers.iter().flatten().any(|value| !value.is_finite()) {
            return None;
        }
        let poolings = &self.request.poolings;
        if let [Pooling::PerResidue] = poolings.as_slice() {
            return Some(layers);
        }
        let pool = |layer: &Vec<f32>| {
            poolings
                .iter()
                .map(|pooling| pooling.apply(layer, self.width()))
                .collect::<Vec<_>>()
        };
        Some(layers.iter().flat_map(pool).collect())
    }
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
