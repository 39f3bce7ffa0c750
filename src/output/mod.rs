//! Results to files: embeddings, tables, FASTA, contact lists; the journal of a run, and what shards need to become one file again. No tensor is known here.

pub mod contact_list;
pub mod embeddings;
pub mod entry;
pub mod journal;
pub mod layout;
pub mod manifest;
pub mod merge;
pub mod table;
pub mod write_fasta;
