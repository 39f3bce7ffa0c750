use std::fs;

use ankh3::checkpoint::fetch::{FetchError, FileVerdict, VerifiedFile, fetch, verify};

use super::hub_server::{COMMIT, HubServer, Repository};
use super::{PATIENCE, REPO, command, fetched, hub};

/// The revision of `ElnaggarLab/ankh-base` whose checksums are published.
const PUBLISHED: &str = "d99cb6b966530dfc2ae96bc69d9255c2a07308b0";

#[test]
fn a_changed_byte_in_the_cache_is_found_and_can_be_mended() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let fetched = fetched(&hub).unwrap();
    let all = |verdicts: &mut Vec<VerifiedFile>| {
        verdicts.clear();
        verify(&hub, REPO, "main", &mut |file| verdicts.push(file)).unwrap()
    };
    let mut files = Vec::new();
    assert_eq!(all(&mut files), fetched.dir);
    assert_eq!(files.len(), 4);
    assert!(files.iter().all(|file| file.verdict == FileVerdict::Right));

    // One byte in the middle, and all of a small file; lengths do not change.
    for name in ["model.safetensors", "config.json"] {
        let blob = fs::canonicalize(fetched.dir.join(name)).unwrap();
        let mut bytes = fs::read(&blob).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&blob, bytes).unwrap();
    }
    fs::write(fetched.dir.join("notes.txt"), b"not from the hub").unwrap();
    let gone = fs::canonicalize(fetched.dir.join("README.md")).unwrap();
    fs::remove_file(gone).unwrap();
    all(&mut files);
    let verdict = |name: &str| {
        let file = files.iter().find(|file| file.name == name).unwrap();
        file.verdict.clone()
    };
    assert!(matches!(verdict("config.json"), FileVerdict::Wrong { .. }));
    assert!(matches!(
        verdict("model.safetensors"),
        FileVerdict::Wrong { .. }
    ));
    assert_eq!(verdict("tokenizer.json"), FileVerdict::Right);
    assert_eq!(verdict("README.md"), FileVerdict::Missing);
    assert_eq!(verdict("notes.txt"), FileVerdict::Unknown);

    let run = || {
        let mut command = command("http://127.0.0.1:9", cache.path());
        let output = command.arg("--verify").output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, messages) = run();
    assert_eq!(code, Some(1), "{messages}");
    let blob = fs::canonicalize(fetched.dir.join("config.json")).unwrap();
    for part in ["3 of 5 files", "config.json", "README.md", "`ankh3 fetch"] {
        assert!(messages.contains(part), "{messages}");
    }
    let advice = format!("delete {}", blob.display());
    assert!(messages.contains(&advice), "{messages}");
    for name in ["model.safetensors", "config.json"] {
        fs::remove_file(fs::canonicalize(fetched.dir.join(name)).unwrap()).unwrap();
    }
    super::fetched(&hub).unwrap();
    let (code, messages) = run();
    assert_eq!(code, Some(0), "{messages}");
}

#[test]
fn a_model_that_is_not_in_the_cache_cannot_be_verified() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let error = verify(&hub, REPO, "main", &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("ankh3 fetch"), "{error}");
    assert!(server.requests().is_empty());
}

/// Converted weights have the name of their own checksum.
#[test]
fn converted_weights_are_verified_as_well() {
    let server = HubServer::start(Repository::pickled_shards());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    fetched(&hub).unwrap();
    let mut files = Vec::new();
    verify(&hub, REPO, COMMIT, &mut |file| files.push(file)).unwrap();
    assert!(files.iter().any(|file| file.name == "model.safetensors"));
    assert!(
        files.iter().all(|file| file.verdict == FileVerdict::Right),
        "{files:?}"
    );
}

#[test]
fn another_file_under_a_published_revision_is_an_error() {
    let server = HubServer::start_at(Repository::safetensors(), PUBLISHED);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let base = "ElnaggarLab/ankh-base";
    let error = fetch(&hub, base, "main", PATIENCE, &mut |_| {}).unwrap_err();
    let FetchError::NotThePublished { file, expected, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(file, "config.json");
    assert_eq!(expected, "abd44a36b5469e9a7cb019e4059b5ac1392d8422");
    assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");

    // Another revision is mentioned, and no error.
    let later = HubServer::start(Repository::safetensors());
    let output = command(&later.endpoint(), cache.path()).output().unwrap();
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{messages}");
    let line = messages
        .lines()
        .filter(|line| line.contains("published checksums"));
    assert_eq!(line.count(), 1, "{messages}");
}

/// A file of the cache that a mirror has foisted on it under a published revision.
#[test]
fn published_checksums_come_before_the_names_of_blobs() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let from = fetched(&hub).unwrap().dir;
    let to = cache
        .path()
        .join("models--ElnaggarLab--ankh-base/snapshots")
        .join(PUBLISHED);
    fs::create_dir_all(&to).unwrap();
    let blob = fs::canonicalize(from.join("config.json")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(blob, to.join("config.json")).unwrap();
    let mut files = Vec::new();
    let base = "ElnaggarLab/ankh-base";
    verify(&hub, base, PUBLISHED, &mut |file| files.push(file)).unwrap();
    assert!(
        matches!(files[0].verdict, FileVerdict::Wrong { .. }),
        "{files:?}"
    );
}
