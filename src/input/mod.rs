//! Reading files: FASTA, tables, structures, corpora. This room knows no tensors and no models.
//!
//! ```
//! use ankh3::input::sequences::{Input, Options};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("two.fasta");
//! std::fs::write(&path, ">a first\nMKV\n>b\nGA-V*\n")?;
//! let mut input = Input::open(&[path], Options::default())?;
//! let ids: Vec<String> = input
//!     .by_ref()
//!     .map(|item| item.map(|item| item.sequence.id))
//!     .collect::<Result<_, _>>()?;
//! assert_eq!(ids, ["a", "b"]);
//! assert_eq!(input.counts().residues, 6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod corpus;
mod decoded;
pub mod fasta;
pub mod labelled;
mod lines;
mod not_fasta;
mod prefetch;
pub mod sequences;
pub mod structure;
pub mod survey;
pub mod table;
pub mod table_error;
pub mod variants;
