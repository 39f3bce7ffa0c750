//! What `probe`, `contacts` and `predict-contacts` share: flags of embeddings and training, opening
//! what a head reads, heads on disk.

mod file;
mod open;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

pub(super) use file::{StoredHead, check_folder, save};
pub(super) use open::{OpenedFeatures, open_model_of_head};

use crate::args::{ModelArgs, at_least_one, number_type};
use crate::number::NumberType;
use crate::probe::head::Body;
use crate::probe::settings::FitSettings;
use crate::tokenizer::TaskPrefix;

/// The model whose embeddings a head reads.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Embeddings")]
pub struct FeatureArgs {
    /// A checkpoint directory, or the name of a model (`ankh3 models` lists them) [default: nano].
    #[arg(long, short, value_name = "DIR|NAME", env = "ANKH3_MODEL")]
    pub(super) model: Option<String>,

    /// Task prefix in front of each sequence: none, nlu, s2s, or a token of the vocabulary
    /// [default: that of the head; in training nlu where the vocabulary has it, else none].
    #[arg(long)]
    pub(super) prefix: Option<TaskPrefix>,

    /// Cache embeddings in this directory, also for later runs [default: a temporary directory].
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,

    /// Number type of cached embeddings; f16 takes half the space.
    #[arg(long, value_parser = number_type(&CACHE_TYPES), default_value = "f32")]
    pub(super) cache_dtype: NumberType,
}

const CACHE_TYPES: [(NumberType, &str); 2] = [
    (NumberType::F32, "Single precision"),
    (NumberType::F16, "Half precision"),
];

impl FeatureArgs {
    /// The model with a prefix.
    pub(super) fn model(&self, prefix: Option<TaskPrefix>) -> ModelArgs {
        let model = self.model.clone();
        ModelArgs { model, prefix }
    }
}

/// What a new head reads.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Embeddings")]
pub struct TrainFeatureArgs {
    #[command(flatten)]
    pub(super) common: FeatureArgs,

    /// What the head reads: a model's embeddings, or a baseline that needs no model.
    #[arg(long, value_enum, default_value = "model")]
    pub(super) features: FeaturesArg,

    /// Values per residue with --features onehot or blosum62, filled up with zeros; the model's
    /// width gives a head of the same size.
    #[arg(long, value_name = "N", default_value = "256", value_parser = at_least_one)]
    pub(super) feature_width: usize,

    /// Layers whose values are concatenated, separated by commas: 0 is the embedding table, -1 the
    /// last layer after the final norm.
    #[arg(
        long,
        value_delimiter = ',',
        allow_negative_numbers = true,
        default_value = "-1",
        value_name = "N"
    )]
    pub(super) layers: Vec<i64>,
}

/// The kinds of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FeaturesArg {
    /// The model's embeddings.
    Model,
    /// One-hot encoding of each residue, a baseline.
    Onehot,
    /// The row of each residue in BLOSUM62, a baseline.
    Blosum62,
}

/// How a head is trained; the defaults are the paper's.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Layers between the embeddings and the last layer.
    #[arg(long, value_enum, default_value = "convbert")]
    pub(super) body: Body,

    /// Passes over the training set; the best epoch on the validation set is kept.
    #[arg(long, value_name = "N", default_value = "5", value_parser = at_least_one)]
    epochs: usize,

    /// Proteins per optimizer step (gradient accumulation).
    #[arg(long, value_name = "N", default_value = "16", value_parser = at_least_one)]
    accumulation: usize,

    /// Peak learning rate.
    #[arg(long, value_name = "F", default_value = "1e-3")]
    learning_rate: f64,

    /// Steps of linear warm-up to the peak learning rate, at most half of all steps; afterwards the
    /// rate falls linearly to 0.
    #[arg(long, value_name = "N", default_value = "1000")]
    warmup_steps: usize,

    /// Random seed of the initial weights, the order of proteins, dropout and the bootstrap.
    #[arg(long, default_value = "7")]
    seed: u64,
}

impl TrainingArgs {
    /// How the head is trained: learning rate, epochs, seed.
    pub(super) fn settings(&self) -> FitSettings {
        FitSettings {
            epochs: self.epochs,
            accumulation: self.accumulation,
            learning_rate: self.learning_rate,
            warmup_steps: self.warmup_steps,
            seed: self.seed,
            ..FitSettings::default()
        }
    }
}

/// The names of files without their directories, for provenance.
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
