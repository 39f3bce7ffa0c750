//! The first steps of every command that runs a model: opening the device and the checkpoint,
//! choosing the prefix, and the manifest of the outputs.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::{ModelArgs, RuntimeArgs, Shard};
use crate::checkpoint::{Checkpoint, CheckpointError, Hub, ModelRef};
use crate::device::{Compute, DeviceError};
use crate::inference::token_budget::{LoadedStacks, token_budget};
use crate::inference::{Replicas, tokens_of_threads};
use crate::kernels::plan::WeightForm;
use crate::model::{Decoder, Encoder, Loader};
use crate::output::manifest::Manifest;
use crate::tokenizer::{TaskPrefix, Tokenizer};

impl ModelArgs {
    /// The model of --model; by default the model inside this program.
    ///
    /// # Errors
    /// A text that is neither a directory nor a model's name.
    pub fn reference(&self) -> Result<ModelRef, CheckpointError> {
        let named = self.model.as_deref().map(ModelRef::parse);
        named.unwrap_or(Ok(ModelRef::Bundled))
    }

    /// Opens the checkpoint of --model.
    ///
    /// # Errors
    /// A model that is missing or damaged.
    pub fn open(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::load_from(self.reference()?.resolve(&Hub::from_env())?)
    }
}

impl RuntimeArgs {
    /// Opens the device of --device.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn compute(&self) -> Result<Compute, DeviceError> {
        self.with_weights(Compute::open(self.device, self.dtype)?)
    }

    /// Opens all devices of --device.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn computes(&self) -> Result<Vec<Compute>, DeviceError> {
        let all = Compute::open_all(self.device, self.dtype)?;
        all.into_iter()
            .map(|compute| self.with_weights(compute))
            .collect()
    }

    /// `compute` with the weights of --weights.
    fn with_weights(&self, compute: Compute) -> Result<Compute, DeviceError> {
        match self.weights {
            WeightForm::Full => Ok(compute),
            WeightForm::Int8 => compute.quantized(),
        }
    }

    /// Tokens per batch: --max-batch-tokens, or a default that keeps the device busy.
    pub fn batch_tokens(&self, compute: &Compute) -> usize {
        self.max_batch_tokens.unwrap_or(if compute.device.is_cpu() {
            2048
        } else {
            32_768
        })
    }
}

fn usual_prefix(checkpoint: &Checkpoint) -> TaskPrefix {
    checkpoint.tokenizer.default_prefix()
}

/// Warns of tokens that a model may need and that a run does not use: prefixes, where none was asked
/// for and none is usual, and lower-case letters.
pub(super) fn warn_of_unused_tokens(tokenizer: &Tokenizer, asked: Option<TaskPrefix>) {
    let prefixes: Vec<_> = tokenizer.prefixes().collect();
    if asked.is_none() && tokenizer.default_prefix() == TaskPrefix::None && !prefixes.is_empty() {
        tracing::warn!(
            "no prefix is used, but the vocabulary of this model has {}: give the prefix that the model was trained with by --prefix, or --prefix none",
            prefixes.join(", ")
        );
    }
    if tokenizer.has_lower_case_letters() {
        tracing::warn!(
            "the vocabulary of this model has lower-case letters of its own (such as 3Di states); lower-case letters of the input are read as amino acids all the same"
        );
    }
}

/// A checkpoint to load weights from, and the devices to load them on.
pub struct Opened {
    /// The first device.
    pub compute: Compute,
    /// Further devices.
    others: Vec<Compute>,
    pub checkpoint: Checkpoint,
    /// The task prefix in front of each sequence.
    pub prefix: TaskPrefix,
}

impl Opened {
    /// Opens one device and the checkpoint, and logs both. Without --prefix, each sequence gets the
    /// default prefix of the vocabulary.
    ///
    /// # Errors
    /// A device or a model that cannot be opened.
    pub fn new(model: &ModelArgs, runtime: &RuntimeArgs) -> Result<Self> {
        Self::with(vec![runtime.compute()?], model, usual_prefix)
    }

    /// As [`Opened::new`], on all devices of --device.
    ///
    /// # Errors
    /// A device or a model that cannot be opened.
    pub fn on_all(model: &ModelArgs, runtime: &RuntimeArgs) -> Result<Self> {
        Self::on_all_with(model, runtime, usual_prefix)
    }

    /// As [`Opened::on_all`], with another default of --prefix.
    ///
    /// # Errors
    /// A device or a model that cannot be opened.
    pub fn on_all_with(
        model: &ModelArgs,
        runtime: &RuntimeArgs,
        default_prefix: impl Fn(&Checkpoint) -> TaskPrefix,
    ) -> Result<Self> {
        Self::with(runtime.computes()?, model, default_prefix)
    }

    fn with(
        mut computes: Vec<Compute>,
        model: &ModelArgs,
        default_prefix: impl Fn(&Checkpoint) -> TaskPrefix,
    ) -> Result<Self> {
        let checkpoint = model.open()?;
        if model.model.is_none() {
            tracing::warn!(
                "no --model: using nano, the small model inside this program, for trials; for research: `ankh3 fetch ankh3-large`, then --model ankh3-large"
            );
        }
        let prefix = model.prefix.unwrap_or_else(|| default_prefix(&checkpoint));
        warn_of_unused_tokens(&checkpoint.tokenizer, model.prefix);
        let others = computes.split_off(1);
        let opened = Opened {
            compute: computes.remove(0),
            others,
            checkpoint,
            prefix,
        };
        let Opened {
            compute,
            others,
            checkpoint,
            prefix,
        } = &opened;
        let threads = rayon::current_num_threads();
        tracing::info!(
            "model {} on {} ({}, {threads} threads), {}{}, prefix {}",
            checkpoint.id(),
            compute.name,
            compute.kernels(),
            compute.dtype.name(),
            if compute.weights == WeightForm::Int8 {
                " with int8 weights"
            } else {
                ""
            },
            prefix.as_str()
        );
        for other in others {
            tracing::info!("and on {} ({})", other.name, other.kernels());
        }
        if checkpoint.is_random() {
            tracing::warn!("this model is random (made by `ankh3 init`): its results mean nothing");
        }
        Ok(opened)
    }

    /// Runs `load` with a loader of this checkpoint's weights.
    ///
    /// # Errors
    /// The error of `load`.
    pub fn load<T>(&self, load: impl FnOnce(&Loader<'_>) -> candle_core::Result<T>) -> Result<T> {
        self.load_on(&self.compute, load)
    }

    /// As [`Opened::load`], on every device.
    ///
    /// # Errors
    /// The error of `load`.
    pub fn load_on_all<T>(
        &self,
        load: impl Fn(&Loader<'_>) -> candle_core::Result<T>,
    ) -> Result<Replicas<T>> {
        let others = self.others.iter();
        let others = others.map(|compute| self.load_on(compute, &load));
        let others = others.collect::<Result<_>>()?;
        Ok(Replicas::new(self.load_on(&self.compute, &load)?, others))
    }

    /// Loads the encoder and the decoder on every device.
    ///
    /// # Errors
    /// Weights that are missing or have a wrong shape.
    pub fn load_both_on_all(&self) -> Result<Replicas<(Encoder, Decoder)>> {
        let config = &self.checkpoint.config;
        self.load_on_all(|loader| {
            Ok((
                Encoder::load(loader, config)?,
                Decoder::load(loader, config)?,
            ))
        })
    }

    /// Tokens per batch: --max-batch-tokens, or a default that keeps the device busy and fits into
    /// its memory together with the weights of `stacks`.
    pub fn batch_tokens(&self, runtime: &RuntimeArgs, stacks: LoadedStacks) -> usize {
        let compute = &self.compute;
        match (runtime.max_batch_tokens, compute.free_memory()) {
            (None, Some(free)) => {
                let size = compute.dtype.size();
                let budget = token_budget(&self.checkpoint.config, stacks, free, size);
                tracing::info!("batches of up to {budget} tokens");
                budget
            }
            _ => runtime.batch_tokens(compute),
        }
    }

    /// Tokens of the sequences that are computed together, in several batches of `batch_tokens`.
    /// Several batches keep several GPUs, a GPU and the host, or the threads of a CPU busy at the
    /// same time. With --max-batch-tokens, a CPU gets one batch.
    pub fn tokens_per_group(&self, runtime: &RuntimeArgs, batch_tokens: usize) -> usize {
        if self.compute.device.is_cpu() {
            runtime
                .max_batch_tokens
                .unwrap_or(batch_tokens.max(tokens_of_threads()))
        } else {
            3 * (1 + self.others.len()) * batch_tokens
        }
    }

    fn load_on<T>(
        &self,
        compute: &Compute,
        load: impl FnOnce(&Loader<'_>) -> candle_core::Result<T>,
    ) -> Result<T> {
        let checkpoint = &self.checkpoint;
        let loader = checkpoint.loader(compute);
        load(&loader).with_context(|| format!("model {}", checkpoint.place))
    }

    /// The manifest of `command`: the model, the number types, the device, the `settings` of the
    /// command and the shard.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn manifest(
        &self,
        command: &str,
        settings: &impl Serialize,
        shard: Option<Shard>,
    ) -> Result<Manifest> {
        let Opened {
            compute,
            checkpoint,
            prefix,
            ..
        } = self;
        let int8 = compute.weights == WeightForm::Int8;
        let mut manifest = Manifest {
            tool: Some(TOOL.to_owned()),
            command: Some(command.to_owned()),
            model: Some(checkpoint.id()),
            revision: checkpoint.revision(),
            model_hash: Some(checkpoint.model_hash()?),
            licence: checkpoint.licence(),
            model_is_random: checkpoint.is_random(),
            prefix: Some(prefix.as_str().to_owned()),
            dtype: Some(compute.dtype.name().to_owned()),
            weights: int8.then(|| "int8".to_owned()),
            device: Some(compute.name.clone()),
            kernels: Some(compute.kernels().to_owned()),
            shard: shard.map(|shard| shard.to_string()),
            ..Manifest::default()
        };
        manifest.set_settings(settings)?;
        Ok(manifest)
    }
}

/// The name and version of this program in manifests.
pub(super) const TOOL: &str = concat!("ankh3 ", env!("CARGO_PKG_VERSION"));
