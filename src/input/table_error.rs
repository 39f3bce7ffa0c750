//! Why a table that a user brings, or one of its rows, cannot be read.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a table, or one of its rows, cannot be read.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum TableError {
    /// The table cannot be opened or read.
    #[error("{} cannot be read", .path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A line is invalid.
    #[error("{}, line {line}: {what}", .path.display())]
    Line {
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// The problem, and the way out.
        what: String,
    },
    /// A field of a row is invalid.
    #[error("{}, line {line}, column {column}: {what}", .path.display())]
    Field {
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// The column's name, or its number from 1 where the table has no header.
        column: String,
        /// The problem, and the way out.
        what: String,
    },
}
