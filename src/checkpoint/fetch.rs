//! Download of a repository of the hub into the standard Hugging Face cache: `ankh3 fetch`, the
//! only command that uses the network.
//!
//! The layout is that of `huggingface_hub`, so that Python tools share the files:
//! `blobs/<checksum>` are the files, `snapshots/<commit>/<file>` are links to blobs,
//! `refs/<revision>` contains the commit. hf-hub lists files and checksums; `transfer` downloads.
//! The reference is written last, so that no other job finds an incomplete model.
//!
//! Where a repository has only pickled weights, they are converted once to `model.safetensors`,
//! linked beside them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};

pub use super::fetch_error::FetchError;
use super::fetch_error::api_error;
use super::hub::model_repo;
use super::load::card_licence;
pub use super::transfer::Patience;
use super::transfer::{Checksum, Client, RemoteFile, place, sha256_of, unfinished_file};
use super::weights::{self, WeightFormat};
use super::{Hub, convert, resolve};

/// The files beside the weights that are downloaded where the repository has them.
const SMALL_FILES: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "added_tokens.json",
    "README.md",
    "LICENSE",
    "LICENSE.md",
];

/// Weight files in the order of preference.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// An event of a download, for a progress display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A file is about to be downloaded.
    Start {
        /// The name of the file.
        file: &'a str,
        /// The size of the file in bytes.
        size: u64,
    },
    /// This many bytes of the file have arrived; the number starts at 0 again where a server cannot
    /// resume.
    Arrived(u64),
    /// The file is verified and in the cache.
    Done {
        /// The name of the file.
        file: &'a str,
    },
    /// Pickled weights are being written as safetensors.
    Converting,
}

/// A model that is now in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The directory of the model.
    pub dir: PathBuf,
    /// The commit of the revision.
    pub commit: String,
    /// The licence of the weights by the model card or the table of known models.
    pub licence: Option<String>,
}

/// Downloads the files of a model that are not yet in the cache.
pub fn fetch(
    hub: &Hub,
    repo: &str,
    revision: &str,
    patience: Patience,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Fetched, FetchError> {
    if hub.offline {
        return Err(FetchError::Offline);
    }
    let session = Session::open(hub, repo, revision, patience)?;
    let fetched = session.run(on_event)?;
    session.write_reference(revision)?;
    Ok(fetched)
}

/// One repository at one commit.
struct Session<'a> {
    hub: &'a Hub,
    repo: &'a str,
    commit: String,
    files: Vec<String>,
    api: Api,
    at_commit: ApiRepo,
    client: Client,
}

impl<'a> Session<'a> {
    fn open(
        hub: &'a Hub,
        repo: &'a str,
        revision: &str,
        patience: Patience,
    ) -> Result<Self, FetchError> {
        let failed = |error: ApiError| api_error(hub, repo, revision, &error);
        let api = ApiBuilder::from_cache(Cache::new(hub.cache.clone()))
            .with_endpoint(hub.endpoint.clone())
            .with_token(hub.token.clone())
            .with_progress(false)
            .with_user_agent("ankh3", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(failed)?;
        let info = api
            .repo(model_repo(repo, revision))
            .info()
            .map_err(failed)?;
        // The commit becomes part of a path; with a pinned commit all files belong together.
        if info.sha.is_empty() || !info.sha.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(FetchError::Unreachable {
                url: hub.endpoint.clone(),
                message: format!("`{}` is not a commit", info.sha),
            });
        }
        let files = info
            .siblings
            .into_iter()
            .map(|file| file.rfilename)
            .collect();
        Ok(Session {
            at_commit: api.repo(model_repo(repo, &info.sha)),
            commit: info.sha,
            hub,
            repo,
            files,
            api,
            client: Client::new(hub.token.clone(), patience),
        })
    }

    fn run(&self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Fetched, FetchError> {
        self.require("config.json")?;
        for file in SMALL_FILES {
            if self.files.iter().any(|name| name == file) {
                self.file(file, on_event)?;
            }
        }
        self.weights(on_event)?;
        let dir = self.dir();
        let card = fs::read_to_string(dir.join("README.md")).unwrap_or_default();
        let known = resolve::KNOWN_MODELS
            .iter()
            .any(|model| model.repo == self.repo);
        Ok(Fetched {
            licence: card_licence(&card)
                .or_else(|| known.then(|| resolve::ANKH_LICENCE.to_string())),
            dir,
            commit: self.commit.clone(),
        })
    }

    fn weights(&self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), FetchError> {
        let found = WEIGHTS
            .into_iter()
            .find(|file| self.files.iter().any(|name| name == file));
        let first = found.ok_or_else(|| FetchError::NotAModel {
            repo: self.repo.to_string(),
            file: WEIGHTS.join(" or "),
        })?;
        let dir = self.dir();
        // The repository has no safetensors, so this is the conversion of an earlier run.
        if first.starts_with("pytorch") && dir.join("model.safetensors").is_file() {
            return Ok(());
        }
        self.file(first, on_event)?;
        let (format, shards) = weights::locate(&dir)?;
        for shard in shards {
            let name = shard
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name != first {
                self.require(&name)?;
                self.file(&name, on_event)?;
            }
        }
        if format == WeightFormat::Pickle {
            on_event(Event::Converting);
            self.convert(&dir)?;
        }
        Ok(())
    }

    fn require(&self, file: &str) -> Result<(), FetchError> {
        if self.files.iter().any(|name| name == file) {
            return Ok(());
        }
        Err(FetchError::NotAModel {
            repo: self.repo.to_string(),
            file: file.to_string(),
        })
    }

    /// Makes sure that one file is in the cache and linked from the snapshot.
    fn file(&self, name: &str, on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), FetchError> {
        let url = self.at_commit.url(name);
        let metadata = self.api.metadata(&url).map_err(|error| {
            api_error(
                self.hub,
                self.repo,
                &format!("{} ({name})", self.commit),
                &error,
            )
        })?;
        let checksum = Checksum::from_etag(metadata.etag()).ok_or_else(|| {
            let (file, etag) = (name.to_string(), metadata.etag().to_string());
            FetchError::Unverifiable { file, etag }
        })?;
        let source = RemoteFile {
            name,
            url,
            size: metadata.size() as u64,
            checksum,
        };
        let blob = self.blobs()?.join(source.checksum.as_str());
        // A blob gets its name after its checksum was verified; the length detects a file that
        // another program truncated.
        if !fs::metadata(&blob).is_ok_and(|found| found.len() == source.size) {
            on_event(Event::Start {
                file: name,
                size: source.size,
            });
            let mut arrived = |count| on_event(Event::Arrived(count));
            self.client.download(&source, &blob, &mut arrived)?;
            on_event(Event::Done { file: name });
        }
        link(&blob, &self.dir(), name)
    }

    fn convert(&self, dir: &Path) -> Result<(), FetchError> {
        let blobs = self.blobs()?;
        let file = unfinished_file(&blobs).map_err(FetchError::io(&blobs))?;
        convert::to_safetensors(dir, file.path())?;
        let checksum = sha256_of(file.path()).map_err(FetchError::io(file.path()))?;
        let blob = blobs.join(checksum);
        place(file, &blob)?;
        link(&blob, dir, "model.safetensors")
    }

    fn dir(&self) -> PathBuf {
        self.hub.snapshot_dir(self.repo, &self.commit)
    }

    fn blobs(&self) -> Result<PathBuf, FetchError> {
        let blobs = self.hub.repo_dir(self.repo).join("blobs");
        fs::create_dir_all(&blobs).map_err(FetchError::io(&blobs))?;
        Ok(blobs)
    }

    /// `refs/<revision>`; a full commit needs none.
    fn write_reference(&self, revision: &str) -> Result<(), FetchError> {
        if revision == self.commit {
            return Ok(());
        }
        let path = self.hub.repo_dir(self.repo).join("refs").join(revision);
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(FetchError::io(dir))?;
        let mut file = unfinished_file(dir).map_err(FetchError::io(dir))?;
        file.write_all(self.commit.as_bytes())
            .map_err(FetchError::io(&path))?;
        place(file, &path)
    }
}

/// Links `snapshots/<commit>/<name>` to `../../blobs/<checksum>`, atomically replacing a file of
/// that name.
fn link(blob: &Path, snapshot: &Path, name: &str) -> Result<(), FetchError> {
    let pointer = snapshot.join(name);
    let blob_name = blob.file_name().unwrap_or_default();
    let target = Path::new("../../blobs").join(blob_name);
    if fs::read_link(&pointer).is_ok_and(|found| found == target) {
        return Ok(());
    }
    fs::create_dir_all(snapshot).map_err(FetchError::io(snapshot))?;
    let builder = tempfile::Builder::new()
        .prefix(".ankh3-")
        .make_in(snapshot, |path| {
            #[cfg(unix)]
            std::os::unix::fs::symlink(&target, path)?;
            #[cfg(not(unix))]
            fs::copy(blob, path)?;
            Ok(())
        });
    let unfinished = builder.map_err(FetchError::io(snapshot))?;
    unfinished
        .persist(&pointer)
        .map_err(|error| FetchError::io(&pointer)(error.error))
}
