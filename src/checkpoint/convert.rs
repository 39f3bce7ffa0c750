//! A pickle checkpoint to safetensors, once: every later run maps it, and no tool needs to read a pickle again.

use std::path::Path;

use super::save::{LazyTensor, write_safetensors};
use super::weights::WeightFiles;
use super::{CheckpointError, ModelLocation};

/// Writes the weights of a checkpoint directory, whatever their layout, to one safetensors file. Values and types stay as they are; a
/// tensor stored under several names is written once.
pub fn to_safetensors(dir: &Path, file: &Path) -> Result<(), CheckpointError> {
    let weights = WeightFiles::open(&ModelLocation::Directory(dir.to_path_buf()))?;
    let mut tensors = Vec::with_capacity(weights.entries.len());
    for (name, entry) in &weights.entries {
        // Asked for once now, so that a tensor that cannot be read is an error before anything is written.
        let dtype = weights.view(name, entry)?.dtype;
        let weights = &weights;
        tensors.push(LazyTensor {
            name: name.clone(),
            dtype,
            shape: entry.shape.clone(),
            bytes: Box::new(move || weights.bytes(entry, dtype)),
        });
    }
    write_safetensors(file, tensors)
}
