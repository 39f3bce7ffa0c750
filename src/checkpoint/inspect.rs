//! The content of a checkpoint in one page, for `ankh3 inspect` and for messages.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Checkpoint;
use super::layout::{self, LmHead};
use crate::model::Config;
use crate::model::names::{LM_HEAD, SHARED};
use crate::shown::{ShownMessage, shown};
use crate::tokenizer::TokenizerKind;

/// The summary of a checkpoint; `Display` is for people, serde for programs.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointSummary {
    /// `owner/repo` or the directory's name.
    pub id: String,
    /// The commit, if it came from the hub.
    pub revision: Option<String>,
    /// The licence of the weights, if known.
    pub licence: Option<String>,
    /// See [`Checkpoint::model_hash`].
    pub model_hash: Option<String>,
    /// Whether the weights are random, as written by `ankh3 init`.
    pub random: bool,
    /// The network's shape.
    pub config: Config,
    /// Whether the output projection is the embedding table.
    pub tied: bool,
    /// Number of parameters.
    pub parameters: usize,
    /// Number of parameters that `embed` reads.
    pub encoder_parameters: usize,
    /// Number of tensors by stored type.
    pub dtypes: BTreeMap<String, usize>,
    /// The weight files and their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// The file of the vocabulary: `tokenizer.json` or `spiece.model`.
    pub tokenizer: &'static str,
    /// Number of ids in the vocabulary.
    pub vocab_size: usize,
    /// Number of sentinels in the vocabulary.
    pub sentinels: usize,
    /// The prefixes that the vocabulary has a token for.
    pub prefixes: Vec<String>,
    /// Errors of tensors that are missing or have another shape than config.json says.
    pub problems: Vec<String>,
    /// Tensors that no part of the network reads.
    pub unused: Vec<String>,
}

impl CheckpointSummary {
    /// Reads headers only, except for the hash.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let entries = &checkpoint.weights.entries;
        let size = |shape: &[usize]| shape.iter().product::<usize>();
        let is_encoder = |name: &str| name == SHARED || name.starts_with("encoder.");
        let mut dtypes = BTreeMap::new();
        for entry in entries.values() {
            let dtype = match &entry.dtype {
                Ok(dtype) => dtype.torch_name().to_string(),
                Err(other) => other.clone(),
            };
            *dtypes.entry(dtype).or_default() += 1;
        }
        let of = |keep: &dyn Fn(&str) -> bool| {
            let kept = entries.iter().filter(|(name, _)| keep(name));
            kept.map(|(_, entry)| size(&entry.shape)).sum()
        };
        let (problems, unused) = compare(checkpoint);
        let tokenizer = &checkpoint.tokenizer;
        CheckpointSummary {
            id: checkpoint.id(),
            revision: checkpoint.revision(),
            licence: checkpoint.licence(),
            model_hash: checkpoint.model_hash().ok(),
            random: checkpoint.is_random(),
            config: checkpoint.config.clone(),
            tied: checkpoint.lm_head() == LmHead::Tied,
            parameters: of(&|_| true),
            encoder_parameters: of(&is_encoder),
            dtypes,
            files: checkpoint
                .weights
                .files()
                .map(|(path, size)| (file_name(path), size))
                .collect(),
            tokenizer: match tokenizer.kind() {
                TokenizerKind::Json => "tokenizer.json",
                TokenizerKind::SentencePiece => "spiece.model",
                TokenizerKind::Builtin => "built in",
            },
            vocab_size: tokenizer.vocab_size(),
            sentinels: tokenizer.num_sentinels(),
            prefixes: tokenizer.prefixes().map(str::to_owned).collect(),
            problems,
            unused,
        }
    }
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Compares the tensors that the network reads with the stored ones: problems and unused tensors.
fn compare(checkpoint: &Checkpoint) -> (Vec<String>, Vec<String>) {
    let specs = layout::tensors(&checkpoint.config, checkpoint.lm_head());
    let encoder_only = !checkpoint.names().any(|name| name.starts_with("decoder."));
    let mut problems = Vec::new();
    let mut used: Vec<&str> = Vec::new();
    for spec in &specs {
        if encoder_only && (spec.name.starts_with("decoder.") || spec.name == LM_HEAD) {
            continue;
        }
        if let Err(error) = checkpoint.tensor(&spec.name, &spec.shape) {
            problems.push(error.to_string());
        }
        used.push(&spec.name);
    }
    let is_table = |name: &str| name.ends_with("embed_tokens.weight");
    let unused = checkpoint
        .names()
        .filter(|name| !used.contains(name) && !is_table(name));
    (problems, unused.map(str::to_string).collect())
}

impl fmt::Display for CheckpointSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        writeln!(f, "model        {}", shown(&self.id))?;
        writeln!(
            f,
            "revision     {}",
            shown(self.revision.as_deref().unwrap_or("-"))
        )?;
        writeln!(
            f,
            "licence      {}",
            shown(self.licence.as_deref().unwrap_or("not stated"))
        )?;
        writeln!(
            f,
            "hash         {}",
            self.model_hash.as_deref().unwrap_or("-")
        )?;
        let state = if self.random {
            "random, never trained"
        } else {
            "as stored"
        };
        writeln!(f, "weights      {state}")?;
        let (all, encoder) = (
            self.parameters as f64 / 1e6,
            self.encoder_parameters as f64 / 1e6,
        );
        writeln!(f, "parameters   {all:.1} M, encoder {encoder:.1} M")?;
        let dtypes = self
            .dtypes
            .iter()
            .map(|(dtype, count)| format!("{} ({count} tensors)", shown(dtype)));
        writeln!(f, "stored as    {}", dtypes.collect::<Vec<_>>().join(", "))?;
        writeln!(
            f,
            "layers       encoder {}, decoder {}",
            config.num_layers,
            config.decoder_layers()
        )?;
        writeln!(
            f,
            "width        d_model {}, d_ff {}, {} heads of {}",
            config.d_model, config.d_ff, config.num_heads, config.d_kv
        )?;
        let output = if self.tied {
            "tied to the embeddings"
        } else {
            "lm_head of its own"
        };
        writeln!(f, "output       {output}")?;
        writeln!(
            f,
            "tokenizer    {}: {} ids, {} sentinels, prefixes: {}",
            self.tokenizer,
            self.vocab_size,
            self.sentinels,
            if self.prefixes.is_empty() {
                "none".to_string()
            } else {
                self.prefixes.join(", ")
            }
        )?;
        for (file, bytes) in &self.files {
            let megabytes = *bytes as f64 / 1e6;
            writeln!(f, "file         {} ({megabytes:.1} MB)", shown(file))?;
        }
        for problem in &self.problems {
            writeln!(f, "problem      {}", ShownMessage(problem))?;
        }
        for name in &self.unused {
            writeln!(f, "unused       {}", shown(name))?;
        }
        Ok(())
    }
}
