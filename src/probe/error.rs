//! What can go wrong while a head is trained or evaluated.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::inference::embedder::EmbedError;
use crate::inference::masked::MaskedError;
use crate::inference::residues::ResiduesError;
use crate::tokenizer::TokenizerError;

/// Why a head cannot be trained or evaluated.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum ProbeError {
    /// A protein cannot be embedded.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// A protein cannot be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The vocabulary lacks a residue that a Jacobian substitutes.
    #[error(transparent)]
    Residues(#[from] ResiduesError),
    /// The model failed on a masked protein.
    #[error(transparent)]
    Masked(#[from] MaskedError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The embedding of the named protein is not finite.
    #[error(
        "{0}: the model's result holds NaN or infinity; try --dtype f32, or leave the record out"
    )]
    EmbeddingNotFinite(String),
    /// The cache of embeddings cannot be read.
    #[error("reading embeddings from {}", .folder.display())]
    ReadCache { folder: PathBuf, source: io::Error },
    /// The cache of embeddings cannot be written.
    #[error("writing embeddings to {}", .folder.display())]
    WriteCache { folder: PathBuf, source: io::Error },
    /// The attention maps of the named protein cannot be computed.
    #[error("{name}")]
    Attention {
        name: String,
        source: candle_core::Error,
    },
    /// A ConvBERT layer cannot read rows of this width.
    #[error(
        "a convbert head needs rows of a multiple of 4 values, not {0}; choose --body linear or mlp"
    )]
    Width(usize),
    /// The loss of a protein, counted from 1, is NaN or infinite.
    #[error(
        "the loss of protein {0} (counted from 1) is not finite; are its embedding and label finite numbers? Otherwise try a lower --learning-rate"
    )]
    LossNotFinite(usize),
    /// No protein has a label.
    #[error("none of the training proteins has a label that counts")]
    NoLabels,
    /// All pairs of residues touch, or none.
    #[error("the structures have no contacts to learn from: {contacts} of {pairs} pairs touch")]
    NoContacts {
        /// Pairs that touch.
        contacts: usize,
        /// All pairs.
        pairs: usize,
    },
    /// The Jacobian of a protein needs more memory than allowed.
    #[error(
        "{name}: the Jacobian of {length} residues takes {needed:.1} GiB; give --max-memory {}, or use --jacobian-outputs hidden, --method attention or --method head", .needed.ceil()
    )]
    Memory {
        name: String,
        length: usize,
        /// GiB.
        needed: f64,
    },
}
