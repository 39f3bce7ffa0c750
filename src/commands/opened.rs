//! What every command that runs a model does first: device, checkpoint, prefix; and the provenance that its outputs carry.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::args::{ModelArgs, RuntimeArgs};
use crate::checkpoint::Checkpoint;
use crate::device::Compute;
use crate::kernels::linear::WeightForm;
use crate::model::Loader;
use crate::tokenizer::TaskPrefix;

/// A device and a checkpoint, ready to load weights from.
pub struct Opened {
    /// Where it runs.
    pub compute: Compute,
    /// What runs.
    pub checkpoint: Checkpoint,
    /// What stands in front of each sequence.
    pub prefix: TaskPrefix,
}

impl Opened {
    /// Opens the device and the checkpoint and says so in the log.
    ///
    /// # Errors
    /// A device or a model that is not there.
    pub fn new(
        model: &ModelArgs,
        runtime: &RuntimeArgs,
        default_prefix: impl Fn(&Checkpoint) -> TaskPrefix,
    ) -> Result<Self> {
        Self::with(runtime.compute()?, model, default_prefix)
    }

    /// The same on every device asked for: the first opened whole, and the others.
    ///
    /// # Errors
    /// A device or a model that is not there.
    pub fn on_all(
        model: &ModelArgs,
        runtime: &RuntimeArgs,
        default_prefix: impl Fn(&Checkpoint) -> TaskPrefix,
    ) -> Result<(Self, Vec<Compute>)> {
        let mut all = runtime.computes()?;
        let others = all.split_off(1);
        let first = all.remove(0);
        for other in &others {
            tracing::info!("and on {} ({})", other.name, other.kernels());
        }
        Ok((Self::with(first, model, default_prefix)?, others))
    }

    fn with(
        compute: Compute,
        model: &ModelArgs,
        default_prefix: impl Fn(&Checkpoint) -> TaskPrefix,
    ) -> Result<Self> {
        let checkpoint = model.open()?;
        if model.model.is_none() {
            tracing::warn!(
                "no --model: using nano, the small model inside this program, for trying things out; for research `ankh3 fetch ankh3-large` and name it"
            );
        }
        let prefix = model
            .prefix
            .map_or_else(|| default_prefix(&checkpoint), TaskPrefix::from);
        let opened = Opened {
            compute,
            checkpoint,
            prefix,
        };
        let Opened {
            compute,
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

    /// The same on another device.
    ///
    /// # Errors
    /// What `load` meets.
    pub fn load_on<T>(
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
