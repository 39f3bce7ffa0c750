//! The integration tests, as modules of one binary, because each binary links the whole program.
//!
//! `cargo test --test it golden::` runs one module. `tests/cuda` and `tests/workflows` need a C++
//! compiler and workflow engines, so they stand apart.

/// Skipping tests that cannot run on this machine.
#[path = "../skip/mod.rs"]
mod skip;

/// The map of the rooms: which room may import which.
mod rooms;

/// Input files: FASTA that is damaged on purpose.
mod input;

/// Structures against gemmi.
mod structures;

/// Output files: the formats of embeddings.
mod formats;

/// The inputs that fuzzing keeps, through every reader.
mod fuzz_corpus;

/// Opening and making models on disk.
mod checkpoint;

/// Downloading models from a hub on this machine.
mod fetch;

/// Products, attention and norms on the CPU against arithmetic in f64.
mod kernels;

/// Products in 8-bit and 16-bit integers.
mod int8;

/// Kernels read and write nothing beyond their slices.
mod bounds;

/// The network against transformers.
mod golden;

/// Generation against transformers.
mod generate;

/// Scores and filled masks.
mod masked;

/// Gradients against PyTorch.
mod gradients;

/// Heads and contacts.
mod probe;

/// The command `complete`.
mod complete;

/// The command `pretrain`.
mod pretrain;

/// All other commands, as their users meet them.
mod cli;
