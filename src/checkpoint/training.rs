//! Checkpoints of a run: `step-00000042/` is a model in Hugging Face's layout, with the optimizer's memory and the run's state in `training/` inside it.
//! Each is written under another name and renamed when it is whole; only whole ones are found again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::save::{Contents, LazyTensor, save, write_safetensors};
use super::weights::Weights;
use super::{CheckpointError, Place};
use crate::number::NumberType;

/// The folder of what only training needs.
const TRAINING: &str = "training";
/// The run's state inside it.
const STATE: &str = "state.json";
/// How names of steps begin.
const STEP: &str = "step-";

/// What a checkpoint of a run holds beside the model.
pub struct RunState<'a> {
    /// The optimizer's memory, by name.
    pub moments: BTreeMap<String, &'a [f32]>,
    /// Anything else.
    pub state: Value,
}

/// Writes the checkpoint of step `step` into `dir`, and returns its place.
///
/// # Errors
/// What keeps it from being written whole; older checkpoints are then still there, and nothing half-written.
///
/// # Panics
/// Never: a JSON value always serialises.
pub fn save_step(
    dir: &Path,
    step: u64,
    contents: Contents<'_>,
    run: &RunState<'_>,
) -> Result<PathBuf, CheckpointError> {
    let place = dir.join(format!("{STEP}{step:08}"));
    fs::create_dir_all(dir).map_err(CheckpointError::io(dir))?;
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(dir)
        .map_err(CheckpointError::io(dir))?;
    let model = unfinished.path().join("model");
    save(&model, contents)?;
    let training = model.join(TRAINING);
    fs::create_dir(&training).map_err(CheckpointError::io(&training))?;
    write_moments(&training, &run.moments)?;
    let path = training.join(STATE);
    let state = serde_json::to_vec_pretty(&run.state).expect("a JSON value always serialises");
    fs::write(&path, state).map_err(CheckpointError::io(&path))?;
    sync(&path)?;
    sync(&model)?;
    if place.exists() {
        // The same step again, after a signal: the same bytes.
        fs::remove_dir_all(&place).map_err(CheckpointError::io(&place))?;
    }
    fs::rename(&model, &place).map_err(CheckpointError::io(&place))?;
    sync(dir)?;
    Ok(place)
}

fn sync(path: &Path) -> Result<(), CheckpointError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(CheckpointError::io(path))
}

fn write_moments(dir: &Path, moments: &BTreeMap<String, &[f32]>) -> Result<(), CheckpointError> {
    let tensors = moments
        .iter()
        .map(|(name, values)| LazyTensor {
            name: name.clone(),
            dtype: NumberType::F32,
            shape: vec![values.len()],
            bytes: Box::new(|| NumberType::F32.to_bytes(values).into()),
        })
        .collect();
    write_safetensors(&dir.join("model.safetensors"), tensors)
}

/// The optimizer's memory and the state of a checkpoint that [`save_step`] wrote.
///
/// # Errors
/// A checkpoint without them, or damaged ones.
pub fn load_state(
    checkpoint: &Path,
) -> Result<(BTreeMap<String, Vec<f32>>, Value), CheckpointError> {
    let dir = checkpoint.join(TRAINING);
    let path = dir.join(STATE);
    let text = fs::read(&path).map_err(CheckpointError::io(&path))?;
    let state = serde_json::from_slice(&text)
        .map_err(|error| CheckpointError::damaged(&path, error.to_string()))?;
    let weights = Weights::open(&Place::Directory(dir))?;
    let moments = weights
        .entries
        .iter()
        .map(|(name, entry)| Ok((name.clone(), weights.view(name, entry)?.to_f32_vec())))
        .collect::<Result<_, CheckpointError>>()?;
    Ok((moments, state))
}

/// The checkpoints in `dir`, oldest first.
pub fn steps(dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut steps: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix(STEP)?.parse().ok()?, entry.path()))
        })
        .collect();
    steps.sort();
    steps
}

/// Deletes all checkpoints but the last `keep`, and what interrupted runs left.
///
/// # Errors
/// A folder that cannot be deleted.
pub fn prune(dir: &Path, keep: usize) -> Result<(), CheckpointError> {
    let steps = steps(dir);
    let old = &steps[..steps.len().saturating_sub(keep)];
    let left = fs::read_dir(dir).into_iter().flatten().flatten();
    let left = left
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(".unfinished-")
        })
        .map(|entry| entry.path());
    for path in old.iter().map(|(_, path)| path.clone()).chain(left) {
        fs::remove_dir_all(&path).map_err(CheckpointError::io(&path))?;
    }
    Ok(())
}
