//! Checkpoints in practice: pickles written by PyTorch, shards, wrong and missing tensors,
//! and what `init` writes. The pickles are made by `checkpoint/make_pickles.py`, which also writes
//! down what PyTorch itself sees in them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Files that lie about their content.
mod hostile;

/// Checkpoints as people have them, against transformers.
mod variants;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ankh3::checkpoint::init::{self, ModelPreset};
use ankh3::checkpoint::inspect::CheckpointSummary;
use ankh3::checkpoint::layout::LmHead;
use ankh3::checkpoint::{Checkpoint, CheckpointError, convert};
use ankh3::number::NumberType;
use ankh3::tokenizer::{TaskPrefix, Tokenizer};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Expected {
    shape: Vec<usize>,
    sum: f64,
    first: f32,
    last: f32,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint")
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_slice(&fs::read(fixtures().join("expected.json")).unwrap()).unwrap()
}

/// A directory with config.json, a tokenizer of 40 ids, and the given fixtures under the given
/// names.
fn checkpoint_of(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut pieces: Vec<Value> = Tokenizer::ankh_v1().pieces()[..28]
        .iter()
        .map(|piece| json!([piece, 0.0]))
        .collect();
    pieces.push(json!(["<extra_id_0>", 0.0]));
    let tokenizer = json!({"model": {"vocab": pieces}});
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    for (from, to) in [("config.json", "config.json")].iter().chain(files) {
        fs::copy(fixtures().join(from), dir.path().join(to)).unwrap();
    }
    dir
}

fn tiny() -> TempDir {
    checkpoint_of(&[("tiny.bin", "pytorch_model.bin")])
}

fn sharded() -> TempDir {
    let [a, b, index] = [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "pytorch_model.bin.index.json",
    ];
    checkpoint_of(&[(a, a), (b, b), (index, index)])
}

fn change_config(dir: &Path, key: &str, value: Value) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// First and last value are exactly those of PyTorch in the stored type, and so is the sum within
/// `tolerance` of its terms.
fn assert_holds_what_pytorch_sees(checkpoint: &Checkpoint, stored: fn(f32) -> f32, tolerance: f64) {
    for (name, expected) in expected() {
        let tensor = checkpoint.tensor(&name, &expected.shape).unwrap();
        let values = tensor.to_f32_vec();
        assert_eq!(
            values.len(),
            expected.shape.iter().product::<usize>(),
            "{name}"
        );
        let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
        let magnitude: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
        assert!(
            (sum - expected.sum).abs() <= tolerance * magnitude,
            "{name}: {sum} {}",
            expected.sum
        );
        let ends = [values[0], values[values.len() - 1]];
        assert_eq!(
            ends,
            [stored(expected.first), stored(expected.last)],
            "{name}"
        );
    }
}

fn as_f32(value: f32) -> f32 {
    value
}

fn as_bf16(value: f32) -> f32 {
    half::bf16::from_f32(value).to_f32()
}

/// The conversion is exact, except for the order of the sum, also for offsets within a storage and
/// transposed tensors.
#[test]
fn a_pickle_holds_what_pytorch_sees() {
    let dir = tiny();
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    assert_holds_what_pytorch_sees(&checkpoint, as_f32, 1e-12);
    assert_eq!(
        checkpoint.names().count(),
        expected().len(),
        "aliases are no tensors of their own"
    );
}

#[test]
fn pickle_shards_in_bf16_hold_what_pytorch_sees() {
    let dir = sharded();
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    // bf16 has 8 significant bits: rounding moves a value by at most 2^-8 of itself.
    assert_holds_what_pytorch_sees(&checkpoint, as_bf16, 2.0_f64.powi(-8));
    let table = checkpoint.tensor("shared.weight", &[40, 8]).unwrap();
    assert_eq!(table.dtype, NumberType::Bf16);
}

#[test]
fn stored_bytes_are_not_copied() {
    let dir = tiny();
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    let table = checkpoint.tensor("shared.weight", &[40, 8]).unwrap();
    assert!(matches!(table.bytes, std::borrow::Cow::Borrowed(_)));
}

/// The pickle's second `lm_head.weight` is the embedding table: a head of its own would go
/// unscaled.
#[test]
fn tied_embeddings_answer_to_every_name_but_are_no_head() {
    let dir = tiny();
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    assert_eq!(checkpoint.lm_head(), LmHead::Tied);
    assert!(!checkpoint.has("lm_head.weight"));
    for name in [
        "shared.weight",
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
    ] {
        assert!(checkpoint.has(name), "{name}");
        assert_eq!(checkpoint.tensor(name, &[40, 8]).unwrap().len(), 320);
    }
}

#[test]
fn pickle_and_safetensors_are_the_same_model() {
    for dir in [tiny(), sharded()] {
        let pickled = Checkpoint::load(dir.path()).unwrap();
        let file = dir.path().join("model.safetensors");
        convert::to_safetensors(dir.path(), &file).unwrap();
        let converted = Checkpoint::load(dir.path()).unwrap();
        let stored: Vec<_> = CheckpointSummary::of(&converted).files;
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].0, "model.safetensors");
        assert_eq!(
            pickled.names().collect::<Vec<_>>(),
            converted.names().collect::<Vec<_>>()
        );
        assert_eq!(
            pickled.model_hash().unwrap(),
            converted.model_hash().unwrap()
        );
    }
    let hash = |dir: &TempDir| Checkpoint::load(dir.path()).unwrap().model_hash().unwrap();
    assert_ne!(hash(&tiny()), hash(&sharded()), "other values, other hash");
}

#[test]
fn safetensors_shards_by_index() {
    let dir = tiny();
    let whole = dir.path().join("model.safetensors");
    convert::to_safetensors(dir.path(), &whole).unwrap();
    let bytes = fs::read(&whole).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let split = checkpoint_of(&[]);
    let mut weight_map = BTreeMap::new();
    let mut all = tensors.tensors();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for (number, part) in all.chunks(5).enumerate() {
        let file = format!("model-{number}.safetensors");
        weight_map.extend(part.iter().map(|(name, _)| (name.clone(), file.clone())));
        let part = part.iter().map(|(name, view)| (name.as_str(), view));
        safetensors::serialize_to_file(part, None, &split.path().join(file)).unwrap();
    }
    let index = split.path().join("model.safetensors.index.json");
    fs::write(&index, json!({"weight_map": weight_map}).to_string()).unwrap();
    let checkpoint = Checkpoint::load(split.path()).unwrap();
    assert_holds_what_pytorch_sees(&checkpoint, as_f32, 1e-12);

    fs::remove_file(split.path().join("model-1.safetensors")).unwrap();
    let message = Checkpoint::load(split.path()).unwrap_err().to_string();
    assert!(
        message.contains("model-1.safetensors") && message.contains("fetch"),
        "{message}"
    );

    fs::write(
        &index,
        json!({"weight_map": {"shared.weight": "../secret"}}).to_string(),
    )
    .unwrap();
    let message = Checkpoint::load(split.path()).unwrap_err().to_string();
    assert!(message.contains("beside its index"), "{message}");
}

#[test]
fn a_wrong_shape_is_named_with_both_shapes() {
    let dir = tiny();
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    let error = checkpoint
        .tensor("encoder.final_layer_norm.weight", &[16])
        .unwrap_err();
    assert!(matches!(error, CheckpointError::WrongShape { .. }));
    let message = error.to_string();
    for part in [
        "pytorch_model.bin",
        "encoder.final_layer_norm.weight",
        "[8]",
        "[16]",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_missing_tensor_is_named_with_its_expected_shape() {
    let dir = tiny();
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    let message = checkpoint
        .tensor("lm_head.weight", &[40, 8])
        .unwrap_err()
        .to_string();
    for part in [
        "lm_head.weight",
        "[40, 8]",
        "ankh3 inspect",
        dir.path().to_str().unwrap(),
    ] {
        assert!(message.contains(part), "{message}");
    }
}

/// A pickle that calls a function of Python's: an error that names the function, which is not
/// called.
#[test]
fn a_pickle_executes_nothing() {
    let dir = checkpoint_of(&[("evil.bin", "pytorch_model.bin")]);
    let message = Checkpoint::load(dir.path()).unwrap_err().to_string();
    for part in [
        "pytorch_model.bin",
        "`posix.system`",
        "nothing was executed",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!Path::new("ankh3-was-executed").exists());
    assert!(!dir.path().join("ankh3-was-executed").exists());
}

#[test]
fn damage_is_an_error_with_the_files_name() {
    let legacy = checkpoint_of(&[("legacy.bin", "pytorch_model.bin")]);
    let message = Checkpoint::load(legacy.path()).unwrap_err().to_string();
    assert!(
        message.contains("pytorch_model.bin") && message.contains("before 1.6"),
        "{message}"
    );

    let whole = fs::read(fixtures().join("tiny.bin")).unwrap();
    let dir = tiny();
    for length in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(dir.path().join("pytorch_model.bin"), &whole[..length]).unwrap();
        let message = Checkpoint::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains("pytorch_model.bin"), "{length}: {message}");
    }

    let dir = tiny();
    let file = dir.path().join("model.safetensors");
    convert::to_safetensors(dir.path(), &file).unwrap();
    let whole = fs::read(&file).unwrap();
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        // A new file, as a broken copy would be: nobody has it mapped.
        fs::remove_file(&file).unwrap();
        fs::write(&file, &whole[..length]).unwrap();
        let message = Checkpoint::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains("model.safetensors"), "{length}: {message}");
    }
}

#[test]
fn what_is_no_t5_is_refused() {
    let cases = [
        ("model_type", json!("umt5"), "umt5"),
        ("d_model", Value::Null, "not the shape of a T5"),
        ("feed_forward_proj", json!("gelu"), "gated-silu"),
        ("dense_act_fn", json!("tanh"), "dense_act_fn"),
        ("vocab_size", json!(20), "do not belong together"),
    ];
    for (key, value, expected) in cases {
        let dir = tiny();
        change_config(dir.path(), key, value);
        let message = Checkpoint::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{key}: {message}");
    }
    let empty = tempfile::tempdir().unwrap();
    let message = Checkpoint::load(empty.path()).unwrap_err().to_string();
    assert!(message.contains("no config.json"), "{message}");
}

#[test]
fn init_writes_a_model_that_loads() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("models/nano");
    init::init(&dir, ModelPreset::Nano, 7, NumberType::Bf16).unwrap();
    let checkpoint = Checkpoint::load(&dir).unwrap();
    let summary = CheckpointSummary::of(&checkpoint);
    assert_eq!(summary.problems, Vec::<String>::new());
    assert_eq!(summary.unused, Vec::<String>::new());
    assert_eq!(summary.parameters, 3_051_264);
    assert!(summary.random && !summary.tied);
    assert_eq!(summary.id, "nano");
    assert_eq!(checkpoint.lm_head(), LmHead::Own);
    assert_eq!(checkpoint.tokenizer.pieces(), Tokenizer::ankh3().pieces());
    assert_eq!(checkpoint.tokenizer.default_prefix(), TaskPrefix::Nlu);
    assert_eq!(checkpoint.config.decoder_layers(), 2);
    assert!(fs::metadata(dir.join("model.safetensors")).unwrap().len() <= 6_200_000);

    let left: Vec<_> = fs::read_dir(dir.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["nano"], "nothing unfinished is left behind");
    let message = init::init(&dir, ModelPreset::Nano, 7, NumberType::Bf16)
        .unwrap_err()
        .to_string();
    assert!(message.contains("not empty"), "{message}");
}

#[test]
fn the_same_seed_is_the_same_file_and_bf16_is_f32_rounded() {
    let parent = tempfile::tempdir().unwrap();
    let make = |name: &str, seed, dtype| {
        let dir = parent.path().join(name);
        init::init(&dir, ModelPreset::Nano, seed, dtype).unwrap();
        dir
    };
    let a = make("a", 1, NumberType::Bf16);
    let b = make("b", 1, NumberType::Bf16);
    let other = make("c", 2, NumberType::Bf16);
    let wide = make("d", 1, NumberType::F32);
    let bytes = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert_eq!(bytes(&a), bytes(&b));
    assert_ne!(bytes(&a), bytes(&other));
    let narrow = Checkpoint::load(&a).unwrap();
    let wide = Checkpoint::load(&wide).unwrap();
    let name = "encoder.block.3.layer.1.DenseReluDense.wo.weight";
    let narrow = narrow.tensor(name, &[192, 512]).unwrap().to_f32_vec();
    let wide = wide.tensor(name, &[192, 512]).unwrap().to_f32_vec();
    for (narrow, wide) in narrow.iter().zip(&wide) {
        assert_eq!(*narrow, half::bf16::from_f32(*wide).to_f32());
    }
}

/// Weights are for everyone who may read the directory, whatever the private temporary file they
/// were written to.
#[cfg(unix)]
#[test]
fn written_files_have_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("nano");
    init::init(&dir, ModelPreset::Nano, 0, NumberType::Bf16).unwrap();
    let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("model.safetensors"), mode("config.json"));
}

/// The ids of SentencePiece itself, from a model that it trained (`checkpoint/make_spiece.py`).
#[test]
fn spiece_gives_the_ids_of_sentencepiece() {
    let read = |name: &str| fs::read(fixtures().join(name)).unwrap();
    let expected: BTreeMap<String, Vec<u32>> =
        serde_json::from_slice(&read("spiece_ids.json")).unwrap();
    let tokenizer = Tokenizer::from_spiece(&read("spiece.model"), 10).unwrap();
    assert_eq!(expected.len(), 3);
    for (text, ids) in expected {
        let (prefix, residues) = match (text.strip_prefix("[NLU]"), text.strip_prefix("[S2S]")) {
            (Some(rest), _) => (TaskPrefix::Nlu, rest),
            (_, Some(rest)) => (TaskPrefix::S2s, rest),
            _ => (TaskPrefix::None, text.as_str()),
        };
        let found = tokenizer.encode(residues.as_bytes(), prefix).unwrap();
        assert_eq!(found.token_ids, ids, "{text}");
    }
    let pieces = tokenizer.vocab_size() - 10;
    assert_eq!(tokenizer.sentinel(9), Some(pieces as u32));
}

/// A checkpoint with spiece.model alone: the number of sentinels is in `tokenizer_config.json`.
#[test]
fn spiece_in_a_checkpoint_takes_its_sentinels_from_the_config() {
    let dir = checkpoint_of(&[
        ("tiny.bin", "pytorch_model.bin"),
        ("spiece.model", "spiece.model"),
    ]);
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    fs::write(
        dir.path().join("tokenizer_config.json"),
        r#"{"extra_ids": 5}"#,
    )
    .unwrap();
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    assert_eq!(checkpoint.tokenizer.num_sentinels(), 5);
    // Further tokens behind the sentinels, in the files of older and of newer models.
    let pieces = checkpoint.tokenizer.vocab_size();
    let id = pieces + 1;
    let older = json!({ "<AA2fold>": id }).to_string();
    let newer =
        json!({"extra_ids": 5, "added_tokens_decoder": {id.to_string(): {"content": "<AA2fold>"}}});
    for (name, text) in [
        ("added_tokens.json", older),
        ("tokenizer_config.json", newer.to_string()),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
        change_config(dir.path(), "vocab_size", json!(id + 1));
        let tokenizer = Checkpoint::load(dir.path()).unwrap().tokenizer;
        assert_eq!(
            tokenizer.prefix_id(TaskPrefix::Token("<AA2fold>")),
            Some(id as u32)
        );
        assert_eq!(tokenizer.num_sentinels(), 5);
        fs::remove_file(dir.path().join(name)).unwrap();
        fs::write(
            dir.path().join("tokenizer_config.json"),
            r#"{"extra_ids": 5}"#,
        )
        .unwrap();
    }
    let names = r#"{"additional_special_tokens": ["<extra_id_0>", {"content": "<extra_id_1>"}]}"#;
    fs::write(dir.path().join("tokenizer_config.json"), names).unwrap();
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    assert_eq!(checkpoint.tokenizer.num_sentinels(), 2);
}
