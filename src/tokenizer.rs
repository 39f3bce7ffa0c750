//! Residues to token ids and back. The vocabulary is data, read from a checkpoint's `tokenizer.json` or `spiece.model`.

use serde::{Deserialize, Serialize};

/// The task prefix in front of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskPrefix {
    /// No prefix token: Ankh v1 and v2, and several published wrappers.
    None,
    /// `[NLU]`: masked language modelling, Ankh3's usual prefix for embeddings.
    Nlu,
    /// `[S2S]`: sequence completion.
    S2s,
}

/// What the model sees of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// `[prefix] + one id per residue + </s>`.
    pub token_ids: Vec<u32>,
    /// Position of the first residue: 1 with a prefix, else 0. Residues are `token_ids[first..token_ids.len() - 1]`.
    pub first_residue: usize,
    /// Residues without an id of their own, given the id of `X`.
    pub replaced: usize,
}
