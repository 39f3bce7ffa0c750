//! Proteins to embeddings: packed batches of tokens run through the encoder, chunks of long
//! proteins are joined, and residues are pooled.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use thiserror::Error;

use super::pooling::{EmbeddingColumns, Pooling};
use super::recent::Recent;
use super::workers::{Replicas, Workers};
use crate::kernels::plan::Pool;
use crate::kernels::pool::pool;
use crate::model::{Encoder, Packed};
use crate::sequence::{Chunk, Limit};
use crate::tokenizer::{TaskPrefix, Tokenizer, TokenizerError};

/// The results wanted per protein, and how to compute them.
#[derive(Clone, Debug)]
pub struct Request {
    /// The task prefix before the residues.
    pub prefix: TaskPrefix,
    /// Layers, numbered as in [`Encoder::hidden_states`].
    pub layers: Vec<usize>,
    /// The poolings of residues; every pooling of every layer is a column.
    pub poolings: Vec<Pooling>,
    /// The limit above which proteins are cut into overlapping chunks.
    pub limit: Limit,
    /// The largest number of tokens per batch; a single chunk may be longer.
    pub max_batch_tokens: usize,
}

/// Why a protein has no embedding.
#[derive(Debug, Error)]
pub enum EmbedError {
    /// The vocabulary cannot encode the protein.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The network failed.
    #[error(transparent)]
    Model(#[from] candle_core::Error),
}

/// An encoder that computes embeddings, on one device or on several.
pub struct Embedder<'a> {
    workers: Workers<&'a Encoder>,
    tokenizer: &'a Tokenizer,
    request: Request,
    recent: Recent,
    pools_on_device: bool,
}

/// The result of one batch.
enum Results {
    /// The rows of every token, layer by layer.
    Rows(Vec<Vec<f32>>),
    /// The columns of every protein of the batch.
    Pooled(Vec<Option<EmbeddingColumns>>),
}

/// A chunk of one protein on its way through the network.
struct Piece {
    protein: usize,
    chunk: Chunk,
    token_ids: Vec<u32>,
    first_residue: usize,
}

impl<'a> Embedder<'a> {
    /// An embedder that computes `request` with one encoder, or with replicas of it on several
    /// devices.
    pub fn new(
        encoders: impl Into<Replicas<&'a Encoder>>,
        tokenizer: &'a Tokenizer,
        request: Request,
    ) -> Self {
        let encoders = encoders.into();
        Self {
            pools_on_device: !encoders.first().device().is_cpu(),
            workers: Workers::new(encoders, device_of, request.max_batch_tokens),
            tokenizer,
            request,
            recent: Recent::default(),
        }
    }

    /// Whether proteins of one chunk are pooled on the device. The default is true on GPUs, where
    /// pooling in f32 saves copying all rows, and false on a CPU, which pools in f64.
    #[must_use]
    pub fn pooling_on_device(self, pools_on_device: bool) -> Self {
        Self {
            pools_on_device,
            ..self
        }
    }

    /// Values per row of every column.
    pub fn width(&self) -> usize {
        self.workers.network().config().d_model
    }

    /// The columns of every protein, in order; `None` where the network's result holds NaN or
    /// infinity. Equal proteins are computed once.
    ///
    /// # Errors
    /// A sequence that the vocabulary cannot encode, or the network's failure.
    pub fn embed(
        &mut self,
        proteins: &[&[u8]],
    ) -> Result<Vec<Option<Arc<EmbeddingColumns>>>, EmbedError> {
        let mut known: HashMap<&[u8], Option<Arc<EmbeddingColumns>>> = HashMap::new();
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

    fn compute(
        &self,
        proteins: &[&[u8]],
    ) -> Result<Vec<Option<Arc<EmbeddingColumns>>>, EmbedError> {
        let pieces = self.pieces(proteins)?;
        let width = self.width();
        let empty =
            |residues: &&[u8]| vec![vec![0.0; residues.len() * width]; self.request.layers.len()];
        let pools = self.pools(proteins);
        let mut joined: Vec<Vec<Vec<f32>>> = match pools {
            None => proteins.iter().map(empty).collect(),
            Some(_) => Vec::new(),
        };
        let mut pooled = Vec::new();
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.token_ids.len()).collect();
        let work = |encoder: &&Encoder, batch| match &pools {
            Some(pools) => self.pooled(encoder, &pieces[batch], pools),
            None => self.rows(encoder, &pieces[batch]),
        };
        self.workers.run(&lengths, work, |batch, results| {
            match results {
                Results::Rows(layers) => self.join(&pieces[batch], &layers, &mut joined),
                Results::Pooled(columns) => pooled.extend(columns),
            }
            Ok::<(), EmbedError>(())
        })?;
        let joined = joined.into_iter().map(|layers| self.pool(layers));
        Ok(pooled
            .into_iter()
            .chain(joined)
            .map(|columns| columns.map(Arc::new))
            .collect())
    }

    /// The poolings to run on the device; `None` where rows are wanted or proteins are joined from
    /// chunks.
    fn pools(&self, proteins: &[&[u8]]) -> Option<Vec<Pool>> {
        let whole = |residues: &&[u8]| self.request.limit.chunks(residues.len()).len() == 1;
        if !(self.pools_on_device && proteins.iter().all(whole)) {
            return None;
        }
        let pools = self.request.poolings.iter().map(|pooling| match pooling {
            Pooling::PerResidue => None,
            Pooling::Mean => Some(Pool::Mean),
            Pooling::Max => Some(Pool::Max),
            Pooling::Min => Some(Pool::Min),
            Pooling::Std => Some(Pool::Std),
        });
        pools.collect()
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

    /// The hidden states of a batch, layer by layer.
    fn rows(&self, encoder: &Encoder, pieces: &[Piece]) -> candle_core::Result<Results> {
        let states = encoder.hidden_states(&packed(pieces), &self.request.layers)?;
        let layers = states.iter().map(to_f32);
        Ok(Results::Rows(layers.collect::<candle_core::Result<_>>()?))
    }

    /// The columns of a batch of whole proteins, pooled on the device.
    fn pooled(
        &self,
        encoder: &Encoder,
        pieces: &[Piece],
        pools: &[Pool],
    ) -> candle_core::Result<Results> {
        let packed = packed(pieces);
        let states = encoder.hidden_states(&packed, &self.request.layers)?;
        let residues: Vec<Range<usize>> = pieces
            .iter()
            .zip(packed.segments())
            .map(|(piece, rows)| {
                let first = rows.start + piece.first_residue;
                first..first + piece.chunk.range.len()
            })
            .collect();
        let mut columns: Vec<Option<EmbeddingColumns>> = vec![Some(Vec::new()); pieces.len()];
        for state in &states {
            // NaN and infinities always show in the mean, but not in every other pooling.
            let mean = to_f32(&pool(state, &residues, Pool::Mean)?)?;
            for kind in pools {
                let values = match kind {
                    Pool::Mean => &mean,
                    kind => &to_f32(&pool(state, &residues, *kind)?)?,
                };
                let rows = values.chunks_exact(self.width());
                let means = mean.chunks_exact(self.width());
                for ((columns, row), mean) in columns.iter_mut().zip(rows).zip(means) {
                    let finite = mean.iter().chain(row).all(|value| value.is_finite());
                    *columns = columns.take().filter(|_| finite);
                    if let Some(columns) = columns {
                        columns.push(row.to_vec());
                    }
                }
            }
        }
        Ok(Results::Pooled(columns))
    }

    /// Adds the rows of a batch's residues to the rows of their proteins.
    fn join(&self, pieces: &[Piece], states: &[Vec<f32>], joined: &mut [Vec<Vec<f32>>]) {
        let packed = packed(pieces);
        for (layer, values) in states.iter().enumerate() {
            for (piece, rows) in pieces.iter().zip(packed.segments()) {
                let target = &mut joined[piece.protein][layer];
                add_rows(values, piece, &rows, target, self.width());
            }
        }
    }

    fn pool(&self, layers: Vec<Vec<f32>>) -> Option<EmbeddingColumns> {
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

fn device_of<'e>(encoder: &'e &Encoder) -> &'e Device {
    encoder.device()
}

fn packed(pieces: &[Piece]) -> Packed {
    Packed::from_segments(pieces.iter().map(|piece| piece.token_ids.as_slice()))
}

fn to_f32(state: &Tensor) -> candle_core::Result<Vec<f32>> {
    state.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Adds the rows of a piece's residues, weighted where a neighbouring chunk contains the same
/// residues.
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
