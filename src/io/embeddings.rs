//! Embeddings on their way to a file and back: what every output format writes, and the format's choice.

use serde_json::{Map, Value};

/// Number type of the values written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutDtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16; formats without it (npy, npz, h5, parquet, arrow, tsv, jsonl) refuse it with the way out, see the format's docs.
    Bf16,
}

/// One output of the run: a layer pooled in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// `per_residue`, `mean`, …; with several layers `layer_12/mean`.
    pub name: String,
    /// Values a row.
    pub width: usize,
    /// One row a protein or one row a residue.
    pub rows: Rows,
}

/// How many rows a protein has in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Exactly one.
    PerSequence,
    /// Exactly as many as the protein has residues.
    PerResidue,
}

/// What a file holds: its columns and how they were made.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// In the order of each record's `values`.
    pub columns: Vec<Column>,
    /// Number type in the file.
    pub dtype: OutDtype,
    /// Provenance: model, revision, prefix, layers, pooling, dtype, device, version, …; written into the file's metadata.
    pub metadata: Map<String, Value>,
}

/// One protein's embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingRecord {
    /// Unique in the file.
    pub id: String,
    /// Residues in the protein.
    pub length: usize,
    /// One row-major `(rows, width)` block a column.
    pub values: Vec<Vec<f32>>,
}
