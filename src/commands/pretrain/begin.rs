//! The start of a run: recipe, data files, shape, vocabulary and weights. The weights are random,
//! those of another model, or those of the run's last checkpoint.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use serde_json::{Map, json};

use super::{PretrainArgs, steps};
use crate::args::usage;
use crate::checkpoint::init::{self, ModelPreset};
use crate::checkpoint::layout::{self, LmHead, TensorSpec};
use crate::checkpoint::save::{Contents, LazyTensor, save};
use crate::checkpoint::{Checkpoint, Hub};
use crate::device::Compute;
use crate::io::atomic_file::AtomicFile;
use crate::model::Config;
use crate::number::NumberType;
use crate::tokenizer::Tokenizer;
use crate::training::network::Network;
use crate::training::optimizer::Moments;
use crate::training::presets;
use crate::training::recipe::Recipe;
use crate::training::step::Accumulator;
use crate::training::trainer::{Pretrainer, State};
use crate::training::variables::{ModelParameters, Parameter};

/// The content of a run before any file is written.
pub(super) struct PretrainPlan {
    pub(super) recipe: Recipe,
    pub(super) tokenizer: Tokenizer,
    pub(super) train: Vec<PathBuf>,
    pub(super) valid: Vec<PathBuf>,
    config: Config,
    lm_head: LmHead,
    /// A checkpoint to take weights from: the run's own or another model.
    from: Option<Checkpoint>,
    resumes: bool,
}

/// A run whose directory is open.
pub(super) struct PretrainRun {
    pub(super) dir: PathBuf,
    pub(super) recipe: Recipe,
    pub(super) tokenizer: Tokenizer,
    pub(super) train: Vec<PathBuf>,
    pub(super) valid: Vec<PathBuf>,
    pub(super) config: Config,
    lm_head: LmHead,
    from: Option<Checkpoint>,
    resumes: bool,
}

impl PretrainPlan {
    /// Reads the recipe and opens the checkpoint to start from.
    pub(super) fn new(args: &PretrainArgs) -> Result<Self> {
        let recipe = read_recipe(args)?;
        let last = match &args.output {
            Some(run) if args.resume => steps::steps(&checkpoints(run)).pop(),
            _ => None,
        };
        let resumes = last.is_some();
        let from = match (last, &args.init) {
            (Some((_, place)), _) => Some(Checkpoint::load(&place)?),
            (None, Some(model)) => Some(Checkpoint::open(model, &Hub::from_env())?),
            (None, None) => None,
        };
        let (config, lm_head, tokenizer) = match &from {
            Some(checkpoint) => {
                check_shape(&recipe, checkpoint)?;
                (
                    checkpoint.config.clone(),
                    checkpoint.lm_head(),
                    checkpoint.tokenizer.clone(),
                )
            }
            None => (shape(&recipe)?, LmHead::Own, Tokenizer::ankh3()),
        };
        ensure!(
            tokenizer.num_sentinels() > 0 || recipe.objectives.masking == 0.0,
            "the vocabulary has no sentinels (<extra_id_0>), so nothing can be masked; set objectives.masking=0"
        );
        let train = files(&recipe.data.train, "data.train")?;
        ensure!(
            !train.is_empty(),
            "data.train names no file; give FASTA files or globs in the recipe, or --set data.train='[\"a.fasta\"]'"
        );
        Ok(PretrainPlan {
            valid: files(&recipe.data.valid, "data.valid")?,
            recipe,
            tokenizer,
            train,
            config,
            lm_head,
            from,
            resumes,
        })
    }

    /// Creates the run's directory, or checks that it can be resumed.
    pub(super) fn open_run(self, args: &PretrainArgs) -> Result<PretrainRun> {
        let dir = args.output.clone().context("--output RUN is missing")?;
        let occupied = fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some());
        ensure!(
            args.resume || !occupied,
            "{} is not empty; --resume continues the run there, or name another directory",
            dir.display()
        );
        let checkpoints = checkpoints(&dir);
        fs::create_dir_all(&checkpoints).with_context(|| checkpoints.display().to_string())?;
        let path = dir.join("recipe.toml");
        let mut file = AtomicFile::create(&path).with_context(|| path.display().to_string())?;
        std::io::Write::write_all(&mut file, self.recipe.to_toml().as_bytes())?;
        file.finish().with_context(|| path.display().to_string())?;
        let PretrainPlan {
            recipe,
            tokenizer,
            train,
            valid,
            config,
            lm_head,
            from,
            resumes,
        } = self;
        Ok(PretrainRun {
            dir,
            recipe,
            tokenizer,
            train,
            valid,
            config,
            lm_head,
            from,
            resumes,
        })
    }
}

fn checkpoints(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// The given recipe, or the recipe of the run to resume.
fn read_recipe(args: &PretrainArgs) -> Result<Recipe> {
    let read = |path: &Path, sets: &[String]| {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Recipe::read(&text, sets).with_context(|| path.display().to_string())
    };
    let given = match (&args.recipe, args.preset) {
        (Some(path), _) => Some((path.display().to_string(), read(path, &args.set)?)),
        (None, Some(preset)) => {
            let name = preset.to_possible_value().context("a shape has a name")?;
            let text = presets::preset(name.get_name()).context("each shape has a recipe")?;
            let what = format!("--preset {}", name.get_name());
            Some((what, Recipe::read(text, &args.set)?))
        }
        (None, None) => None,
    };
    let own = args.output.as_ref().map(|run| run.join("recipe.toml"));
    let own = own.filter(|own| args.resume && own.exists());
    let own = own.map(|own| read(&own, &args.set)).transpose()?;
    match (given, own) {
        (None, None) => bail!(usage(
            "give a recipe (docs/pretrain.md has one to start from) or --preset, or --resume a run"
        )),
        (Some((what, given)), Some(own)) if given != own => bail!(
            "{what} differs from the recipe that the run began with; leave it out, or change single values with --set"
        ),
        (_, Some(recipe)) | (Some((_, recipe)), None) => Ok(recipe),
    }
}

/// The files of paths and globs; the files of a glob are sorted.
fn files(patterns: &[String], key: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for pattern in patterns {
        let found = glob::glob(pattern).map_err(|error| anyhow!("{key}: {pattern}: {error}"))?;
        let found = found.collect::<Result<Vec<_>, _>>()?;
        ensure!(!found.is_empty(), "{key}: there is no file {pattern}");
        files.extend(found);
    }
    Ok(files)
}

fn shape(recipe: &Recipe) -> Result<Config> {
    let name = recipe.model.preset.as_deref().unwrap_or("nano");
    let preset = ModelPreset::from_str(name, true).map_err(|_| {
        anyhow!("model.preset is \"{name}\"; it must be nano, small, base, large or xl")
    })?;
    let config = recipe.model.applied_to(preset.config());
    config.check().context("the recipe's [model]")?;
    Ok(config)
}

/// Checks that the recipe's shape, if it has one, is the shape of the checkpoint.
fn check_shape(recipe: &Recipe, checkpoint: &Checkpoint) -> Result<()> {
    if recipe.model == crate::training::recipe::ModelShape::default() {
        return Ok(());
    }
    let (asked, found) = (shape(recipe)?, &checkpoint.config);
    let numbers = |config: &Config| {
        [
            ("d_model", config.d_model),
            ("d_kv", config.d_kv),
            ("d_ff", config.d_ff),
            ("num_heads", config.num_heads),
            ("num_layers", config.num_layers),
            ("num_decoder_layers", config.decoder_layers()),
        ]
    };
    for ((name, asked), (_, found)) in numbers(&asked).into_iter().zip(numbers(found)) {
        ensure!(
            asked == found,
            "{name} is {asked} in the recipe and {found} in {}; remove [model] from the recipe to take the shape of the checkpoint",
            checkpoint.place
        );
    }
    Ok(())
}

impl PretrainRun {
    fn specs(&self) -> Vec<TensorSpec> {
        layout::tensors(&self.config, self.lm_head)
    }

    /// The run with its current weights and state.
    pub(super) fn trainer<'a>(&'a self, compute: &'a Compute) -> Result<Pretrainer<'a>> {
        let parameters = self.specs().into_iter().map(|spec| {
            let values = match &self.from {
                Some(checkpoint) => checkpoint.tensor(&spec.name, &spec.shape)?.to_f32_vec(),
                None => init::values(&spec, &self.config, self.recipe.seed),
            };
            let parameter = Parameter {
                shape: spec.shape,
                values,
            };
            Ok((spec.name, parameter))
        });
        let parameters = parameters.collect::<Result<ModelParameters>>()?;
        let (moments, state) = match &self.from {
            Some(checkpoint) if self.resumes => resumed(checkpoint)?,
            _ => (Moments::new(), State::default()),
        };
        let network = Network {
            config: &self.config,
            device: &compute.device,
            dtype: compute.dtype.into(),
            z_loss: self.recipe.z_loss,
            activations: self.recipe.memory.activations,
        };
        Ok(Pretrainer {
            network,
            recipe: &self.recipe,
            parameters,
            moments,
            state,
            accumulator: Accumulator::default(),
        })
    }

    fn contents<'a>(&'a self, trainer: &'a Pretrainer<'_>, dtype: NumberType) -> Contents<'a> {
        let tensors = self.specs().into_iter().map(|spec| {
            let values = &trainer.parameters[&spec.name].values;
            LazyTensor {
                name: spec.name,
                dtype,
                shape: spec.shape,
                bytes: Box::new(move || dtype.to_bytes(values).into()),
            }
        });
        let State { step, tokens, .. } = &trainer.state;
        let label = json!({ "steps": step, "tokens": tokens, "tool": concat!("ankh3 ", env!("CARGO_PKG_VERSION")) });
        Contents {
            config: &self.config,
            labels: Map::from_iter([("ankh3_pretrain".to_owned(), label)]),
            tokenizer: &self.tokenizer,
            tensors: tensors.collect(),
        }
    }

    /// Saves a checkpoint and deletes old ones.
    pub(super) fn save(&self, trainer: &Pretrainer<'_>) -> Result<PathBuf> {
        let state = serde_json::to_value(&trainer.state)?;
        let dir = checkpoints(&self.dir);
        let contents = self.contents(trainer, NumberType::F32);
        let run = steps::RunState {
            moments: &trainer.moments,
            state,
        };
        let step = trainer.state.step;
        let place = steps::save_step(&dir, step, contents, &run).with_context(|| {
            format!("could not save step {step}; earlier checkpoints are intact: free space on the disk, then continue with --resume")
        })?;
        steps::prune(&dir, self.recipe.checkpoints.keep)?;
        Ok(place)
    }

    /// Writes the finished model.
    pub(super) fn export(&self, trainer: &Pretrainer<'_>) -> Result<PathBuf> {
        let place = self.dir.join("model");
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
        }
        let dtype = self.recipe.checkpoints.final_dtype;
        save(&place, self.contents(trainer, dtype))?;
        Ok(place)
    }
}

/// The optimizer's moments and the state from a checkpoint of the run.
fn resumed(checkpoint: &Checkpoint) -> Result<(Moments, State)> {
    let run = steps::load_state(&checkpoint.place.name())?;
    let state = serde_json::from_value(run.state)
        .with_context(|| format!("{}: training/state.json", checkpoint.place))?;
    Ok((run.moments, state))
}
