//! Download of a repository of the hub into the standard Hugging Face cache: `ankh3 fetch`, the
//! only command that uses the network.
//!
//! The layout is that of `huggingface_hub`, so that Python tools share the files:
//! `blobs/<checksum>` are the files, `snapshots/<commit>/<file>` are links to blobs,
//! `refs/<revision>` contains the commit. The reference is written last, so that no other job finds
//! an incomplete model.
//!
//! `client` makes all requests, `remote` asks for files and checksums, `transfer` downloads one
//! file, `partial` knows the files that are not complete yet.
//!
//! Where a repository has only pickled weights, they are converted once to `model.safetensors`,
//! linked beside them.

mod address;
mod client;
mod error;
mod partial;
mod prune;
mod published;
mod remote;
mod roots;
mod transfer;
mod verify;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use client::Client;
pub use client::Patience;
pub use error::FetchError;
use partial::{UnfinishedFolder, delete_dead, hold};
pub use prune::{Pruned, prune};
use remote::Listing;
pub use verify::{FileVerdict, VerifiedFile, verify};

use super::checksum::sha256_of;
use super::load::card_licence;
use super::weights::{self, WeightFormat};
use super::{Hub, convert, resolve};
use crate::io::atomic_file::AtomicFile;

/// The files beside the weights that are downloaded where the repository has them.
const SMALL_FILES: [&str; 11] = [
    "config.json",
    "added_tokens.json",
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

/// The weights that are made of pickled ones.
const CONVERTED: &str = "model.safetensors";

/// An event of a download, for a progress display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A file is about to be downloaded.
    Start {
        /// The name of the file.
        file: &'a str,
        /// The size of the file in bytes.
        size: u64,
        /// The bytes that an earlier run has left.
        kept: u64,
    },
    /// This many bytes of the file are there; the number starts again where a server cannot resume.
    Position(u64),
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
    client: Client,
}

impl<'a> Session<'a> {
    fn open(
        hub: &'a Hub,
        repo: &'a str,
        revision: &str,
        patience: Patience,
    ) -> Result<Self, FetchError> {
        let client = Client::new(hub, patience)?;
        let Listing { commit, files } = remote::listing(&client, repo, revision)?;
        if let Some(known) = published::revision(repo).filter(|known| *known != commit) {
            tracing::info!(
                "{repo}: the hub has revision {commit}; published checksums are known of {known} only"
            );
        }
        Ok(Session {
            hub,
            repo,
            commit,
            files,
            client,
        })
    }

    fn run(&self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Fetched, FetchError> {
        self.require("config.json")?;
        self.clear_up()?;
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
        // The repository has no safetensors, so this is the conversion of another run, which may end
        // at any time.
        let is_converted = || first.starts_with("pytorch") && dir.join(CONVERTED).is_file();
        if is_converted() {
            return Ok(());
        }
        self.file(first, on_event)?;
        let (format, shards) = weights::locate(&dir)?;
        if is_converted() {
            return Ok(());
        }
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
        let source = remote::file(&self.client, self.repo, &self.commit, name)?;
        let published = published::checksum(self.repo, &self.commit, name);
        if let Some(published) = published.filter(|published| *published != source.checksum) {
            return Err(FetchError::NotThePublished {
                file: name.to_string(),
                repo: self.repo.to_string(),
                expected: published.as_str().to_string(),
                found: source.checksum.as_str().to_string(),
            });
        }
        let blob = self.blobs()?.join(source.checksum.as_str());
        let _held = loop {
            match hold(&blob, source.size) {
                Some(held) => break held,
                None => transfer::download(&self.client, &source, &blob, on_event)?,
            }
        };
        link(&blob, &self.dir(), name)
    }

    fn convert(&self, dir: &Path) -> Result<(), FetchError> {
        let blobs = self.blobs()?;
        let folder = UnfinishedFolder::new(&blobs).map_err(FetchError::io(&blobs))?;
        let file = folder.path().join(CONVERTED);
        convert::to_safetensors(dir, &file)?;
        let checksum = sha256_of(&file).map_err(FetchError::io(&file))?;
        let blob = blobs.join(checksum);
        let held = fs::File::open(&file).map_err(FetchError::io(&file))?;
        // Without locks `fetch --prune` may delete the blob before it is linked.
        let _ = held.try_lock_shared();
        fs::rename(&file, &blob).map_err(FetchError::io(&blob))?;
        link(&blob, dir, CONVERTED)
    }

    /// Deletes what dead processes have left unfinished, except files in transfer.
    fn clear_up(&self) -> Result<(), FetchError> {
        let refs = self.hub.repo_dir(self.repo).join("refs");
        for dir in [self.blobs()?, self.dir(), refs] {
            delete_dead(&dir).map_err(FetchError::io(&dir))?;
        }
        Ok(())
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
        let write = || {
            let mut file = AtomicFile::create(&path)?;
            file.write_all(self.commit.as_bytes())?;
            file.finish()
        };
        write().map_err(FetchError::io(&path))
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
        .prefix(partial::PREFIX)
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
