//! An opened checkpoint, from a directory or from this program: its shape, its tokenizer, and its
//! tensors as mapped bytes. A tensor is read when it is used.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::layout::LmHead;
use super::weights::WeightFiles;
use super::{BUNDLED, CheckpointError, Hub, ModelLocation, ModelRef, hash, hub, resolve};
use crate::device::Compute;
use crate::model::names::{EMBEDDING_TABLES, LM_HEAD, SHARED};
use crate::model::{Config, Loader, TensorView, WeightSource};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// The largest size in bytes of config.json and of the small files of a tokenizer.
const MAX_JSON: u64 = 1 << 20;

/// The largest size of tokenizer.json in bytes.
const MAX_TOKENIZER_JSON: u64 = 32 << 20;

/// The largest size of spiece.model in bytes.
const MAX_SPIECE: u64 = 8 << 20;

/// T5's default number of sentinels after SentencePiece's pieces, where no file says it.
const T5_EXTRA_IDS: usize = 100;

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// The location of the files.
    pub place: ModelLocation,
    /// The network's shape.
    pub config: Config,
    /// All of config.json, for keys beside the network's shape.
    pub raw_config: Map<String, Value>,
    /// The vocabulary.
    pub tokenizer: Tokenizer,
    pub(super) weights: WeightFiles,
    /// The stored name of the embedding table.
    embedding_table: &'static str,
}

impl Checkpoint {
    /// Opens the value of `--model`: a directory, a known name, or `owner/repo[@revision]` from the
    /// cache.
    pub fn open(model: &str, hub: &Hub) -> Result<Self, CheckpointError> {
        Checkpoint::load_from(ModelRef::parse(model)?.resolve(hub)?)
    }

    /// Opens a directory.
    pub fn load(dir: &Path) -> Result<Self, CheckpointError> {
        Checkpoint::load_from(ModelLocation::Directory(dir.to_path_buf()))
    }

    /// A loader of the weights in the form that `compute` needs.
    pub fn loader<'a>(&'a self, compute: &'a Compute) -> Loader<'a> {
        Loader {
            source: self,
            device: &compute.device,
            dtype: compute.dtype.into(),
            weights: compute.weights,
        }
    }

    /// Opens the files at a location.
    pub fn load_from(place: ModelLocation) -> Result<Self, CheckpointError> {
        let raw_config = read_config(&place)?;
        let config = parse_config(&place, &raw_config)?;
        let tokenizer = load_tokenizer(&place, &config)?;
        let mut weights = WeightFiles::open(&place)?;
        if config.tie_word_embeddings {
            weights.forget_tied_head()?;
        }
        Ok(Checkpoint {
            embedding_table: weights.embedding_table()?.unwrap_or(SHARED),
            place,
            config,
            raw_config,
            tokenizer,
            weights,
        })
    }

    /// A tensor by its Hugging Face name, with the expected shape. The embedding table is found by
    /// each of its names.
    pub fn tensor(
        &self,
        name: &str,
        expected_shape: &[usize],
    ) -> Result<TensorView<'_>, CheckpointError> {
        if name == LM_HEAD && self.has_contradictory_head() {
            return Err(CheckpointError::ContradictoryHead(self.place.name()));
        }
        self.weights.tensor(self.stored_name(name), expected_shape)
    }

    /// Whether config.json says that the head is the embedding table, but the file has another
    /// one. transformers 4 then uses the table, transformers 5 the head, both scaled.
    fn has_contradictory_head(&self) -> bool {
        let Config {
            tie_word_embeddings,
            scale_decoder_outputs,
            ..
        } = self.config;
        tie_word_embeddings && scale_decoder_outputs.is_none() && self.has(LM_HEAD)
    }

    /// Whether [`Checkpoint::tensor`] finds a name; false for an `lm_head.weight` that is a copy of
    /// tied embeddings.
    pub fn has(&self, name: &str) -> bool {
        self.weights.entries.contains_key(self.stored_name(name))
    }

    /// The stored names, sorted, each tensor once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.entries.keys().map(String::as_str)
    }

    /// The output projection: a model whose embeddings are not tied has one of its own, also where
    /// the checkpoint lacks it.
    pub fn lm_head(&self) -> LmHead {
        if self.has(LM_HEAD) || !self.config.tie_word_embeddings {
            LmHead::Own
        } else {
            LmHead::Tied
        }
    }

    fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        let is_table = EMBEDDING_TABLES.contains(&name);
        if is_table && !self.weights.entries.contains_key(name) {
            self.embedding_table
        } else {
            name
        }
    }

    /// The model's name in metadata: `owner/repo` for a snapshot of the hub's cache, else the name
    /// of the directory.
    pub fn id(&self) -> String {
        let Some(dir) = self.real_directory() else {
            return BUNDLED.to_owned();
        };
        match hub::provenance(&dir) {
            Some((repo, _)) => repo,
            None => dir
                .file_name()
                .unwrap_or(dir.as_os_str())
                .to_string_lossy()
                .into_owned(),
        }
    }

    /// The commit, for a snapshot of the hub's cache.
    pub fn revision(&self) -> Option<String> {
        hub::provenance(&self.real_directory()?).map(|(_, commit)| commit)
    }

    /// The directory with links resolved; `None` for the bundled model.
    fn real_directory(&self) -> Option<PathBuf> {
        let dir = self.place.directory()?;
        Some(dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf()))
    }

    /// The licence of the weights: from the model card, else from the table of official models.
    pub fn licence(&self) -> Option<String> {
        let card = self.place.read("README.md").ok().flatten();
        let card = String::from_utf8_lossy(card.as_deref().unwrap_or_default());
        let repo = self.id();
        let official = resolve::KNOWN_MODELS.iter().any(|model| model.repo == repo);
        card_licence(&card).or_else(|| official.then(|| resolve::ANKH_LICENCE.to_string()))
    }

    /// Whether the weights are random numbers, as `ankh3 init` writes them.
    pub fn is_random(&self) -> bool {
        self.raw_config.contains_key(super::init::RANDOM_LABEL)
    }

    /// 64 hex digits that identify configuration, vocabulary and weights. The same weights as
    /// pickle and as safetensors have the same hash, another revision has another hash. Large
    /// weights are sampled.
    pub fn model_hash(&self) -> Result<String, CheckpointError> {
        hash::model_hash(self)
    }
}

impl WeightSource for Checkpoint {
    fn tensor(&self, name: &str, shape: &[usize]) -> candle_core::Result<TensorView<'_>> {
        Checkpoint::tensor(self, name, shape).map_err(candle_core::Error::wrap)
    }

    fn has(&self, name: &str) -> bool {
        Checkpoint::has(self, name)
    }

    fn release(&self, name: &str) {
        let entry = self.weights.entries.get(self.stored_name(name));
        if let Some((entry, Ok(dtype))) = entry.map(|entry| (entry, &entry.dtype)) {
            self.weights.release(entry, *dtype);
        }
    }
}

pub(super) fn read_config(place: &ModelLocation) -> Result<Map<String, Value>, CheckpointError> {
    read_object(place, "config.json")?.ok_or_else(|| CheckpointError::MissingFile {
        dir: place.name(),
        file: "config.json".to_string(),
        way_out: "a model is a directory in Hugging Face's layout: see `ankh3 models`",
    })
}

/// Whether a config.json says that the output projection is the embedding table.
pub(super) fn ties_embeddings(raw: &Map<String, Value>) -> bool {
    let said = raw.get("tie_word_embeddings").and_then(Value::as_bool);
    said.unwrap_or(true)
}

fn parse_config(
    place: &ModelLocation,
    raw: &Map<String, Value>,
) -> Result<Config, CheckpointError> {
    let path = place.path("config.json");
    // UMT5 and LongT5 have the same tensor names but compute differently: they would load and give
    // wrong numbers.
    let kind = raw
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or("t5");
    if !(["t5", "mt5"].contains(&kind) || kind.to_ascii_lowercase().contains("ankh")) {
        let message = format!("model_type is `{kind}`; only T5 encoder-decoders (`t5`) can be run");
        return Err(CheckpointError::damaged(path, message));
    }
    serde_json::from_value(Value::Object(raw.clone()))
        .map_err(|error| CheckpointError::damaged(path, format!("not the shape of a T5: {error}")))
}

fn load_tokenizer(place: &ModelLocation, config: &Config) -> Result<Tokenizer, CheckpointError> {
    let (name, tokenizer) =
        if let Some(json) = place.read_up_to("tokenizer.json", MAX_TOKENIZER_JSON)? {
            ("tokenizer.json", Tokenizer::from_tokenizer_json(&json))
        } else if let Some(spiece) = place.read_up_to("spiece.model", MAX_SPIECE)? {
            let settings = TokenizerSettings::read(place)?;
            let tokenizer = Tokenizer::from_spiece(&spiece, settings.extra_ids)
                .and_then(|tokenizer| tokenizer.with_added_tokens(settings.added_tokens));
            ("spiece.model", tokenizer)
        } else {
            return Err(CheckpointError::MissingFile {
                dir: place.name(),
                file: "tokenizer.json or spiece.model".to_string(),
                way_out: "copy it from the model that this one was made from",
            });
        };
    let path = place.path(name);
    let tokenizer = tokenizer.map_err(|source: TokenizerError| CheckpointError::Tokenizer {
        path: path.clone(),
        source,
    })?;
    if tokenizer.vocab_size() > config.vocab_size {
        let message = format!(
            "{} ids, but config.json has a vocab_size of {}; tokenizer and weights do not belong together",
            tokenizer.vocab_size(),
            config.vocab_size
        );
        return Err(CheckpointError::damaged(path, message));
    }
    Ok(tokenizer)
}

/// The files beside spiece.model that complete the vocabulary.
struct TokenizerSettings {
    /// The number of sentinels after the pieces.
    extra_ids: usize,
    /// Tokens behind the pieces and the sentinels.
    added_tokens: Vec<(usize, String)>,
}

impl TokenizerSettings {
    /// From `tokenizer_config.json`; added tokens of older models are in `added_tokens.json`.
    fn read(place: &ModelLocation) -> Result<Self, CheckpointError> {
        let config = read_object(place, "tokenizer_config.json")?.unwrap_or_default();
        let damaged =
            |message: &str| CheckpointError::damaged(place.path("tokenizer_config.json"), message);
        let field = |name| config.get(name).filter(|value| !value.is_null());
        let listed = || {
            let names = field("additional_special_tokens")?.as_array()?;
            let is_sentinel = |name: &&Value| name.to_string().contains("<extra_id_");
            Some(names.iter().filter(is_sentinel).count())
        };
        let extra_ids = match field("extra_ids") {
            Some(count) => {
                let count = count.as_u64().and_then(|count| usize::try_from(count).ok());
                count.ok_or_else(|| damaged("`extra_ids` is not a whole number from 0"))?
            }
            None => listed().unwrap_or(T5_EXTRA_IDS),
        };
        let added_tokens = match field("added_tokens_decoder").and_then(Value::as_object) {
            Some(tokens) => tokens
                .iter()
                .map(|(id, token)| {
                    let content = token.get("content")?.as_str()?;
                    Some((id.parse().ok()?, content.to_owned()))
                })
                .collect::<Option<_>>()
                .ok_or_else(|| damaged("`added_tokens_decoder` is not a map from ids to tokens"))?,
            None => added_tokens(place)?,
        };
        Ok(TokenizerSettings {
            extra_ids,
            added_tokens,
        })
    }
}

/// The tokens and ids of `added_tokens.json`.
fn added_tokens(place: &ModelLocation) -> Result<Vec<(usize, String)>, CheckpointError> {
    const NAME: &str = "added_tokens.json";
    let tokens = read_object(place, NAME)?.unwrap_or_default().into_iter();
    let tokens = tokens.map(|(token, id)| Some((usize::try_from(id.as_u64()?).ok()?, token)));
    tokens.collect::<Option<_>>().ok_or_else(|| {
        CheckpointError::damaged(
            place.path(NAME),
            "not a map from tokens to ids; fetch it again",
        )
    })
}

/// The content of a small JSON file; `None` where the file does not exist.
fn read_object(
    place: &ModelLocation,
    name: &str,
) -> Result<Option<Map<String, Value>>, CheckpointError> {
    let Some(text) = place.read_up_to(name, MAX_JSON)? else {
        return Ok(None);
    };
    let parsed = serde_json::from_slice(&text);
    parsed
        .map(Some)
        .map_err(|error| CheckpointError::damaged(place.path(name), error.to_string()))
}

/// The value of `license:` in a model card's front matter.
pub(super) fn card_licence(card: &str) -> Option<String> {
    let front = card.strip_prefix("---")?;
    let front = &front[..front.find("\n---")?];
    let licence = front
        .lines()
        .find_map(|line| line.strip_prefix("license:"))?
        .trim();
    Some(licence.trim_matches(['"', '\'']).to_uppercase()).filter(|licence| !licence.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_tells_the_licence() {
        let card = "---\nlicense: cc-by-nc-sa-4.0\ntags:\n- protein\n---\n# Ankh3\n";
        assert_eq!(card_licence(card).as_deref(), Some("CC-BY-NC-SA-4.0"));
        assert_eq!(card_licence("# no front matter\nlicense: mit\n"), None);
        assert_eq!(card_licence("---\ntags: []\n---\nlicense: mit\n"), None);
    }
}
