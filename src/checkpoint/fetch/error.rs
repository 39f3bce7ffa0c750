//! Errors of downloads. Each message names what to do.

use std::path::{Path, PathBuf};

use std::time::Duration;

use thiserror::Error;

use super::Patience;
use crate::checkpoint::CheckpointError;
use crate::shown::shown;

/// Why a model could not be fetched.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum FetchError {
    /// The environment forbids the network.
    #[error(
        "HF_HUB_OFFLINE is set, so nothing is fetched; unset it, or copy the cache from a machine that has the model"
    )]
    Offline,
    /// `HF_ENDPOINT` is no address.
    #[error(
        "HF_ENDPOINT is `{}`, which is no address of a hub; it begins with https:// or http:// and holds no blank, for example https://huggingface.co",
        shown(.0)
    )]
    Endpoint(String),
    /// The token holds a character that no header can hold.
    #[error(
        "the token (HF_TOKEN, HUGGING_FACE_HUB_TOKEN or the file HF_TOKEN_PATH) holds a control character; copy it again from the settings of your account on the hub"
    )]
    Token,
    /// The hub answered with 401 or 403.
    #[error(
        "{repo}: the hub refuses access (HTTP {status}); the repository does not exist, is private, or is gated: accept its terms on its page and set HF_TOKEN"
    )]
    Denied {
        /// `owner/repo`.
        repo: String,
        status: u16,
    },
    /// The hub answered with 404.
    #[error(
        "{repo} at revision `{revision}` is not on {endpoint}; check the spelling of the name and of the revision"
    )]
    NotFound {
        /// `owner/repo`.
        repo: String,
        revision: String,
        endpoint: String,
    },
    /// The hub did not answer, or its answer is invalid.
    #[error("{url}: {message}; check the network, the proxy, and HF_ENDPOINT")]
    Unreachable {
        url: String,
        /// What the network reported, or what is wrong with the answer.
        message: String,
    },
    /// A server has no time now.
    #[error(
        "{url}: the server is busy (HTTP {status}{}); run the same command again later",
        asked(*asked_pause)
    )]
    Busy {
        url: String,
        status: u16,
        /// The pause that the server asks for.
        asked_pause: Option<Duration>,
    },
    /// A redirect that leads nowhere.
    #[error("{url}: {message}; check HF_ENDPOINT and the proxy")]
    Redirect {
        /// The address that redirects.
        url: String,
        message: String,
    },
    /// The certificate of a server is not trusted.
    #[error(
        "{url}: the server's certificate is not trusted ({message}); where a proxy opens TLS, name the file of its certificate authority in SSL_CERT_FILE"
    )]
    Untrusted {
        url: String,
        /// What is wrong with the certificate.
        message: String,
    },
    /// A server answered the request for a file with a client error.
    #[error(
        "{file}: {by} refuses it (HTTP {status}); run the same command again, or set HF_ENDPOINT to another mirror"
    )]
    Refused {
        file: String,
        /// The server in words.
        by: &'static str,
        status: u16,
    },
    /// The repository is not a model that can be used.
    #[error("{repo} holds no {file}; it is not a model in Hugging Face's layout")]
    NotAModel {
        /// `owner/repo`.
        repo: String,
        file: String,
    },
    /// A transfer ended early, in every attempt.
    #[error(
        "{file}: the transfer broke at byte {position} of {size} ({message}); run the same command again, which goes on there"
    )]
    Broken {
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
        file: String,
        /// The checksum by the hub.
        expected: String,
        /// The checksum of the received bytes.
        found: String,
    },
    /// The hub announces another file than the published one.
    #[error(
        "{file}: the hub announces a file with the checksum {found}, but the one of {repo} at this revision is known to have {expected}; unset HF_ENDPOINT, or set it to a faithful mirror"
    )]
    NotThePublished {
        file: String,
        /// `owner/repo`.
        repo: String,
        expected: String,
        /// The checksum by the hub.
        found: String,
    },
    /// The hub does not say what the file must be.
    #[error(
        "{file}: the hub announces no {what}; set HF_ENDPOINT to a faithful mirror or unset it"
    )]
    Unverifiable { file: String, what: String },
    /// The cache could not be written.
    #[error("{path}: {source}; the cache is at HF_HUB_CACHE, HF_HOME or ~/.cache/huggingface")]
    Io {
        /// The file or folder that could not be written or read.
        path: PathBuf,
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

    /// The error of a request without an answer.
    pub(super) fn network(url: String, error: &ureq::Error, patience: Patience) -> Self {
        let message = match error {
            ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
                format!("no connection within {} s", patience.connect.as_secs_f64())
            }
            ureq::Error::Timeout(ureq::Timeout::RecvResponse) => {
                format!("no answer within {} s", patience.first_byte.as_secs_f64())
            }
            _ => error.to_string(),
        };
        if message.contains("certificate") {
            return FetchError::Untrusted { url, message };
        }
        FetchError::Unreachable { url, message }
    }

    /// Whether another attempt may succeed.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            FetchError::Broken { .. } | FetchError::Unreachable { .. } | FetchError::Busy { .. }
        )
    }

    /// The pause that the server asks for.
    pub(super) fn asked_pause(&self) -> Option<Duration> {
        match self {
            FetchError::Busy { asked_pause, .. } => *asked_pause,
            _ => None,
        }
    }
}

fn asked(pause: Option<Duration>) -> String {
    let text = |pause: Duration| format!(", it asks for a pause of {} s", pause.as_secs());
    pause.map(text).unwrap_or_default()
}
