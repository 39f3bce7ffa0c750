//! Results to files: embeddings, tables, FASTA, contact lists; the journal of a run, and what shards need to become one file again. No tensor is known here.

pub mod contact_list;
pub mod embeddings;
pub mod entry;
pub mod journal;
pub mod shards;
pub mod sink;
pub mod table;
pub mod text_merge;
pub mod write_fasta;
