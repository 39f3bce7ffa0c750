//! What every command that runs a model does first: device, checkpoint, prefix; and the provenance that its outputs carry.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::args::{ModelArgs, RuntimeArgs};
use crate::checkpoint::{Checkpoint, CheckpointError, Hub, ModelRef};
use crate::device::{Compute, DeviceError};
use crate::inference::token_budget::{LoadedStacks, token_budget};
use crate::inference::{Replicas, tokens_of_threads};
use crate::kernels::plan::WeightForm;
use crate::model::{Decoder, Encoder, Loader};
use crate::tokenizer::TaskPrefix;

impl ModelArgs {
    /// The model that --model names, else the one inside this program.
    ///
    /// # Errors
    /// A text that is neither a directory nor a model's name.
    pub fn reference(&self) -> Result<ModelRef, CheckpointError> {
        let named = self.model.as_deref().map(ModelRef::parse);
        named.unwrap_or(Ok(ModelRef::Bundled))
    }

    /// Opens the checkpoint.
    ///
    /// # Errors
    /// A model that is missing or damaged.
    pub fn open(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::load_from(self.reference()?.resolve(&Hub::from_env())?)
    }
}

impl RuntimeArgs {
    /// Opens the device.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn compute(&self) -> Result<Compute, DeviceError> {
        self.with_weights(Compute::open(self.device, self.dtype)?)
    }

    /// Opens every device that --device names.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn computes(&self) -> Result<Vec<Compute>, DeviceError> {
        let all = Compute::open_all(self.device, self.dtype)?;
        all.into_iter()
            .map(|compute| self.with_weights(compute))
            .collect()
    }

    /// `compute` with weights in the form of --weights.
    fn with_weights(&self, compute: Compute) -> Result<Compute, DeviceError> {
        match self.weights {
            WeightForm::Full => Ok(compute),
            WeightForm::Int8 => compute.quantized(),
        }
    }

    /// Tokens per batch: --max-batch-tokens, else what keeps the device busy.
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

/// A checkpoint, ready to load weights from, and where they go.
pub struct Opened {
    /// Where it runs.
    pub compute: Compute,
    /// Where it runs besides.
    others: Vec<Compute>,
    /// What runs.
    pub checkpoint: Checkpoint,
    /// What stands in front of each sequence.
    pub prefix: TaskPrefix,
}

impl Opened {
    /// Opens one device and the checkpoint, and logs both. Without --prefix the vocabulary's usual prefix stands in front of
    /// each sequence.
    ///
    /// # Errors
    /// A device or a model that is not there.
    pub fn new(model: &ModelArgs, runtime: &RuntimeArgs) -> Result<Self> {
        Self::with(vec![runtime.compute()?], model, usual_prefix)
    }

    /// [`Opened::new`] on every device that --device names.
    ///
    /// # Errors
    /// A device or a model that is not there.
    pub fn on_all(model: &ModelArgs, runtime: &RuntimeArgs) -> Result<Self> {
        Self::on_all_with(model, runtime, usual_prefix)
    }

    /// [`Opened::on_all`] with another prefix where --prefix is not given.
    ///
    /// # Errors
    /// A device or a model that is not there.
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
                "no --model: using nano, the small model inside this program, for trying things out; for research `ankh3 fetch ankh3-large` and name it"
            );
        }
        let prefix = model.prefix.unwrap_or_else(|| default_prefix(&checkpoint));
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
    /// What `load` meets.
    pub fn load<T>(&self, load: impl FnOnce(&Loader<'_>) -> candle_core::Result<T>) -> Result<T> {
        self.load_on(&self.compute, load)
    }

    /// The same on every device.
    ///
    /// # Errors
    /// What `load` meets.
    pub fn load_on_all<T>(
        &self,
        load: impl Fn(&Loader<'_>) -> candle_core::Result<T>,
    ) -> Result<Replicas<T>> {
        let others = self.others.iter();
        let others = others.map(|compute| self.load_on(compute, &load));
        let others = others.collect::<Result<_>>()?;
        Ok(Replicas::new(self.load_on(&self.compute, &load)?, others))
    }

    /// Both stacks on every device.
    ///
    /// # Errors
    /// Weights that are missing or misshapen.
    pub fn load_both_on_all(&self) -> Result<Replicas<(Encoder, Decoder)>> {
        let config = &self.checkpoint.config;
        self.load_on_all(|loader| {
            Ok((
                Encoder::load(loader, config)?,
                Decoder::load(loader, config)?,
            ))
        })
    }

    /// Tokens in a batch: what was asked for, else what keeps the device busy and its memory bears, beside the weights of `stacks`.
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

    /// Tokens to have at hand where a batch has so many: several batches keep several GPUs, one and the host, or the threads of a CPU busy side by side.
    /// Where a size of batches was asked for, a CPU reads no further ahead.
    pub fn tokens_at_hand(&self, runtime: &RuntimeArgs, batch_tokens: usize) -> usize {
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
        let loader = Loader {
            source: checkpoint,
            device: &compute.device,
            dtype: compute.dtype.into(),
            weights: compute.weights,
        };
        load(&loader).with_context(|| format!("model {}", checkpoint.place))
    }

    /// How results are made, for their metadata: everything that influences them, and the licence.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn provenance(&self, command: &str) -> Result<Map<String, Value>> {
        let Opened {
            compute,
            checkpoint,
            prefix,
            ..
        } = self;
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("tool", json!(concat!("ankh3 ", env!("CARGO_PKG_VERSION"))));
        put("command", json!(command));
        put("model", json!(checkpoint.id()));
        if let Some(revision) = checkpoint.revision() {
            put("revision", json!(revision));
        }
        put("model_hash", json!(checkpoint.model_hash()?));
        if let Some(licence) = checkpoint.licence() {
            put("model_licence", json!(licence));
        }
        if checkpoint.is_random() {
            put("model_is_random", json!(true));
        }
        put("prefix", json!(prefix.as_str()));
        put("dtype", json!(compute.dtype.name()));
        if compute.weights == WeightForm::Int8 {
            put("weights", json!("int8"));
        }
        put("device", json!(compute.name));
        put("kernels", json!(compute.kernels()));
        Ok(map)
    }
}
