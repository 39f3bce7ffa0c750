//! Proteins to embeddings: tokens in packed batches through the encoder, chunks of long proteins joined, residues pooled.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Tensor};
use thiserror::Error;

use super::pooling::Pooling;
use super::recent::Recent;
use super::workers::{in_halves, run};
use crate::kernels::release_memory;
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

/// The encoder, asked for embeddings: on one device, or the same on several.
pub struct Embedder<'a> {
    encoders: Vec<&'a Encoder>,
    tokenizer: &'a Tokenizer,
    request: Request,
    recent: Recent,
    /// Tokens in a batch; less than asked for once a device had no memory for them.
    max_batch_tokens: AtomicUsize,
}

/// A chunk of one protein on its way through the network.
struct Piece {
    protein: usize,
    chunk: Chunk,
    token_ids: Vec<u32>,
    first_residue: usize,
}

/// Pieces of a batch that ran together, and the values of each layer's states.
type PartStates = (Range<usize>, Vec<Vec<f32>>);

impl<'a> Embedder<'a> {
    /// Asks `encoder` for what `request` names.
    pub fn new(encoder: &'a Encoder, tokenizer: &'a Tokenizer, request: Request) -> Self {
        Self::on_several(vec![encoder], tokenizer, request)
    }

    /// Asks the same encoder, loaded on several devices.
    ///
    /// # Panics
    /// Without an encoder.
    pub fn on_several(
        encoders: Vec<&'a Encoder>,
        tokenizer: &'a Tokenizer,
        request: Request,
    ) -> Self {
        assert!(!encoders.is_empty(), "an embedder has an encoder");
        Self {
            encoders,
            tokenizer,
            max_batch_tokens: AtomicUsize::new(request.max_batch_tokens),
            request,
            recent: Recent::default(),
        }
    }

    /// Values in a row of every column.
    pub fn width(&self) -> usize {
        self.encoders[0].config().d_model
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
        let batches = by_token_budget(&lengths, self.max_batch_tokens.load(Ordering::Relaxed));
        let work = |encoder: &Encoder, batch| self.states(encoder, &pieces, batch);
        run(&self.encoders, &batches, work, |_, parts| {
            for (part, states) in parts {
                self.join(&pieces[part], &states, &mut joined);
            }
        })?;
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

    /// The layers' states of a batch, or of its parts where the device has no memory for the whole.
    fn states(
        &self,
        encoder: &Encoder,
        pieces: &[Piece],
        batch: Range<usize>,
    ) -> candle_core::Result<Vec<PartStates>> {
        let work = |part: Range<usize>| {
            let packed = packed(&pieces[part]);
            let states = encoder.hidden_states(&packed, &self.request.layers)?;
            states.iter().map(to_f32).collect()
        };
        let relieve = |part: Range<usize>| {
            release_memory(encoder.device());
            let tokens = packed(&pieces[part]).token_ids.len();
            let less = (tokens / 2).max(1);
            if self.max_batch_tokens.fetch_min(less, Ordering::Relaxed) > less {
                tracing::warn!(
                    "no memory for a batch of {tokens} tokens: going on with {less} (--max-batch-tokens {less} begins there)"
                );
            }
        };
        in_halves(batch, &work, &relieve)
    }

    /// Adds the rows of a batch's residues to their proteins'.
    fn join(&self, pieces: &[Piece], states: &[Vec<f32>], joined: &mut [Vec<Vec<f32>>]) {
        let packed = packed(pieces);
        for (layer, values) in states.iter().enumerate() {
            for (piece, rows) in pieces.iter().zip(packed.segments()) {
                let target = &mut joined[piece.protein][layer];
                add_rows(values, piece, &rows, target, self.width());
            }
        }
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

fn packed(pieces: &[Piece]) -> Packed {
    Packed::from_segments(pieces.iter().map(|piece| piece.token_ids.as_slice()))
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
