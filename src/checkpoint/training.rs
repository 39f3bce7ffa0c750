//! Checkpoints of a training run. `step-00000042/` is a model in Hugging Face's layout, with a
//! folder `training/`:
//!
//! - `state.json`: the state of the run;
//! - `model.safetensors`: the optimizer's moments. Moment `k` of the weight `NAME` is the flat f32
//!   tensor `k.NAME`.
//!
//! A checkpoint is written under another name and renamed when it is complete, so only complete
//! ones are found again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::save::{Contents, LazyTensor, save, write_safetensors};
use super::weights::WeightFiles;
use super::{CheckpointError, ModelLocation};
use crate::io::atomic_folder::{AtomicFolder, remove_folder};
use crate::number::NumberType;

/// The folder of the files that only training reads.
const TRAINING: &str = "training";
/// The file of the run's state in [`TRAINING`].
const STATE: &str = "state.json";
/// The file of the optimizer's moments in [`TRAINING`].
const MOMENTS: &str = "model.safetensors";
/// The first part of a checkpoint's name.
const STEP: &str = "step-";

/// The optimizer's moments of each weight, by the name of the weight.
pub type SavedMoments = BTreeMap<String, Vec<Vec<f32>>>;

/// The content of a run's checkpoint beside the model; moments are borrowed for saving and owned
/// after loading.
pub struct RunState<M> {
    /// The optimizer's moments.
    pub moments: M,
    /// The state of the run.
    pub state: Value,
}

/// Writes the checkpoint of step `step` into `dir`, and returns its path.
///
/// # Errors
/// A file that cannot be written; older checkpoints then remain, and no partial checkpoint is left.
///
/// # Panics
/// Never: a JSON value always serialises.
pub fn save_step(
    dir: &Path,
    step: u64,
    contents: Contents<'_>,
    run: &RunState<&SavedMoments>,
) -> Result<PathBuf, CheckpointError> {
    let place = dir.join(format!("{STEP}{step:08}"));
    fs::create_dir_all(dir).map_err(CheckpointError::io(dir))?;
    let unfinished = AtomicFolder::create(&place).map_err(CheckpointError::io(dir))?;
    let model = unfinished.path().join("model");
    save(&model, contents)?;
    let training = model.join(TRAINING);
    fs::create_dir(&training).map_err(CheckpointError::io(&training))?;
    write_moments(&training, run.moments)?;
    let path = training.join(STATE);
    let state = serde_json::to_vec_pretty(&run.state).expect("a JSON value always serialises");
    fs::write(&path, state).map_err(CheckpointError::io(&path))?;
    sync(&path)?;
    sync(&model)?;
    if place.exists() {
        // The same step was saved before a signal, with the same bytes.
        remove_folder(&place).map_err(CheckpointError::io(&place))?;
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

fn write_moments(dir: &Path, moments: &SavedMoments) -> Result<(), CheckpointError> {
    // Sorted by the number of the moment first: `0.NAME` of all weights, then `1.NAME`.
    let mut named: BTreeMap<String, &[f32]> = BTreeMap::new();
    for (name, moments) in moments {
        for (number, values) in moments.iter().enumerate() {
            named.insert(format!("{number}.{name}"), values);
        }
    }
    let tensors = named
        .into_iter()
        .map(|(name, values)| LazyTensor {
            name,
            dtype: NumberType::F32,
            shape: vec![values.len()],
            bytes: Box::new(move || NumberType::F32.to_bytes(values).into()),
        })
        .collect();
    write_safetensors(&dir.join(MOMENTS), tensors)
}

/// The name of the weight in `NUMBER.NAME`.
fn weight_of(dir: &Path, tensor: &str) -> Result<String, CheckpointError> {
    match tensor.split_once('.') {
        Some((_, weight)) => Ok(weight.to_owned()),
        None => Err(CheckpointError::damaged(
            dir.join(MOMENTS),
            format!("`{tensor}` is not a moment of a weight"),
        )),
    }
}

/// The moments and the state of a checkpoint that [`save_step`] wrote.
///
/// # Errors
/// A checkpoint without these files, or with damaged ones.
pub fn load_state(checkpoint: &Path) -> Result<RunState<SavedMoments>, CheckpointError> {
    let dir = checkpoint.join(TRAINING);
    let path = dir.join(STATE);
    let text = fs::read(&path).map_err(CheckpointError::io(&path))?;
    let state = serde_json::from_slice(&text)
        .map_err(|error| CheckpointError::damaged(&path, error.to_string()))?;
    let weights = WeightFiles::open(&ModelLocation::Directory(dir.clone()))?;
    let mut moments = SavedMoments::new();
    // Entries are sorted, so the moments of a weight come in the order of their numbers.
    for (name, entry) in &weights.entries {
        let values = weights.view(name, entry)?.to_f32_vec();
        let weight = weight_of(&dir, name)?;
        moments.entry(weight).or_default().push(values);
    }
    Ok(RunState { moments, state })
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

/// Deletes all checkpoints except the last `keep`, and partial checkpoints of interrupted runs.
///
/// # Errors
/// A folder that cannot be deleted.
pub fn prune(dir: &Path, keep: usize) -> Result<(), CheckpointError> {
    let steps = steps(dir);
    let old = &steps[..steps.len().saturating_sub(keep)];
    for (_, path) in old {
        remove_folder(path).map_err(CheckpointError::io(path))?;
    }
    // The run is this process's alone, so these are of interrupted runs.
    let left = fs::read_dir(dir).into_iter().flatten().flatten();
    let left = left.filter(|entry| {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with(&format!(".{STEP}")) && path.extension().is_some_and(|end| end == "tmp")
    });
    for path in left.map(|entry| entry.path()) {
        fs::remove_dir_all(&path).map_err(CheckpointError::io(&path))?;
    }
    Ok(())
}
