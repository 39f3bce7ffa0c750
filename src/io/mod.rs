//! Bytes to records and embeddings to files. No tensor, no model in here.

pub mod embeddings;
