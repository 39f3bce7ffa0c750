//! The manifest: how a result was made. Every output has one, in the file or beside it as
//! `FILE.json`.
//!
//! A manifest is one JSON object. It has the origin of the file (tool, command, model, number
//! types, device, kernels), the settings of the command, each at the top level under its own name,
//! and the content of the file (digest of the input, shard, number of records). The names of the
//! keys do not change, so files of earlier versions stay readable; unknown keys are kept.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::layout::{Layout, RowCounts, TextFormat};
use crate::io::atomic_file::is_special;
use crate::io::stdio::{Content, Output, is_dash};
use crate::sequence::digest::{InputDigest, hex};
use crate::shown::shown;

/// The end of a manifest's name, after the name of its file.
pub(super) const SUFFIX: &str = ".json";

/// How a file was made.
///
/// Every field may be absent: files of earlier versions lack some, and a result that no model made
/// has no model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Program and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The command that made the file: `embed`, `score`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Commit of the model's repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Hash of everything in the model's directory that influences a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_hash: Option<String>,
    /// Licence of the model.
    #[serde(rename = "model_licence", skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// True for a model that was never trained, whose results mean nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub model_is_random: bool,
    /// The task prefix in front of each sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Number type of the matrix products.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Number type of the weights where it differs from `dtype`: `int8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// The device: `cpu`, `cuda:0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The instruction set of the CPU, or the generation of the GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels: Option<String>,
    /// The settings of the command, values that the command adds about its results, and unknown
    /// keys.
    #[serde(flatten)]
    pub settings: Map<String, Value>,
    /// Hash of the command and of all fields that influence values: the model, the prefix, number
    /// types, settings. Values that are added after [`Self::set_settings`] are not hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings_sha256: Option<String>,
    /// `i/n` (from 1) of a file that holds every n-th sequence, beginning with the i-th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// Digest of all sequences that the command read, those of other shards included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<InputDigest>,
    /// Records in this file: proteins, FASTA records, rows of a table, contact lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
    /// The format of a text file. Embeddings have none: their format shows in their first bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<TextFormat>,
    /// Rows of each sequence, in the shards of text files only.
    #[serde(rename = "rows_per_sequence", skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,
}

impl Manifest {
    /// Adds the settings of a command, one key per field, and computes [`Self::settings_sha256`].
    /// All other fields that influence values must be set before. What a command adds to
    /// [`Self::settings`] later, such as measures of its results, is not hashed.
    ///
    /// # Errors
    /// Settings that do not serialize to a JSON object.
    pub fn set_settings(&mut self, settings: &impl Serialize) -> io::Result<()> {
        match serde_json::to_value(settings)? {
            Value::Object(settings) => self.settings.extend(settings),
            Value::Null => {}
            other => {
                return Err(io::Error::new(
                    ErrorKind::InvalidInput,
                    format!("settings are not an object but {other}"),
                ));
            }
        }
        self.settings_sha256 = Some(self.digest_of_settings()?);
        Ok(())
    }

    /// Computes [`Self::settings_sha256`]; the order of keys does not count.
    fn digest_of_settings(&self) -> io::Result<String> {
        let settings: BTreeMap<&String, &Value> = self.settings.iter().collect();
        let influences = json!({
            "command": self.command,
            "model_hash": self.model_hash,
            "prefix": self.prefix,
            "dtype": self.dtype,
            "weights": self.weights,
            "settings": settings,
        });
        Ok(hex(&Sha256::digest(serde_json::to_vec(&influences)?)))
    }

    /// Adds the format and the number of rows of a text file, of a shard also the rows of each
    /// sequence.
    pub fn set_layout(&mut self, layout: &Layout) {
        self.format = Some(layout.format());
        self.written = Some(layout.total());
        self.rows = self.shard.is_some().then(|| layout.rows().clone());
    }

    /// A copy without the digest of the input and the number of records, which are known only at
    /// the end.
    pub(super) fn before_records(&self) -> Self {
        Manifest {
            input: None,
            written: None,
            ..self.clone()
        }
    }

    /// A copy whose digest and numbers have as many digits as they can have.
    pub(super) fn longest(&self) -> Self {
        Manifest {
            input: Some(InputDigest {
                sha256: "f".repeat(64),
                records: u64::MAX,
                residues: u64::MAX,
            }),
            written: Some(u64::MAX),
            ..self.clone()
        }
    }

    /// The identity of a run before its first record, as one line of JSON: the key of its journal.
    ///
    /// # Errors
    /// None in practice, because every value is JSON already.
    pub fn journal_key(&self) -> io::Result<String> {
        let begun = Manifest {
            settings_sha256: None,
            format: None,
            rows: None,
            ..self.before_records()
        };
        Ok(serde_json::to_string(&begun)?)
    }

    /// The manifest as a JSON object.
    ///
    /// # Errors
    /// None in practice, because every value is JSON already.
    pub fn to_map(&self) -> io::Result<Map<String, Value>> {
        match serde_json::to_value(self)? {
            Value::Object(map) => Ok(map),
            _ => Ok(Map::new()),
        }
    }

    /// Model and method in words, for the subtitle of a picture: `model ankh3-nano, method head`.
    pub fn caption(&self) -> String {
        let model = self.model.as_deref().unwrap_or("none");
        match self.settings.get("method").and_then(Value::as_str) {
            Some(method) => format!("model {model}, method {method}"),
            None => format!("model {model}"),
        }
    }
}

/// The name of the manifest of `path`.
pub fn beside(path: &Path) -> PathBuf {
    with_suffix(path, SUFFIX)
}

/// `path` with `suffix` appended to its file name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Reads the manifest that [`write_manifest`] wrote beside `path`; `None` if there is no such file.
pub(super) fn read_beside<T: for<'a> Deserialize<'a>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read_to_string(beside(path)) {
        Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the manifest of `output` to `FILE.json` beside it. For stdout, a device or a pipe the
/// manifest goes to the log, at level debug.
///
/// # Errors
/// A file that cannot be written.
pub fn write_manifest(output: &Path, manifest: &impl Serialize) -> io::Result<()> {
    if is_dash(output) || is_special(output) {
        tracing::debug!("manifest: {}", serde_json::to_string(manifest)?);
        return Ok(());
    }
    let mut file = Output::create(&beside(output), Content::Text)?;
    writeln!(file, "{}", serde_json::to_string_pretty(manifest)?)?;
    file.finish()
}

/// The differences between two JSON objects, such as `prefix was "nlu", now "s2s"`. Nested objects
/// are compared key by key.
pub(super) fn differences(was: &Value, now: &Value) -> Vec<String> {
    let mut list = Vec::new();
    compare("manifest", was, now, &mut list);
    list
}

fn compare(name: &str, was: &Value, now: &Value, list: &mut Vec<String>) {
    if let (Value::Object(was), Value::Object(now)) = (was, now) {
        let new = now.keys().filter(|key| !was.contains_key(*key));
        for key in was.keys().chain(new) {
            let value = |of: &Map<_, _>| of.get(key).cloned().unwrap_or_default();
            compare(key, &value(was), &value(now), list);
        }
    } else if was != now {
        list.push(format!(
            "{} was {}, now {}",
            shown(name),
            in_words(was),
            in_words(now)
        ));
    }
}

/// A value as messages show it.
pub(super) fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "absent".to_owned(),
        value => shown(&value.to_string()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct TestSettings {
        layers: Vec<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        length_limit: Option<u64>,
    }

    fn manifest(layers: &[usize]) -> Manifest {
        let mut manifest = Manifest {
            tool: Some("ankh3 0.1.0".to_owned()),
            model: Some("nano".to_owned()),
            model_hash: Some("abc".to_owned()),
            dtype: Some("f32".to_owned()),
            device: Some("cpu".to_owned()),
            kernels: Some("avx2".to_owned()),
            ..Manifest::default()
        };
        let settings = TestSettings {
            layers: layers.to_vec(),
            length_limit: None,
        };
        manifest.set_settings(&settings).unwrap();
        manifest
    }

    #[test]
    fn a_manifest_is_flat_and_reads_back() {
        let mut manifest = manifest(&[12]);
        manifest.shard = Some("1/2".to_owned());
        manifest.input = Some(InputDigest {
            sha256: "00ff".to_owned(),
            records: 3,
            residues: 60,
        });
        let mut layout = Layout::new(TextFormat::Tsv);
        layout.add(2);
        layout.close_sequence();
        manifest.set_layout(&layout);
        let json = serde_json::to_value(&manifest).unwrap();
        assert_eq!(json["layers"], json!([12]));
        assert_eq!(
            json["input"],
            json!({"sha256": "00ff", "records": 3, "residues": 60})
        );
        assert_eq!(
            (&json["written"], &json["format"]),
            (&json!(2), &json!("tsv"))
        );
        assert_eq!(json["rows_per_sequence"], json!([[2, 1]]));
        assert_eq!(serde_json::from_value::<Manifest>(json).unwrap(), manifest);
        manifest.shard = None;
        manifest.set_layout(&layout);
        assert_eq!(manifest.rows, None, "only shards need the rows");
    }

    #[test]
    fn manifests_of_the_former_version_are_read_and_unknown_keys_are_kept() {
        let text = r#"{"tool":"ankh3 0.1.0","command":"score","model":"nano","model_hash":"ab","model_licence":"MIT",
            "model_is_random":true,"prefix":"nlu","dtype":"bf16","weights":"int8","device":"cpu","kernels":"amx",
            "score":"likelihood","residues":"AC","mask_fraction":0.15,"threshold":null,"of_a_later_version":{"a":[1,2.5]},
            "shard":"1/2","spearman":{"P1":0.5},"format":"csv","rows_per_sequence":[[1,5]]}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!(manifest.licence.as_deref(), Some("MIT"));
        assert!(manifest.model_is_random && manifest.input.is_none());
        assert_eq!(manifest.format, Some(TextFormat::Csv));
        assert_eq!(manifest.settings["of_a_later_version"]["a"][1], 2.5);
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(manifest.to_map().unwrap()), value);
    }

    #[test]
    fn the_digest_of_settings_depends_on_what_influences_values() {
        let one = manifest(&[12]).settings_sha256;
        assert_ne!(one, manifest(&[11]).settings_sha256);
        let mut other = manifest(&[12]);
        (other.device, other.kernels) = (Some("cuda:0".to_owned()), Some("cuda-sm90".to_owned()));
        (other.shard, other.tool) = (Some("2/3".to_owned()), Some("ankh3 9".to_owned()));
        other.set_settings(&()).unwrap();
        assert_eq!(one, other.settings_sha256);
        other.dtype = Some("bf16".to_owned());
        other.set_settings(&()).unwrap();
        assert_ne!(one, other.settings_sha256);
    }

    #[test]
    fn differences_are_named() {
        let was =
            json!({"metadata": {"prefix": "nlu", "shard": "1/2", "model": "m"}, "dtype": "f32"});
        let now =
            json!({"metadata": {"prefix": "s2s", "model": "m", "length_limit": 5}, "dtype": "f32"});
        assert_eq!(
            differences(&was, &now).join("; "),
            r#"prefix was "nlu", now "s2s"; shard was "1/2", now absent; length_limit was absent, now 5"#
        );
    }

    #[test]
    fn the_manifest_lies_beside_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        assert_eq!(read_beside::<Manifest>(&path).unwrap(), None);
        write_manifest(&path, &manifest(&[3])).unwrap();
        assert!(folder.path().join("a.tsv.json").is_file());
        assert_eq!(
            read_beside::<Manifest>(&path).unwrap(),
            Some(manifest(&[3]))
        );
    }
}
