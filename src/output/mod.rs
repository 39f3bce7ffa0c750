//! Writing results: embeddings, tables, FASTA, contact lists; the journal of a run, and merging the
//! files of shards. This room knows no tensors.
//!
//! ```
//! use ankh3::number::NumberType;
//! use ankh3::output::embeddings::{
//!     Column, EmbeddingFormat, EmbeddingReader, EmbeddingRecord, EmbeddingWriter, RowKind, Schema,
//! };
//! use ankh3::output::manifest::Manifest;
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("means.npz");
//! let schema = Schema {
//!     columns: vec![Column { name: "mean".to_owned(), width: 2, rows: RowKind::PerSequence }],
//!     dtype: NumberType::F32,
//!     metadata: Manifest::default(),
//! };
//! let record = EmbeddingRecord { id: "P12345".to_owned(), length: 10, values: vec![vec![0.5, -1.0]] };
//! let mut writer = EmbeddingWriter::create(EmbeddingFormat::Npz, &schema, &path)?;
//! writer.write(&record)?;
//! writer.finish(None)?;
//!
//! let records = EmbeddingReader::open(&path)?.collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(records, [record]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod contact_list;
pub mod embeddings;
pub mod entry;
pub mod journal;
pub mod layout;
pub mod manifest;
pub mod merge;
pub mod table;
pub mod write_fasta;
