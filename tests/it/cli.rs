//! The `ankh3` command as its users meet it: the built binary, real files, real pipes, real signals.
//!
//! The models are random: `ankh3 init` writes a nano once for all tests, and a tiny one (a golden of `tests/golden` with nano's tokenizer) makes
//! hundreds of runs cheap.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it ran on")]

/// How tests call the binary, and the models and proteins they give it.
mod support;

/// Input arrives by stdin, `-`, files and codecs; damaged input ends in the documented exit code and message, and no record is lost.
mod input;

/// Every format, written by the command, read back by the Python libraries of its users.
mod formats;

/// The numbers do not depend on batch, order, threads, shards; they are what `--pooling` and `--layers` say.
mod numbers;

/// Long proteins: chunks, cuts, refusals.
mod long;

/// A run that was killed goes on from there and ends in the same bytes; other runs' journals are refused.
mod resume;

/// Shards of FASTA files and tables become the bytes of one run.
mod text_shards;

/// Readers that go away, disks that are full, terminals that are quiet.
mod streams;

/// What cannot be done says so: devices, weights, flags.
mod refusals;

/// The commands around `embed`: doctor, completions, man, inspect, tokenize, models.
mod around;

/// Heads and contacts: trained, judged, asked, refused; and the page of results.
mod downstream;

/// The model inside the program: there without a file, the default, and what bf16 makes of a trained model.
mod nano;
