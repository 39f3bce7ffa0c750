//! Download of one file from the hub into the cache's blobs, complete and verified or not at all.
//!
//! hf-hub's own downloader is not used: it verifies no checksum, gives every job the same `.part`
//! name, and guards that name with `flock`, which shared filesystems of clusters often lack. Here
//! each download has a name of its own, is hashed while it is written, and is renamed to its final
//! name when length and checksum are right. Two jobs that fetch at the same time both succeed; a
//! job that dies leaves a file that no program uses.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;

use super::fetch_error::FetchError;
use super::hash::hex;

/// The number of attempts of a download and the pauses between them.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts after a transfer that broke without any progress.
    pub attempts: u32,
    /// The pause before the first attempt; each further pause is twice as long.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            attempts: 5,
            pause: Duration::from_secs(1),
        }
    }
}

/// The checksum of a file, from the hub's `ETag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256, for large files (LFS, Xet).
    Sha256(String),
    /// Git's blob id, for small files: SHA-1 over `blob <size>\0` and the content.
    GitBlob(String),
}

impl Checksum {
    pub(super) fn from_etag(etag: &str) -> Option<Self> {
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        let is_hex = etag
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match etag.len() {
            64 if is_hex => Some(Checksum::Sha256(etag.to_string())),
            40 if is_hex => Some(Checksum::GitBlob(etag.to_string())),
            _ => None,
        }
    }

    /// The name of the blob in the cache.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Checksum::Sha256(digits) | Checksum::GitBlob(digits) => digits,
        }
    }

    fn hasher(&self, size: u64) -> Hasher {
        match self {
            Checksum::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Checksum::GitBlob(_) => {
                Hasher::GitBlob(Sha1::new().chain_update(format!("blob {size}\0")))
            }
        }
    }
}

enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::GitBlob(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Hasher::Sha256(hash) => hex(&hash.finalize()),
            Hasher::GitBlob(hash) => hex(&hash.finalize()),
        }
    }
}

/// A file of the hub.
pub(super) struct RemoteFile<'a> {
    pub name: &'a str,
    pub url: String,
    pub size: u64,
    pub checksum: Checksum,
}

/// An HTTP client with the user's token.
pub(super) struct Client {
    agent: Agent,
    token: Option<String>,
    patience: Patience,
}

/// Bytes that have arrived so far.
struct Progress {
    file: NamedTempFile,
    hasher: Hasher,
    position: u64,
}

impl Client {
    pub(super) fn new(token: Option<String>, patience: Patience) -> Self {
        let config = Agent::config_builder()
            .user_agent(concat!("ankh3/", env!("CARGO_PKG_VERSION")))
            // Large files are redirected to a storage host, which must not receive the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(120)));
        Client {
            agent: config.build().into(),
            token,
            patience,
        }
    }

    /// Downloads to `blob`, and calls `arrived` with the number of bytes whenever bytes have
    /// arrived.
    pub(super) fn download(
        &self,
        source: &RemoteFile<'_>,
        blob: &Path,
        arrived: &mut dyn FnMut(u64),
    ) -> Result<(), FetchError> {
        let dir = blob.parent().unwrap_or(Path::new("."));
        let mut progress = Progress {
            file: unfinished_file(dir).map_err(FetchError::io(dir))?,
            hasher: source.checksum.hasher(source.size),
            position: 0,
        };
        let mut attempt = 0;
        while progress.position < source.size {
            let before = progress.position;
            let Err(error) = self.stream(source, &mut progress, arrived) else {
                break;
            };
            if !error.is_passing() {
                return Err(error);
            }
            attempt = if progress.position > before {
                1
            } else {
                attempt + 1
            };
            if attempt >= self.patience.attempts {
                return Err(error);
            }
            tracing::warn!("{error}; trying again");
            std::thread::sleep(self.patience.pause * 2_u32.pow(attempt.min(6) - 1));
        }
        finish(source, progress, blob)
    }

    /// One request, from the end of the partial file on, until the transfer ends or breaks.
    fn stream(
        &self,
        source: &RemoteFile<'_>,
        progress: &mut Progress,
        arrived: &mut dyn FnMut(u64),
    ) -> Result<(), FetchError> {
        let mut request = self
            .agent
            .get(&source.url)
            .header("Accept-Encoding", "identity");
        if progress.position > 0 {
            request = request.header("Range", format!("bytes={}-", progress.position));
        }
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = request
            .call()
            .map_err(|error| FetchError::request(source.name, &source.url, &error))?;
        if progress.position > 0 && response.status() != 206 {
            start_over(source, progress).map_err(FetchError::io(progress.file.path()))?;
        }
        // One byte more than expected is enough to see that the file is too long.
        let rest = source.size - progress.position + 1;
        let mut body = response.into_body().into_reader().take(rest);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(broken(source, progress.position, &error.to_string())),
            };
            let path = progress.file.path().to_path_buf();
            progress
                .file
                .write_all(&buffer[..count])
                .map_err(FetchError::io(path))?;
            progress.hasher.update(&buffer[..count]);
            progress.position += count as u64;
            arrived(count as u64);
        }
        if progress.position < source.size {
            return Err(broken(
                source,
                progress.position,
                "the connection was closed",
            ));
        }
        Ok(())
    }
}

fn broken(source: &RemoteFile<'_>, position: u64, message: &str) -> FetchError {
    FetchError::Broken {
        file: source.name.to_string(),
        position,
        size: source.size,
        message: message.to_string(),
    }
}

fn start_over(source: &RemoteFile<'_>, progress: &mut Progress) -> std::io::Result<()> {
    progress.file.as_file_mut().set_len(0)?;
    progress.file.as_file_mut().rewind()?;
    progress.hasher = source.checksum.hasher(source.size);
    progress.position = 0;
    Ok(())
}

fn finish(source: &RemoteFile<'_>, progress: Progress, blob: &Path) -> Result<(), FetchError> {
    let found = progress.hasher.finish();
    if progress.position != source.size || found != source.checksum.as_str() {
        return Err(FetchError::Checksum {
            file: source.name.to_string(),
            expected: source.checksum.as_str().to_string(),
            found,
        });
    }
    place(progress.file, blob)
}

/// Syncs a finished file and renames it to its final name.
pub(super) fn place(file: NamedTempFile, blob: &Path) -> Result<(), FetchError> {
    file.as_file()
        .sync_all()
        .map_err(FetchError::io(file.path()))?;
    file.persist(blob)
        .map_err(|error| FetchError::io(blob)(error.error))?;
    Ok(())
}

/// A new file under a unique name, deleted on errors, with the permissions of a file that other
/// users of the cache may read.
pub(super) fn unfinished_file(dir: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ankh3-").suffix(".incomplete");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(dir)
}

/// SHA-256 of a file.
pub(super) fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_checksums() {
        let sha256 = "f2b5e1bbd110b71ca9b2878e1fcd3265610076ecc97bd696e8a745c9bacc54e0";
        let sha1 = "90f0c94b43c81496b3ca81e3ec1c092ef2dd7fca";
        assert_eq!(
            Checksum::from_etag(sha256),
            Some(Checksum::Sha256(sha256.to_string()))
        );
        let weak = format!("W/\"{sha1}\"");
        assert_eq!(
            Checksum::from_etag(&weak),
            Some(Checksum::GitBlob(sha1.to_string()))
        );
        assert_eq!(Checksum::from_etag("../../etc/passwd"), None);
        assert_eq!(
            Checksum::from_etag("\"5d41402abc4b2a76b9719d911017c592\""),
            None
        );
    }

    /// `printf 'hello\n' | git hash-object --stdin`
    #[test]
    fn git_blob_ids_are_those_of_git() {
        let checksum = Checksum::GitBlob(String::new());
        let mut hasher = checksum.hasher(6);
        hasher.update(b"hello\n");
        assert_eq!(hasher.finish(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
