//! Bytes to records and embeddings to files. No tensor, no model in here.

mod ahead;
pub mod compression;
pub mod corpus;
pub mod embeddings;
pub mod entry;
pub mod fasta;
pub mod input;
pub mod journal;
mod lines;
mod not_fasta;
pub mod sink;
pub mod stdio;
