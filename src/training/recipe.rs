//! A recipe: all settings that decide what a run computes, as TOML. Unknown keys and invalid values
//! are errors.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::{Table, Value};

use super::mixture::{Mixture, Objective};
use super::network::Activations;
use super::optimizer::OptimizerSettings;
use super::schedule::Schedule;
use crate::model::Config;
use crate::number::NumberType;

/// A run's recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// The seed of initial weights, order, corruption and dropout.
    pub seed: u64,
    /// Total number of optimizer steps.
    pub steps: u64,
    /// The dropout rate in training.
    pub dropout: f64,
    /// Weight of the z-loss.
    pub z_loss: f64,
    /// Consecutive steps with a loss or gradient that is not finite after which the run stops.
    pub max_skipped: u64,
    /// The network's shape.
    pub model: ModelShape,
    /// The training data.
    pub data: Data,
    /// The objectives.
    pub objectives: Mixture,
    /// The size of a step.
    pub batch: BatchSize,
    /// The activations kept in memory.
    pub memory: Memory,
    /// The optimizer.
    pub optimizer: OptimizerSettings,
    /// The schedule of the learning rate.
    pub schedule: Schedule,
    /// The saved checkpoints.
    pub checkpoints: Checkpoints,
    /// The evaluation during the run.
    pub evaluation: EvaluationSettings,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 10_000,
            dropout: 0.0,
            z_loss: 0.0,
            max_skipped: 5,
            model: ModelShape::default(),
            data: Data::default(),
            objectives: Mixture::default(),
            batch: BatchSize::default(),
            memory: Memory::default(),
            optimizer: OptimizerSettings::default(),
            schedule: Schedule::default(),
            checkpoints: Checkpoints::default(),
            evaluation: EvaluationSettings::default(),
        }
    }
}

/// The network's shape: a preset, and the values that differ from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelShape {
    /// Name of the preset: `nano` (the default), `small`, `base`, `large` or `xl`.
    pub preset: Option<String>,
    /// Width of the residual stream.
    pub d_model: Option<usize>,
    /// Width of a head.
    pub d_kv: Option<usize>,
    /// Width inside the feed-forward block.
    pub d_ff: Option<usize>,
    /// Attention heads.
    pub num_heads: Option<usize>,
    /// Encoder layers.
    pub num_layers: Option<usize>,
    /// Decoder layers.
    pub num_decoder_layers: Option<usize>,
}

impl ModelShape {
    /// `config` with the values that this shape sets.
    pub fn applied_to(&self, mut config: Config) -> Config {
        let set = |field: &mut usize, value: Option<usize>| {
            *field = value.unwrap_or(*field);
        };
        set(&mut config.d_model, self.d_model);
        set(&mut config.d_kv, self.d_kv);
        set(&mut config.d_ff, self.d_ff);
        set(&mut config.num_heads, self.num_heads);
        set(&mut config.num_layers, self.num_layers);
        config.num_decoder_layers = self.num_decoder_layers.or(config.num_decoder_layers);
        config
    }
}

/// The training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// FASTA files or globs, plain or compressed.
    pub train: Vec<String>,
    /// FASTA files or globs, held out for evaluation.
    pub valid: Vec<String>,
    /// Longer sequences are cropped to a random window of this many residues.
    pub max_residues: usize,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            valid: Vec::new(),
            max_residues: 512,
        }
    }
}

/// The size of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSize {
    /// Tokens of encoder and decoder per micro-batch.
    pub tokens: usize,
    /// Micro-batches per step.
    pub accumulation: usize,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self {
            tokens: 16_384,
            accumulation: 1,
        }
    }
}

/// The memory of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// The activations that are kept: all, the inputs of all layers, or the inputs of √n layers.
    /// Other activations are computed again, to the same bits.
    pub activations: Activations,
}

/// The saved checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Steps between two checkpoints.
    pub every: u64,
    /// The number of latest checkpoints that are kept.
    pub keep: usize,
    /// The number type of the finished model; checkpoints of the run are f32.
    pub final_dtype: NumberType,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self {
            every: 500,
            keep: 3,
            final_dtype: NumberType::F32,
        }
    }
}

/// The evaluation during the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationSettings {
    /// Steps between two evaluations.
    pub every: u64,
    /// Number of held-out sequences.
    pub sequences: usize,
    /// Steps between two lines of the log.
    pub log_every: u64,
    /// Whether objectives of weight 0 are evaluated too.
    pub all_tasks: bool,
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self {
            every: 500,
            sequences: 500,
            log_every: 10,
            all_tasks: false,
        }
    }
}

/// Why a recipe is invalid.
#[derive(Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum RecipeError {
    /// No TOML, an unknown key or a value of the wrong type.
    #[error("{0}")]
    Toml(String),
    /// `--set` without `=`, or through a value.
    #[error(
        "--set {0}: give KEY=VALUE with a key of the recipe, such as optimizer.learning_rate=0.01"
    )]
    Set(String),
    /// An invalid value.
    #[error("{key} is {value}; it must be {must}")]
    Value {
        key: &'static str,
        value: String,
        must: &'static str,
    },
}

impl Recipe {
    /// The objectives that are evaluated.
    pub fn evaluated(&self) -> Vec<Objective> {
        if self.evaluation.all_tasks {
            self.objectives.all_tasks()
        } else {
            self.objectives.tasks()
        }
    }

    /// Reads a recipe; each of `sets` (`key.of.table=value`) replaces a value of the text.
    ///
    /// # Errors
    /// Unknown keys and invalid values.
    pub fn read(text: &str, sets: &[String]) -> Result<Self, RecipeError> {
        let toml_error =
            |error: toml::de::Error| RecipeError::Toml(error.to_string().trim_end().to_owned());
        let mut table: Table = toml::from_str(text).map_err(toml_error)?;
        for set in sets {
            put(&mut table, set)?;
        }
        // Read from text again, so that messages show the line.
        let resolved =
            toml::to_string(&table).map_err(|error| RecipeError::Toml(error.to_string()))?;
        let text = if sets.is_empty() { text } else { &resolved };
        let recipe: Recipe = toml::from_str(text).map_err(toml_error)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The recipe as TOML with every key.
    ///
    /// # Panics
    /// Never: numbers, words and tables of them serialise.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("numbers, words and tables of them serialise")
    }

    fn check(&self) -> Result<(), RecipeError> {
        self.check_objectives()?;
        rule(
            (0.0..1.0).contains(&self.dropout),
            "dropout",
            &self.dropout,
            "at least 0 and below 1",
        )?;
        rule(
            self.checkpoints.final_dtype != NumberType::F16,
            "checkpoints.final_dtype",
            &self.checkpoints.final_dtype.name(),
            "f32 or bf16",
        )?;
        rule(self.steps >= 1, "steps", &self.steps, "at least 1")?;
        self.check_sizes()?;
        self.check_optimizer()?;
        self.check_intervals()
    }

    fn check_objectives(&self) -> Result<(), RecipeError> {
        let objectives = &self.objectives;
        let weights = [objectives.masking, objectives.completion];
        rule(
            weights.iter().all(|w| *w >= 0.0) && weights.iter().sum::<f64>() > 0.0,
            "objectives.masking and completion",
            &weights,
            "at least 0, and not both 0",
        )?;
        let probabilities = &objectives.probabilities;
        rule(
            !probabilities.is_empty() && probabilities.iter().all(|p| *p > 0.0 && *p < 1.0),
            "objectives.probabilities",
            probabilities,
            "a list of numbers between 0 and 1",
        )?;
        rule(
            objectives.span >= 1,
            "objectives.span",
            &objectives.span,
            "at least 1",
        )
    }

    fn check_sizes(&self) -> Result<(), RecipeError> {
        let Recipe { data, batch, .. } = self;
        rule(
            data.max_residues >= 2,
            "data.max_residues",
            &data.max_residues,
            "at least 2",
        )?;
        rule(
            batch.tokens >= 2 * data.max_residues,
            "batch.tokens",
            &batch.tokens,
            "at least twice data.max_residues: lower that or raise this",
        )?;
        rule(
            batch.accumulation >= 1,
            "batch.accumulation",
            &batch.accumulation,
            "at least 1",
        )
    }

    fn check_optimizer(&self) -> Result<(), RecipeError> {
        let optimizer = &self.optimizer;
        rule(
            optimizer.learning_rate > 0.0,
            "optimizer.learning_rate",
            &optimizer.learning_rate,
            "above 0",
        )?;
        rule(
            (0.0..1.0).contains(&optimizer.beta1) && (0.0..1.0).contains(&optimizer.beta2),
            "optimizer.beta1 and beta2",
            &[optimizer.beta1, optimizer.beta2],
            "at least 0 and below 1",
        )?;
        rule(
            optimizer.clip_norm >= 0.0,
            "optimizer.clip_norm",
            &optimizer.clip_norm,
            "at least 0",
        )?;
        let warmup_steps = self.schedule.warmup_steps;
        rule(
            warmup_steps < self.steps,
            "schedule.warmup_steps",
            &warmup_steps,
            "below steps",
        )
    }

    fn check_intervals(&self) -> Result<(), RecipeError> {
        rule(
            self.checkpoints.every >= 1 && self.checkpoints.keep >= 1,
            "checkpoints.every and keep",
            &[self.checkpoints.every, self.checkpoints.keep as u64],
            "at least 1",
        )?;
        rule(
            self.evaluation.every >= 1 && self.evaluation.log_every >= 1,
            "evaluation.every and log_every",
            &[self.evaluation.every, self.evaluation.log_every],
            "at least 1",
        )
    }
}

/// An error for the value of `key` unless `holds`.
fn rule(
    holds: bool,
    key: &'static str,
    value: &dyn std::fmt::Debug,
    must: &'static str,
) -> Result<(), RecipeError> {
    if holds {
        return Ok(());
    }
    Err(RecipeError::Value {
        key,
        value: format!("{value:?}"),
        must,
    })
}

/// Writes `a.b=value` into a table; a value that is not TOML is a string.
fn put(table: &mut Table, set: &str) -> Result<(), RecipeError> {
    let error = || RecipeError::Set(set.to_owned());
    let (key, value) = set.split_once('=').ok_or_else(error)?;
    let parsed: Option<Table> = toml::from_str(&format!("value = {value}")).ok();
    let value = parsed
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts
        .pop()
        .filter(|last| !last.is_empty())
        .ok_or_else(error)?;
    let mut table = table;
    for part in parts {
        let entry = table
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(error)?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::mixture::Split;
    use crate::training::optimizer::OptimizerKind;

    fn read(text: &str, sets: &[&str]) -> Result<Recipe, String> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Recipe::read(text, &sets).map_err(|error| error.to_string())
    }

    #[test]
    fn a_recipe_survives_its_own_text() {
        let recipe = read(
            "steps = 5000\n[model]\npreset = \"small\"\nd_ff = 64\n[objectives]\nsplit = \"half\"\n[optimizer]\nkind = \"adafactor\"\n",
            &["optimizer.learning_rate=1e-3", "data.train=[\"a.fasta\"]", "model.preset=nano", "seed=7"],
        )
        .unwrap();
        assert_eq!(
            (recipe.steps, recipe.seed, recipe.optimizer.learning_rate),
            (5000, 7, 1e-3)
        );
        assert_eq!(
            (recipe.optimizer.kind, recipe.objectives.split),
            (OptimizerKind::Adafactor, Split::Half)
        );
        assert_eq!(
            (recipe.model.preset.as_deref(), recipe.model.d_ff),
            (Some("nano"), Some(64))
        );
        assert_eq!(read(&recipe.to_toml(), &[]).unwrap(), recipe);
        assert_eq!(read("", &[]).unwrap(), Recipe::default());
    }

    #[test]
    fn what_cannot_work_is_named() {
        let table: [(&str, &[&str], &str); 9] = [
            ("learning_rate = 1", &[], "unknown field `learning_rate`"),
            (
                "",
                &["optimizer.lerning_rate=1"],
                "unknown field `lerning_rate`",
            ),
            ("", &["steps"], "--set steps: give KEY=VALUE"),
            ("", &["steps.more=1", "steps=2"], "warmup_steps is 500"),
            (
                "steps = 10",
                &[],
                "schedule.warmup_steps is 500; it must be below steps",
            ),
            (
                "",
                &["batch.tokens=600"],
                "batch.tokens is 600; it must be at least twice",
            ),
            (
                "",
                &["objectives.probabilities=[1.5]"],
                "objectives.probabilities is [1.5]",
            ),
            (
                "",
                &["objectives.masking=0", "objectives.completion=0"],
                "not both 0",
            ),
            ("steps = \"many\"", &[], "invalid type: string"),
        ];
        for (text, sets, expected) in table {
            let error = read(text, sets).unwrap_err();
            assert!(error.contains(expected), "{text} {sets:?}: {error}");
        }
    }
}
