//! Tiny checkpoints as directories: a golden's weights with a vocabulary, and how to run the
//! command on one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ankh3::checkpoint::Checkpoint;
use ankh3::device::{Compute, DeviceSpec};
use ankh3::inference::EncoderDecoder;
use ankh3::model::{Decoder, Encoder};
use ankh3::tokenizer::Tokenizer;
use candle_core::Device;
use serde_json::{Value, json};
use tempfile::TempDir;

pub fn golden(kind: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("golden").join(kind)
}

/// A checkpoint directory: the weights of a golden, and a vocabulary.
pub fn checkpoint(kind: &str, tokenizer: &Tokenizer) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(kind).join(file), dir.path().join(file)).unwrap();
    }
    fs::write(
        dir.path().join("tokenizer.json"),
        tokenizer.to_tokenizer_json(),
    )
    .unwrap();
    dir
}

/// Ankh3's weights and vocabulary.
pub fn ankh3() -> TempDir {
    checkpoint("untied-gated-silu", &Tokenizer::ankh3())
}

/// Ankh3's vocabulary with fewer sentinels; the ids of the other sentinels have no piece.
pub fn few_sentinels(count: usize) -> Tokenizer {
    let pieces: Vec<Value> = Tokenizer::ankh3()
        .pieces()
        .iter()
        .map(|piece| {
            let number = piece.strip_prefix("<extra_id_");
            let number = number.and_then(|rest| rest.strip_suffix('>')?.parse::<usize>().ok());
            match number {
                Some(k) if k >= count => json!([format!("<unused_{k}>"), 0.0]),
                _ => json!([piece, 0.0]),
            }
        })
        .collect();
    let text = json!({"model": {"vocab": pieces}}).to_string();
    Tokenizer::from_tokenizer_json(text.as_bytes()).unwrap()
}

impl Network {
    /// Both stacks.
    pub fn stacks(&self) -> EncoderDecoder<'_> {
        EncoderDecoder {
            encoder: &self.encoder,
            decoder: &self.decoder,
        }
    }
}

/// A network in memory.
pub struct Network {
    pub encoder: Encoder,
    pub decoder: Decoder,
    pub tokenizer: Tokenizer,
}

pub fn network(dir: &TempDir) -> Network {
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    let compute = Compute::open(DeviceSpec::Cpu, None).unwrap();
    let loader = checkpoint.loader(&compute);
    Network {
        encoder: Encoder::load(&loader, &checkpoint.config).unwrap(),
        decoder: Decoder::load(&loader, &checkpoint.config).unwrap(),
        tokenizer: checkpoint.tokenizer,
    }
}

/// Runs the command with `input` on its stdin.
pub fn ankh3_command(arguments: &[&str], input: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), input).unwrap();
    Command::new(env!("CARGO_BIN_EXE_ankh3"))
        .args(arguments)
        .env_remove("ANKH3_MODEL")
        .env_remove("ANKH3_LOG")
        .stdin(fs::File::open(file.path()).unwrap())
        .output()
        .unwrap()
}

/// stdout of a run that must end with `code`.
pub fn stdout(arguments: &[&str], input: &str, code: i32) -> String {
    let output = ankh3_command(arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// stderr of a run that must end with `code`.
pub fn stderr(arguments: &[&str], input: &str, code: i32) -> String {
    let output = ankh3_command(arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stderr}");
    stderr
}

/// A checkpoint whose every logit is NaN.
pub fn broken() -> TempDir {
    let dir = ankh3();
    let path = dir.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let head = tensors.get_mut("lm_head.weight").unwrap();
    *head = (&*head * f64::NAN).unwrap();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    dir
}

/// Every n-th of the records' lines, as a shard has them, put back in order.
pub fn interleave(shards: &[Vec<String>]) -> Vec<String> {
    let longest = shards.iter().map(Vec::len).max().unwrap();
    let at = |i: usize| shards.iter().filter_map(move |shard| shard.get(i).cloned());
    (0..longest).flat_map(at).collect()
}
