//! `ankh3`: the protein language model Ankh3 (arXiv 2505.20052) as a library and a command-line suite.
//!
//! A map of the rooms, outermost first; each imports only from those below it (`tests/rooms.rs` holds the table):
//!
//! - [`commands`]: one file a sub-command; opens, loads, runs, writes, reports.
//! - [`args`]: flag groups that mean the same in every command.
//! - [`inference`]: what one can ask of a model; [`training`]: how one is made; [`probe`]: small heads on frozen embeddings.
//! - [`checkpoint`]: a model is a directory; find, fetch, load, save it.
//! - [`packing`]: which sequences share a batch, and their order back.
//! - [`model`]: the network; [`kernels`]: the few operations that are our own.
//! - [`io`]: bytes to records and embeddings to files. Knows no tensor.
//! - [`tokenizer`], [`sequence`]: residues, token ids.
//! - [`device`], [`progress`]: where it runs, what the user sees meanwhile.

pub mod args;
pub mod checkpoint;
pub mod commands;
pub mod device;
pub mod inference;
pub mod io;
pub mod kernels;
pub mod model;
pub mod packing;
pub mod probe;
pub mod progress;
pub mod sequence;
pub mod tokenizer;
pub mod training;
