//! `ankh3`: the protein language model Ankh3 (arXiv 2505.20052) as a library and a command-line suite.
//!
//! A map of the rooms, outermost first; each imports only from those below it (`tests/it/rooms.rs` holds the table):
//!
//! - [`commands`]: one file a sub-command; opens, loads, runs, writes, reports.
//! - [`args`]: flag groups that mean the same in every command.
//! - [`library`]: the model in one type, [`Ankh3`], for programs in Rust.
//! - [`inference`]: what one can ask of a model; [`training`]: how one is made; [`probe`]: small heads on frozen embeddings.
//! - [`checkpoint`]: a model is a directory; find, fetch, load, save it.
//! - [`check`]: whether this machine computes right, and how fast.
//! - [`packing`]: which sequences share a batch, and their order back.
//! - [`model`]: the network; [`kernels`]: the few operations that are our own.
//! - [`input`]: bytes to records; [`output`]: results to files; [`report`]: results to pages and pictures. None of them knows a tensor.
//! - [`io`]: standard streams, files, compression, signals.
//! - [`tokenizer`], [`sequence`]: residues, token ids.
//! - [`number`]: number types, their names and bytes.
//! - [`device`], [`progress`]: where it runs, what the user sees meanwhile.

#[cfg(feature = "cli")]
pub mod args;
pub mod check;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod commands;
pub mod device;
pub mod inference;
pub mod input;
pub mod io;
pub mod kernels;
pub mod library;
pub mod model;
pub mod number;
pub mod output;
pub mod packing;
pub mod probe;
#[cfg(feature = "cli")]
pub mod progress;
pub mod report;
pub mod sequence;
pub mod tokenizer;
pub mod training;

pub use library::Ankh3;
