//! Errors of checkpoints. Each message names what to do.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::tokenizer::TokenizerError;

/// Why a checkpoint could not be found, read, or written.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum CheckpointError {
    /// The value of `--model` is no directory, no known name and no `owner/repo`.
    #[error(
        "`{0}` is neither a directory nor a model's name; give a checkpoint's directory, one of {known}, or `owner/repo[@revision]`",
        known = crate::checkpoint::resolve::known_names()
    )]
    UnknownModel(String),
    /// A file was given where a directory is expected.
    #[error("{0} is a file; a model is the directory that holds it together with its config.json")]
    IsAFile(PathBuf),
    /// The model is not in the cache.
    #[error(
        "{name} is not in the cache {cache} (and no directory has this name); run `ankh3 fetch {name}` once, where there is a network"
    )]
    NotCached {
        /// As the user gave it.
        name: String,
        cache: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A file of the checkpoint is missing.
    #[error("{dir} holds no {file}; {way_out}")]
    MissingFile {
        dir: PathBuf,
        file: String,
        /// What the user can do.
        way_out: &'static str,
    },
    /// A file is not of the format that its name says.
    #[error("{path}: {message}")]
    Damaged {
        path: PathBuf,
        /// The problem, and what the user can do.
        message: String,
    },
    /// The vocabulary cannot be used.
    #[error("{path}: {source}")]
    Tokenizer {
        path: PathBuf,
        /// Why the vocabulary cannot be used.
        source: TokenizerError,
    },
    /// The checkpoint lacks a tensor.
    #[error(
        "{dir} holds no tensor `{name}` (expected with shape {expected:?}); it may be another kind of model or incomplete: see `ankh3 inspect {dir}`, or fetch it again"
    )]
    MissingTensor {
        dir: PathBuf,
        name: String,
        /// The shape by config.json.
        expected: Vec<usize>,
    },
    /// An output projection of its own in a model whose embeddings are tied.
    #[error(
        "{0}: config.json says that the output projection is the embedding table (`tie_word_embeddings`), but there is another `lm_head.weight`; set `tie_word_embeddings` to false if the model was trained with it, or delete it"
    )]
    ContradictoryHead(PathBuf),
    /// Two embedding tables with different values.
    #[error(
        "{dir}: `{}` and `{}` differ, but a T5 has one embedding table; delete the one that the model was not trained with",
        names[0],
        names[1]
    )]
    TwoTables {
        dir: PathBuf,
        names: [&'static str; 2],
    },
    /// A tensor's shape contradicts the configuration.
    #[error(
        "{file}: tensor `{name}` has the shape {found:?}, but config.json asks for {expected:?}; weights and config.json do not belong together"
    )]
    WrongShape {
        file: PathBuf,
        name: String,
        found: Vec<usize>,
        /// The shape by config.json.
        expected: Vec<usize>,
    },
    /// A tensor is stored as a type that is not supported.
    #[error(
        "{file}: tensor `{name}` with shape {shape:?} is stored as {dtype}; only F32, F16 and BF16 are read: convert the checkpoint to one of them"
    )]
    UnsupportedDtype {
        file: PathBuf,
        name: String,
        shape: Vec<usize>,
        dtype: String,
    },
    /// The target directory of a new checkpoint is not empty.
    #[error("{0} exists and is not empty; choose another directory or remove it first")]
    Exists(PathBuf),
}

impl CheckpointError {
    /// An argument of `map_err` after a file operation.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| CheckpointError::Io { path, source }
    }

    pub(crate) fn damaged(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        CheckpointError::Damaged {
            path: path.as_ref().to_path_buf(),
            message: message.into(),
        }
    }
}
