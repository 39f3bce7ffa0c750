//! Bytes to records and embeddings to files. No tensor, no model in here.

mod ahead;
pub mod atomic_file;
pub mod compression;
pub mod contact_list;
pub mod corpus;
pub mod curves;
pub mod embeddings;
pub mod entry;
pub mod fasta;
pub mod heatmap;
pub mod input;
pub mod journal;
pub mod labelled;
mod lines;
mod not_fasta;
pub mod picture;
pub mod plots;
pub mod row_cache;
pub mod signals;
pub mod sink;
pub mod stdio;
pub mod structure;
pub mod survey;
pub mod table;
pub mod tensorboard;
pub mod variants;
pub mod write_fasta;
