//! Writing of a checkpoint directory in the layout of Hugging Face, under another name first and
//! renamed when it is complete.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use safetensors::tensor::View;
use safetensors::{Dtype, serialize_to_file};
use serde_json::{Map, Value, json};

use super::CheckpointError;
use super::layout::LmHead;
use crate::io::atomic_folder::AtomicFolder;
use crate::model::Config;
use crate::number::NumberType;
use crate::tokenizer::Tokenizer;

/// A tensor whose bytes are computed when it is written, so that a model larger than memory can be
/// saved.
pub struct LazyTensor<'a> {
    /// The Hugging Face name.
    pub name: String,
    /// The type in the file.
    pub dtype: NumberType,
    /// The shape of the row-major values.
    pub shape: Vec<usize>,
    /// The `shape.product() * dtype.size()` little-endian bytes.
    pub bytes: Box<dyn Fn() -> Cow<'a, [u8]> + 'a>,
}

/// The content of a checkpoint.
pub struct Contents<'a> {
    /// The network's shape.
    pub config: &'a Config,
    /// Further keys of config.json: labels and metadata.
    pub labels: Map<String, Value>,
    /// The vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// All tensors, each once.
    pub tensors: Vec<LazyTensor<'a>>,
}

impl View for LazyTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype.into()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        (self.bytes)()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// Writes a checkpoint to `dir`, which must be empty or not exist.
pub fn save(dir: &Path, contents: Contents<'_>) -> Result<(), CheckpointError> {
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) || dir.is_file() {
        return Err(CheckpointError::Exists(dir.to_path_buf()));
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(CheckpointError::io(parent))?;
    let unfinished = AtomicFolder::create(dir).map_err(CheckpointError::io(parent))?;
    write_files(unfinished.path(), contents)?;
    unfinished.finish().map_err(CheckpointError::io(dir))
}

fn write_files(dir: &Path, contents: Contents<'_>) -> Result<(), CheckpointError> {
    let own_head = contents
        .tensors
        .iter()
        .any(|tensor| tensor.name == "lm_head.weight");
    let lm_head = if own_head { LmHead::Own } else { LmHead::Tied };
    let dtype = contents
        .tensors
        .first()
        .map_or(NumberType::F32, |tensor| tensor.dtype);
    let config = config_json(contents.config, lm_head, dtype, contents.labels);
    write(&dir.join("config.json"), &pretty(&config))?;
    write(
        &dir.join("generation_config.json"),
        &pretty(&generation_config(contents.config)),
    )?;
    write(
        &dir.join("tokenizer.json"),
        &contents.tokenizer.to_tokenizer_json(),
    )?;
    write(
        &dir.join("tokenizer_config.json"),
        &contents.tokenizer.to_tokenizer_config(),
    )?;
    write(
        &dir.join("special_tokens_map.json"),
        &contents.tokenizer.to_special_tokens_map(),
    )?;
    write_safetensors(&dir.join("model.safetensors"), contents.tensors)
}

/// Computes and writes tensors one after the other, and waits until the file is on disk.
pub(super) fn write_safetensors(
    path: &Path,
    tensors: Vec<LazyTensor<'_>>,
) -> Result<(), CheckpointError> {
    // The safetensors crate replaces the file by a file that only its owner may read.
    let permissions = File::create(path).and_then(|file| file.metadata());
    let permissions = permissions
        .map_err(CheckpointError::io(path))?
        .permissions();
    // Without this entry transformers rejects the file.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let named = tensors
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor));
    serialize_to_file(named, Some(metadata), path)
        .map_err(|error| CheckpointError::damaged(path, format!("cannot be written: {error}")))?;
    let on_disk = File::open(path).and_then(|file| {
        file.set_permissions(permissions)?;
        file.sync_all()
    });
    on_disk.map_err(CheckpointError::io(path))
}

/// The content of config.json. `tie_word_embeddings: false` tells Transformers 4 and 5 that the
/// head is untied and that logits are not scaled.
fn config_json(
    config: &Config,
    lm_head: LmHead,
    dtype: NumberType,
    labels: Map<String, Value>,
) -> Value {
    let own = serde_json::to_value(config).expect("numbers and names serialise");
    let mut json = json!({
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": true,
        "torch_dtype": dtype.torch_name(),
        "initializer_factor": 1.0,
        "use_cache": true,
    });
    let fields = json
        .as_object_mut()
        .expect("it was written as an object above");
    fields.extend(own.as_object().cloned().unwrap_or_default());
    fields.insert(
        "num_decoder_layers".to_string(),
        json!(config.decoder_layers()),
    );
    fields.insert(
        "tie_word_embeddings".to_string(),
        json!(lm_head == LmHead::Tied),
    );
    fields.extend(labels);
    json
}

fn generation_config(config: &Config) -> Value {
    json!({
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    })
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("a JSON value always serialises");
    bytes.push(b'\n');
    bytes
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    fs::write(path, bytes).map_err(CheckpointError::io(path))
}
