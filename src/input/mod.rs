//! Bytes to records: FASTA, tables, structures, corpora. No tensor and no model is known here.

pub mod corpus;
pub mod fasta;
pub mod labelled;
mod lines;
mod not_fasta;
mod prefetch;
pub mod sequences;
pub mod structure;
pub mod survey;
pub mod variants;
