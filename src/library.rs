//! The library in one type: an open model.
//!
//! ```
//! let model = ankh3::Ankh3::open("nano")?;
//! let embeddings = model.embed(["MKTAYIAKQR", "MLSDEDFKAVFGMTRSAFANLPLWKQ"])?;
//! assert_eq!(embeddings[0].len(), 10);
//! assert_eq!(embeddings[1].mean().len(), model.width());
//! # Ok::<(), ankh3::library::LibraryError>(())
//! ```
//!
//! Everything else that a model can do is in [`inference`](crate::inference). Its functions take
//! the parts of a model, which [`Ankh3`] gives: [`Ankh3::encoder`], [`Ankh3::tokenizer`] and
//! [`Ankh3::loader`].

use std::sync::Arc;

use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError, Hub, ModelRef};
use crate::device::{Compute, DeviceError, DeviceSpec};
use crate::inference::embedder::{EmbedError, Embedder, Request};
use crate::inference::pooling::Pooling;
use crate::model::{Encoder, Loader};
use crate::number::NumberType;
use crate::sequence::{Limit, Origin, Problem, Record, Rules, SequenceError, clean};
use crate::tokenizer::{TaskPrefix, Tokenizer};

/// Tokens per batch on a CPU: enough work for all threads, and few enough for the caches.
const BATCH_TOKENS: usize = 2048;

/// Why a model cannot be opened, or a protein cannot be embedded.
#[derive(Debug, Error)]
pub enum LibraryError {
    /// The model is missing or damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// This build or machine lacks the device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The text is not a protein sequence.
    #[error("protein {number}: {problem}")]
    Sequence {
        /// Number of the protein among the given ones, from 1.
        number: usize,
        /// Why the text is invalid.
        problem: Problem,
    },
    /// The network failed, for example for lack of memory.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// Weights are missing or have a wrong shape.
    #[error(transparent)]
    Model(#[from] candle_core::Error),
    /// A result with NaN or infinity: the weights or the number type cannot represent the protein
    /// with this number among the given ones, from 1.
    #[error("protein {0}: the model's result holds NaN or infinity")]
    NotFinite(usize),
}

/// An encoder with its tokenizer, ready to embed proteins.
pub struct Ankh3 {
    checkpoint: Checkpoint,
    compute: Compute,
    prefix: TaskPrefix,
    encoder: Encoder,
}

/// The embedding of one protein: one row per residue.
#[derive(Clone, Debug, PartialEq)]
pub struct ResidueEmbedding {
    values: Vec<f32>,
    width: usize,
}

impl Ankh3 {
    /// Opens a model on the CPU in f32 with its default task prefix. `model` is a directory, the
    /// name of a model in the Hugging Face cache (downloaded by `ankh3 fetch`), or `nano`, the
    /// small model inside this crate.
    ///
    /// # Errors
    /// A model that is missing or damaged.
    pub fn open(model: &str) -> Result<Self, LibraryError> {
        let checkpoint = Checkpoint::load_from(ModelRef::parse(model)?.resolve(&Hub::from_env())?)?;
        let compute = Compute::open(DeviceSpec::Cpu, Some(NumberType::F32))?;
        let prefix = checkpoint.tokenizer.default_prefix();
        Self::from_parts(checkpoint, compute, prefix)
    }

    /// A model from its parts: on another device, in another number type or with another prefix.
    ///
    /// # Errors
    /// Weights that are missing or have a wrong shape.
    pub fn from_parts(
        checkpoint: Checkpoint,
        compute: Compute,
        prefix: TaskPrefix,
    ) -> Result<Self, LibraryError> {
        let encoder = Encoder::load(&checkpoint.loader(&compute), &checkpoint.config)?;
        Ok(Self {
            checkpoint,
            compute,
            prefix,
            encoder,
        })
    }

    /// Embeds proteins and returns the results in the same order. An embedding is the output of the
    /// last layer after the final norm, one row per residue. Lower case, gaps and final stops are
    /// treated as in FASTA input.
    ///
    /// # Errors
    /// Text that is not a protein sequence, a failure of the network, or a result with NaN or
    /// infinity.
    pub fn embed(
        &self,
        proteins: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Vec<ResidueEmbedding>, LibraryError> {
        let proteins = proteins
            .into_iter()
            .enumerate()
            .map(|(index, text)| residues(index + 1, text.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let request = Request {
            prefix: self.prefix,
            layers: vec![self.checkpoint.config.num_layers],
            poolings: vec![Pooling::PerResidue],
            limit: Limit::default(),
            max_batch_tokens: BATCH_TOKENS,
        };
        let mut embedder = Embedder::new(&self.encoder, self.tokenizer(), request);
        let proteins: Vec<&[u8]> = proteins.iter().map(Vec::as_slice).collect();
        let results = embedder.embed(&proteins)?;
        let width = self.width();
        let embedding = |(index, columns): (usize, Option<Arc<Vec<Vec<f32>>>>)| {
            let columns = columns.ok_or(LibraryError::NotFinite(index + 1))?;
            let values = columns[0].clone();
            Ok(ResidueEmbedding { values, width })
        };
        results.into_iter().enumerate().map(embedding).collect()
    }

    /// Values per row of an embedding: `d_model`.
    pub fn width(&self) -> usize {
        self.checkpoint.config.d_model
    }

    /// The encoder of the model.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The tokenizer of the model.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.checkpoint.tokenizer
    }

    /// The checkpoint from which the model was loaded.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// A loader for further parts of the model, such as the decoder.
    pub fn loader(&self) -> Loader<'_> {
        self.checkpoint.loader(&self.compute)
    }
}

impl ResidueEmbedding {
    /// Number of residues.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Always false, because a protein has at least one residue.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The row of residue `index`, counted from 0.
    ///
    /// # Panics
    /// If the protein has no residue `index`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }

    /// The mean over residues, as `ankh3 embed --pooling mean` computes it.
    pub fn mean(&self) -> Vec<f32> {
        Pooling::Mean.apply(&self.values, self.width)
    }

    /// All values, row by row: shape `(len, width)`.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

/// The residues of the protein with this number.
fn residues(number: usize, text: &str) -> Result<Vec<u8>, LibraryError> {
    let record = Record {
        id: format!("protein {number}"),
        raw_id: None,
        description: String::new(),
        text: text.as_bytes().to_vec(),
        // A protein in memory has no line; the error below names its number alone.
        origin: Origin {
            file: "memory".into(),
            record: number as u64,
            line: 0,
        },
    };
    match clean(record, &Rules::default()) {
        Ok((sequence, _)) => Ok(sequence.residues),
        Err(SequenceError { problem, .. }) => Err(LibraryError::Sequence { number, problem }),
    }
}
