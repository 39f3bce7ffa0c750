//! The `ankh3` command as its users meet it: the built binary, real files, real pipes, real
//! signals.
//!
//! The models are random. `ankh3 init` writes a nano once for all tests; a tiny model (a golden of
//! `tests/golden` with nano's tokenizer) makes hundreds of runs cheap.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it ran on")]

/// Running the binary, and models and proteins for it.
mod support;

/// Input from stdin, `-`, files and codecs; damaged input gives the documented exit code and
/// message, and no record is lost.
mod input;

/// Every format, written by the command and read back by Python libraries.
mod formats;

/// Numbers do not depend on batches, order, threads or shards, and follow `--pooling` and
/// `--layers`.
mod numbers;

/// Long proteins: cut into chunks, truncated, rejected.
mod long;

/// A killed run is resumed and gives the same bytes; the journals of other runs are rejected.
mod resume;

/// No output replaces an input.
mod distinct;

/// Files that were cut are not read as if they were whole.
mod cut;

/// Merged shards of FASTA files and tables are the bytes of one run.
mod text_shards;

/// Readers that end early, full disks, `--quiet`.
mod streams;

/// Errors of devices, weights and flags.
mod refusals;

/// Vocabularies with tokens of their own; a model file that changes during a run.
mod models;

/// The commands around `embed`: doctor, completions, man, inspect, tokenize, models.
mod around;

/// Training, evaluation, prediction and errors of heads and contacts; the page of results.
mod downstream;

/// The model inside the program: available without a file, the default; bf16 on a trained model.
mod nano;

/// `doctor --model` against known results of a model, right and changed.
mod published;
