//! What the hub holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use ankh3::checkpoint::init::{ModelPreset, init};
use ankh3::number::NumberType;
use ankh3::tokenizer::Tokenizer;
use serde_json::json;
use sha1::Digest;

#[derive(Clone, Default)]
pub struct Repository {
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Repository {
    /// A nano model, with files that nobody needs.
    pub fn safetensors() -> Self {
        static MADE_ONCE: LazyLock<Repository> = LazyLock::new(Repository::new_nano);
        MADE_ONCE.clone()
    }

    fn new_nano() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("nano");
        init(&dir, ModelPreset::Nano, 3, NumberType::Bf16).unwrap();
        let mut repository = Repository::default();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            repository.add(name, std::fs::read(dir.join(name)).unwrap());
        }
        repository.add(
            "README.md",
            b"---\nlicense: cc-by-nc-sa-4.0\n---\n# Ankh3\n".to_vec(),
        );
        repository.add(
            "pytorch_model.bin",
            b"not needed where there is safetensors".to_vec(),
        );
        repository.add("flax_model.msgpack", b"not needed".to_vec());
        repository
    }

    /// The pickled shards that PyTorch wrote for `tests/it/checkpoint.rs`.
    pub fn pickled_shards() -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint");
        let mut repository = Repository::default();
        for name in [
            "config.json",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "pytorch_model.bin.index.json",
        ] {
            repository.add(name, std::fs::read(fixtures.join(name)).unwrap());
        }
        let tokenizer = Tokenizer::ankh_v1();
        let pieces: Vec<_> = tokenizer.pieces()[..28]
            .iter()
            .map(|piece| json!([piece, 0.0]))
            .collect();
        let tokenizer = json!({"model": {"vocab": pieces}}).to_string();
        repository.add("tokenizer.json", tokenizer.into_bytes());
        repository
    }

    pub fn without(mut self, name: &str) -> Self {
        if name == "model.safetensors" {
            self.files.remove("pytorch_model.bin");
        }
        self.files.remove(name);
        self
    }

    /// The same repository with another last byte of a file.
    pub fn changed(mut self, name: &str) -> Self {
        *self.files.get_mut(name).unwrap().last_mut().unwrap() ^= 1;
        self
    }

    fn add(&mut self, name: &str, content: Vec<u8>) {
        self.files.insert(name.to_string(), content);
    }

    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .map(|(name, content)| (name.as_str(), content.as_slice()))
    }

    pub fn file(&self, name: &str) -> &[u8] {
        &self.files[name]
    }

    pub fn bytes_of(&self, names: &[String]) -> u64 {
        names.iter().map(|name| self.file(name).len() as u64).sum()
    }

    /// The name of a file's blob: SHA-256 of a large file, git's id of a small one.
    pub fn blob(&self, name: &str) -> String {
        let content = self.file(name);
        let digest: Vec<u8> = if is_large(name) {
            sha2::Sha256::digest(content).to_vec()
        } else {
            let head = format!("blob {}\0", content.len());
            sha1::Sha1::new()
                .chain_update(head)
                .chain_update(content)
                .finalize()
                .to_vec()
        };
        digest
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(digit)
            .collect()
    }
}

fn digit(half_byte: u8) -> char {
    char::from_digit(u32::from(half_byte), 16).unwrap()
}

pub(super) fn is_large(name: &str) -> bool {
    [".bin", ".safetensors", ".msgpack"]
        .iter()
        .any(|end| name.ends_with(end))
}
