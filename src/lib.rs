//! `ankh3`: the protein language model Ankh3 (arXiv 2505.20052) as a library and a command-line
//! suite.
//!
//! The rooms, outermost first; each imports only from rooms below it (`tests/it/rooms/map.rs` has the
//! table):
//!
//! - [`commands`]: one file per sub-command, which opens, loads, runs, writes and reports.
//! - [`args`]: groups of flags that mean the same in every command.
//! - [`library`]: the model in one type, [`Ankh3`], for programs in Rust.
//! - [`inference`]: results of a model; [`training`]: making a model; [`probe`]: small heads on
//!   frozen embeddings.
//! - [`checkpoint`]: finding, fetching, loading and saving models; a model is a directory.
//! - [`check`]: whether this machine computes correctly, and how fast.
//! - [`model`]: the network; [`device`]: the device and the number type that the user asks for.
//! - [`kernels`]: the operations of the network, written for speed.
//! - [`packing`]: batches of sequences.
//! - [`report`]: pages and pictures of results; [`output`]: result files; [`input`]: what users
//!   bring. These rooms know no tensors.
//! - [`io`]: standard streams, files, compression, signals.
//! - [`tokenizer`], [`sequence`]: residues and token ids.
//! - [`number`]: number types, their names and bytes.
//! - [`progress`]: what the user sees during a run; [`shown`]: texts of files, safe to print.

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
pub mod shown;
pub mod tokenizer;
pub mod training;

pub use library::Ankh3;
