//! Conversion of a pickle checkpoint to safetensors. It happens once: later runs map the
//! safetensors file.

use std::path::Path;

use super::save::{LazyTensor, write_safetensors};
use super::weights::WeightFiles;
use super::{CheckpointError, ModelLocation, load};

/// Writes the weights of a checkpoint directory, in any layout, to one safetensors file. Values and
/// types do not change; a tensor stored under several names is written once, a tied `lm_head.weight`
/// not at all.
pub fn to_safetensors(dir: &Path, file: &Path) -> Result<(), CheckpointError> {
    let place = ModelLocation::Directory(dir.to_path_buf());
    let mut weights = WeightFiles::open(&place)?;
    if load::ties_embeddings(&load::read_config(&place)?) {
        weights.forget_tied_head()?;
    }
    let mut tensors = Vec::with_capacity(weights.entries.len());
    for (name, entry) in &weights.entries {
        // Read once now, so that a tensor that cannot be read is an error before anything is
        // written.
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
