//! The rows that a head reads: embeddings of a model, computed once and cached on disk, or
//! encodings of the residues alone.

use std::collections::HashSet;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::error::ProbeError;
use super::residue_encoding::ResidueEncoding;
use super::row_cache::{RowCache, RowKey, key};
use crate::inference::embedder::{Embedder, Request};
use crate::inference::pooling::Pooling;
use crate::model::Encoder;
use crate::sequence::Limit;
use crate::tokenizer::{TaskPrefix, Tokenizer};

/// Proteins that are embedded together.
const GROUP: usize = 64;

/// A protein that a head reads.
#[derive(Clone, Copy, Debug)]
pub struct Protein<'a> {
    /// The protein's name in messages.
    pub name: &'a str,
    /// Amino acids, one letter each.
    pub residues: &'a [u8],
}

/// What turns proteins into rows.
#[derive(Debug)]
pub enum FeatureSource {
    /// The encoder of a model.
    Model(Box<ModelFeatures>),
    /// An encoding of single residues, filled up with zeros to `width` values per row.
    Residues {
        /// The encoding.
        encoding: ResidueEncoding,
        /// Values per row.
        width: usize,
    },
}

/// An encoder and the embeddings that it has computed.
#[derive(Debug)]
pub struct ModelFeatures {
    /// The encoder.
    pub encoder: Encoder,
    /// The encoder's vocabulary.
    pub tokenizer: Tokenizer,
    /// The task prefix in front of each protein.
    pub prefix: TaskPrefix,
    /// Layers whose values stand side by side in a row.
    pub layers: Vec<usize>,
    /// Tokens per batch, at most.
    pub max_batch_tokens: usize,
    /// Embeddings on disk, by the hash of the residues.
    pub cache: RowCache,
}

/// The rows of a list of proteins, `(length, width)` each; read from disk whenever they are needed.
#[derive(Debug)]
pub enum Features<'a> {
    /// Embeddings in a cache.
    Cached {
        /// The cache.
        cache: &'a RowCache,
        /// The key of each protein.
        keys: Vec<RowKey>,
        /// Values per row.
        width: usize,
    },
    /// Encodings of single residues.
    Residues {
        /// The encoding.
        encoding: ResidueEncoding,
        /// Values per row.
        width: usize,
        /// The residues of each protein.
        proteins: Vec<&'a [u8]>,
    },
}

impl Features<'_> {
    /// Number of proteins.
    pub fn len(&self) -> usize {
        match self {
            Features::Cached { keys, .. } => keys.len(),
            Features::Residues { proteins, .. } => proteins.len(),
        }
    }

    /// Whether there are no proteins.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of protein `number` as a tensor `(length, width)`.
    ///
    /// # Errors
    /// A cache that cannot be read.
    pub fn tensor(&self, number: usize, device: &Device) -> Result<Tensor, ProbeError> {
        let (rows, width) = match self {
            Features::Cached { cache, keys, width } => {
                let rows = cache.read(&keys[number]);
                let rows = rows.map_err(|source| ProbeError::ReadCache {
                    folder: cache.folder().to_owned(),
                    source,
                })?;
                (rows, *width)
            }
            Features::Residues {
                encoding,
                width,
                proteins,
            } => (encoding.rows(proteins[number], *width), *width),
        };
        let shape = (rows.len() / width, width);
        Ok(Tensor::from_vec(rows, shape, device)?)
    }
}

impl FeatureSource {
    /// Values per row.
    pub fn width(&self) -> usize {
        match self {
            FeatureSource::Model(model) => model.encoder.config().d_model * model.layers.len(),
            FeatureSource::Residues { width, .. } => *width,
        }
    }

    /// The folder of cached embeddings.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            FeatureSource::Model(model) => Some(model.cache.folder()),
            FeatureSource::Residues { .. } => None,
        }
    }

    /// The proteins that [`FeatureSource::prepare`] would embed: those that are not cached, each
    /// once.
    pub fn missing<'a>(&self, proteins: &[Protein<'a>]) -> Vec<Protein<'a>> {
        match self {
            FeatureSource::Model(model) => model.missing(proteins),
            FeatureSource::Residues { .. } => Vec::new(),
        }
    }

    /// Embeds and caches the proteins that are not cached.
    ///
    /// # Errors
    /// A protein that cannot be embedded, an embedding that is not finite, a cache that cannot be
    /// written.
    pub fn prepare(&mut self, proteins: &[Protein<'_>]) -> Result<(), ProbeError> {
        match self {
            FeatureSource::Model(model) => model.prepare(proteins),
            FeatureSource::Residues { .. } => Ok(()),
        }
    }

    /// The rows of proteins that were prepared.
    pub fn features<'a>(&'a self, proteins: &[Protein<'a>]) -> Features<'a> {
        let residues = proteins.iter().map(|protein| protein.residues);
        match self {
            FeatureSource::Model(model) => Features::Cached {
                cache: &model.cache,
                keys: residues.map(|residues| key(&[residues])).collect(),
                width: self.width(),
            },
            FeatureSource::Residues { encoding, width } => Features::Residues {
                encoding: *encoding,
                width: *width,
                proteins: residues.collect(),
            },
        }
    }
}

impl ModelFeatures {
    fn missing<'a>(&self, proteins: &[Protein<'a>]) -> Vec<Protein<'a>> {
        let mut seen = HashSet::new();
        let mut is_new = |protein: &&Protein<'_>| {
            let key = key(&[protein.residues]);
            !self.cache.has(&key) && seen.insert(key)
        };
        proteins.iter().filter(&mut is_new).copied().collect()
    }

    fn prepare(&mut self, proteins: &[Protein<'_>]) -> Result<(), ProbeError> {
        let missing = self.missing(proteins);
        let request = Request {
            prefix: self.prefix,
            layers: self.layers.clone(),
            poolings: vec![Pooling::PerResidue],
            limit: Limit::NONE,
            max_batch_tokens: self.max_batch_tokens,
        };
        let mut embedder = Embedder::new(&self.encoder, &self.tokenizer, request);
        let width = self.encoder.config().d_model;
        for group in missing.chunks(GROUP) {
            let residues: Vec<&[u8]> = group.iter().map(|protein| protein.residues).collect();
            for (protein, layers) in group.iter().zip(embedder.embed(&residues)?) {
                let Some(layers) = layers else {
                    return Err(ProbeError::EmbeddingNotFinite(protein.name.to_owned()));
                };
                let rows = side_by_side(&layers, width);
                let inserted = self.cache.insert(key(&[protein.residues]), &rows);
                inserted.map_err(|source| ProbeError::WriteCache {
                    folder: self.cache.folder().to_owned(),
                    source,
                })?;
            }
        }
        Ok(())
    }
}

/// The rows of several layers as one row each.
fn side_by_side(layers: &[Vec<f32>], width: usize) -> Vec<f32> {
    if let [one] = layers {
        return one.clone();
    }
    let rows = layers.first().map_or(0, |layer| layer.len() / width);
    let row = |row: usize| {
        layers
            .iter()
            .flat_map(move |layer| &layer[row * width..][..width])
    };
    (0..rows).flat_map(row).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_stand_side_by_side() {
        let layers = [vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0, 7.0, 8.0]];
        assert_eq!(
            side_by_side(&layers, 2),
            [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]
        );
        assert_eq!(side_by_side(&layers[..1], 2), layers[0]);
    }
}
