//! Checksums of files of the hub: SHA-256 for large files, Git's blob id for small ones. They are
//! the names of the blobs in the cache.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::sequence::digest::hex;

/// The checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256, for large files (LFS, Xet).
    Sha256(String),
    /// Git's blob id, for small files: SHA-1 over `blob <size>\0` and the content.
    GitBlob(String),
}

impl Checksum {
    /// The checksum in an `ETag`, or in the name of a blob.
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

    /// A hasher of this kind for a file of `size` bytes.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Checksum::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Checksum::GitBlob(_) => {
                Hasher::GitBlob(Sha1::new().chain_update(format!("blob {size}\0")))
            }
        }
    }

    /// The digits of this kind of checksum for a file.
    pub(super) fn of_file(&self, path: &Path) -> io::Result<String> {
        let mut file = File::open(path)?;
        let mut hasher = self.hasher(file.metadata()?.len());
        hasher.read(&mut file)?;
        Ok(hasher.finish())
    }
}

/// SHA-256 of a file.
pub(super) fn sha256_of(path: &Path) -> io::Result<String> {
    Checksum::Sha256(String::new()).of_file(path)
}

/// A checksum in the making.
pub(super) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::GitBlob(hash) => hash.update(bytes),
        }
    }

    /// Reads to the end of the file.
    pub(super) fn read(&mut self, file: &mut File) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                count => self.update(&buffer[..count]),
            }
        }
    }

    pub(super) fn finish(self) -> String {
        match self {
            Hasher::Sha256(hash) => hex(&hash.finalize()),
            Hasher::GitBlob(hash) => hex(&hash.finalize()),
        }
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
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello\n").unwrap();
        let checksum = Checksum::GitBlob(String::new());
        let found = checksum.of_file(file.path()).unwrap();
        assert_eq!(found, "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
