//! What `probe`, `contacts` and `predict-contacts` share: where embeddings come from, how heads lie on disk, how training is asked for.

mod file;
mod source;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

pub(super) use file::{Stored, load, save};
pub(super) use source::{EmbeddingNotFinite, Protein, Source, prefix_of_head, same_model};

use crate::args::{ModelArgs, at_least_one, number_type};
use crate::number::NumberType;
use crate::probe::head::Body;
use crate::probe::settings::Settings;
use crate::tokenizer::TaskPrefix;

/// Where embeddings come from.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Embeddings")]
pub struct FeatureArgs {
    /// A checkpoint directory, or the name of a model (`ankh3 models` lists them) [default: nano].
    #[arg(long, short, value_name = "DIR|NAME", env = "ANKH3_MODEL")]
    pub(super) model: Option<String>,

    /// Task prefix in front of each sequence [default: that of the head; in training nlu where the vocabulary has it, else none].
    #[arg(long, value_enum, ignore_case = true)]
    pub(super) prefix: Option<TaskPrefix>,

    /// Keep embeddings in this directory, for other runs too [default: a temporary one].
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,

    /// Number type of kept embeddings; f16 takes half the space.
    #[arg(long, value_parser = number_type(&CACHE_TYPES), default_value = "f32")]
    pub(super) cache_dtype: NumberType,
}

const CACHE_TYPES: [(NumberType, &str); 2] = [
    (NumberType::F32, "Single precision"),
    (NumberType::F16, "Half precision"),
];

impl FeatureArgs {
    /// The model.
    pub(super) fn model(&self, prefix: Option<TaskPrefix>) -> ModelArgs {
        let model = self.model.clone();
        ModelArgs { model, prefix }
    }
}

/// Embeddings of a model, or something that knows nothing but the residue.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Embeddings")]
pub struct TrainFeatureArgs {
    #[command(flatten)]
    pub(super) common: FeatureArgs,

    /// What the head reads.
    #[arg(long, value_enum, default_value = "model")]
    pub(super) features: FeaturesArg,

    /// Values a row of onehot and blosum62, filled up with zeros: a model's width gives a head of the same size.
    #[arg(long, value_name = "N", default_value = "256", value_parser = at_least_one)]
    pub(super) feature_width: usize,

    /// Layers, by commas, their values side by side: 0 the embedding table, -1 the last layer after the final norm.
    #[arg(
        long,
        value_delimiter = ',',
        allow_negative_numbers = true,
        default_value = "-1",
        value_name = "N"
    )]
    pub(super) layers: Vec<i64>,
}

/// What a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FeaturesArg {
    /// The model's embeddings.
    Model,
    /// One-hot residues: a baseline.
    Onehot,
    /// Rows of BLOSUM62: a baseline.
    Blosum62,
}

/// How a head learns; the defaults are the paper's.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// What stands between embeddings and the last layer.
    #[arg(long, value_enum, default_value = "convbert")]
    pub(super) body: Body,

    /// Times every protein is seen; the best on the validation set is kept.
    #[arg(long, value_name = "N", default_value = "5", value_parser = at_least_one)]
    epochs: usize,

    /// Proteins in a step.
    #[arg(long, value_name = "N", default_value = "16", value_parser = at_least_one)]
    accumulation: usize,

    /// The highest rate.
    #[arg(long, value_name = "F", default_value = "1e-3")]
    learning_rate: f64,

    /// Steps until then, at most half of all.
    #[arg(long, value_name = "N", default_value = "1000")]
    warmup_steps: usize,

    /// Of weights, order, dropout and intervals.
    #[arg(long, default_value = "7")]
    seed: u64,
}

/// [`Body`] on the command line.
impl TrainingArgs {
    /// As settings.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            epochs: self.epochs,
            accumulation: self.accumulation,
            learning_rate: self.learning_rate,
            warmup_steps: self.warmup_steps,
            seed: self.seed,
            ..Settings::default()
        }
    }
}

/// File names for provenance.
pub(super) fn names(paths: &[PathBuf]) -> Vec<String> {
    let name = |path: &PathBuf| file_name(path);
    paths.iter().map(name).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
