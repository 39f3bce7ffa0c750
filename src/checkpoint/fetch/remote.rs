//! What the hub says about a repository: its commit, the names of its files, and the size and the
//! checksum of each.

use serde::Deserialize;

use super::address::encoded;
use super::client::{Client, HubAnswer, RequestFailure, Wanted};
use super::error::FetchError;
use crate::checkpoint::checksum::Checksum;
use crate::shown::shown;

/// The files of one revision.
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// A file of the hub.
pub(super) struct RemoteFile<'a> {
    pub name: &'a str,
    pub url: String,
    pub size: u64,
    pub checksum: Checksum,
}

/// The hub's answer for a model at a revision.
#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Asks for the commit of a revision and its files.
pub(super) fn listing(client: &Client, repo: &str, revision: &str) -> Result<Listing, FetchError> {
    let url = client.url(&format!(
        "/api/models/{repo}/revision/{}",
        encoded(revision)
    ));
    let body = client
        .small_body(&url)
        .map_err(|failure| refused(failure, client, repo, revision))?;
    let invalid = |message| FetchError::Unreachable {
        url: url.clone(),
        message,
    };
    let info: ModelInfo = serde_json::from_slice(&body)
        .map_err(|error| invalid(format!("its answer is not a list of files ({error})")))?;
    // The commit becomes part of a path; with a pinned commit all files belong together.
    if info.sha.is_empty() || !info.sha.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(invalid(format!("`{}` is not a commit", shown(&info.sha))));
    }
    Ok(Listing {
        commit: info.sha,
        files: info
            .siblings
            .into_iter()
            .map(|file| file.rfilename)
            .collect(),
    })
}

/// Asks for the size and the checksum of a file.
pub(super) fn file<'a>(
    client: &Client,
    repo: &str,
    commit: &str,
    name: &'a str,
) -> Result<RemoteFile<'a>, FetchError> {
    let url = client.url(&format!("/{repo}/resolve/{commit}/{}", encoded(name)));
    let answer = client
        .get(&url, Wanted::Metadata)
        .map_err(|failure| refused(failure, client, repo, &format!("{commit} ({name})")))?;
    let etag = answer.linked_etag.as_deref().or(answer.text("etag"));
    let etag = etag.unwrap_or_default();
    let unverifiable = |what: String| FetchError::Unverifiable {
        file: name.to_string(),
        what,
    };
    let checksum = Checksum::from_etag(etag)
        .ok_or_else(|| unverifiable(format!("checksum (ETag `{}`)", shown(etag))))?;
    let size = size(&answer).ok_or_else(|| unverifiable("size".to_string()))?;
    Ok(RemoteFile {
        name,
        url,
        size,
        checksum,
    })
}

/// The size of the whole file: the answer may be one byte of it, all of it, or a redirect.
fn size(answer: &HubAnswer) -> Option<u64> {
    let of_range = || {
        answer
            .text("content-range")?
            .rsplit_once('/')?
            .1
            .parse()
            .ok()
    };
    let of_whole = || answer.text("content-length")?.parse().ok();
    match answer.status {
        _ if answer.linked_size.is_some() => answer.linked_size,
        206 => of_range(),
        200 => of_whole(),
        _ => None,
    }
}

fn refused(failure: RequestFailure, client: &Client, repo: &str, revision: &str) -> FetchError {
    let repo = repo.to_string();
    match failure {
        RequestFailure::Status {
            status: status @ (401 | 403),
            ..
        } => FetchError::Denied { repo, status },
        RequestFailure::Status { status: 404, .. } => FetchError::NotFound {
            repo,
            revision: revision.to_string(),
            endpoint: client.url(""),
        },
        RequestFailure::Status { status, url, .. } => FetchError::Unreachable {
            url,
            message: format!("HTTP {status}"),
        },
        RequestFailure::Error(error) => error,
    }
}
