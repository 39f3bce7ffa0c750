//! Errors of downloads. Each message names what to do.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiError;
use thiserror::Error;

use super::{CheckpointError, Hub};

/// Why a model could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The environment forbids the network.
    #[error(
        "HF_HUB_OFFLINE is set, so nothing is fetched; unset it, or copy the cache from a machine that has the model"
    )]
    Offline,
    /// The hub answered with 401 or 403.
    #[error(
        "{repo}: the hub refuses access (HTTP {status}); the repository does not exist, is private, or is gated: accept its terms on its page and set HF_TOKEN"
    )]
    Denied {
        /// `owner/repo`.
        repo: String,
        /// The HTTP status.
        status: u16,
    },
    /// The hub answered with 404.
    #[error(
        "{repo} at revision `{revision}` is not on {endpoint}; check the spelling of the name and of the revision"
    )]
    NotFound {
        /// `owner/repo`.
        repo: String,
        /// The requested revision.
        revision: String,
        /// The hub's address.
        endpoint: String,
    },
    /// The hub did not answer, or its answer is invalid.
    #[error("{url}: {message}; check the network, the proxy, and HF_ENDPOINT")]
    Unreachable {
        /// The requested address.
        url: String,
        /// What the network reported, or what is wrong with the answer.
        message: String,
    },
    /// The storage host answered with a client error.
    #[error(
        "{file}: the hub's storage refuses it (HTTP {status}); run the same command again, or set HF_ENDPOINT to another mirror"
    )]
    Refused {
        /// The file.
        file: String,
        /// The HTTP status.
        status: u16,
    },
    /// The repository is not a model that can be used.
    #[error("{repo} holds no {file}; it is not a model in Hugging Face's layout")]
    NotAModel {
        /// `owner/repo`.
        repo: String,
        /// The missing file.
        file: String,
    },
    /// A transfer ended early, in every attempt.
    #[error(
        "{file}: the transfer broke at byte {position} of {size} ({message}); run the same command again"
    )]
    Broken {
        /// The file.
        file: String,
        /// Bytes received.
        position: u64,
        /// Bytes expected.
        size: u64,
        /// What the connection reported.
        message: String,
    },
    /// The checksum of a complete file is wrong.
    #[error(
        "{file}: what was received has the checksum {found}, but the hub announced {expected}; nothing was kept, run the same command again"
    )]
    Checksum {
        /// The file.
        file: String,
        /// The checksum by the hub.
        expected: String,
        /// The checksum of the received bytes.
        found: String,
    },
    /// The `ETag` is no checksum.
    #[error(
        "{file}: the hub announces no checksum (ETag `{etag}`); set HF_ENDPOINT to a faithful mirror or unset it"
    )]
    Unverifiable {
        /// The file.
        file: String,
        /// The `ETag`.
        etag: String,
    },
    /// The cache could not be written.
    #[error("{path}: {source}; the cache is at HF_HUB_CACHE, HF_HOME or ~/.cache/huggingface")]
    Io {
        /// The file or folder that could not be written or read.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The downloaded model cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl FetchError {
    pub(super) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| FetchError::Io { path, source }
    }

    /// The error of a request for a file that failed before the first byte.
    pub(super) fn request(file: &str, url: &str, error: &ureq::Error) -> Self {
        match error {
            // Timeout (408) and too many requests (429) are temporary; other answers of this class
            // are permanent.
            ureq::Error::StatusCode(status @ 400..500) if ![408, 429].contains(status) => {
                FetchError::Refused {
                    file: file.to_string(),
                    status: *status,
                }
            }
            _ => FetchError::Unreachable {
                url: url.to_string(),
                message: error.to_string(),
            },
        }
    }

    /// Whether another attempt may succeed.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            FetchError::Broken { .. } | FetchError::Unreachable { .. }
        )
    }
}

/// The error of a request to the hub's own interface.
pub(super) fn api_error(hub: &Hub, repo: &str, revision: &str, error: &ApiError) -> FetchError {
    let status = match error {
        ApiError::RequestError(request) => match request.as_ref() {
            ureq::Error::StatusCode(status) => Some(*status),
            _ => None,
        },
        _ => None,
    };
    let repo = repo.to_string();
    match status {
        Some(status @ (401 | 403)) => FetchError::Denied { repo, status },
        Some(404) => FetchError::NotFound {
            repo,
            revision: revision.to_string(),
            endpoint: hub.endpoint.clone(),
        },
        _ => FetchError::Unreachable {
            url: format!("{}/{repo}", hub.endpoint),
            message: error.to_string(),
        },
    }
}
