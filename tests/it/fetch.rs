//! `fetch` against a small server on loopback that implements the hub's protocol, with failures on
//! request.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// The hub on loopback.
mod hub_server;

/// The token reaches the hub alone.
mod token;

/// Servers that answer with nonsense, too late, or never.
mod hostile;

/// Interrupted transfers go on, and what is left behind is deleted.
mod taken_up;

/// A hub over TLS with a certificate authority of its own.
mod tls;

/// Files of the cache against their checksums.
mod verified;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ankh3::checkpoint::fetch::{Event, FetchError, Fetched, Patience, fetch};
use ankh3::checkpoint::{Checkpoint, Hub, ModelRef};
use hub_server::{COMMIT, Fault, HubServer, Repository};
use tempfile::TempDir;

const REPO: &str = "ElnaggarLab/ankh3-large";
const PATIENCE: Patience = Patience {
    attempts: 3,
    pause: Duration::from_millis(5),
    longest_pause: Duration::from_secs(2),
    connect: Duration::from_secs(5),
    first_byte: Duration::from_millis(700),
    idle: Duration::from_millis(700),
};

/// The binary that fetches [`REPO`] from `endpoint`, in an environment without the user's settings.
fn command(endpoint: &str, cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ankh3"));
    command
        .args(["fetch", REPO])
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HUB_CACHE", cache)
        .env("HF_TOKEN_PATH", cache.join("no-token"))
        .env("NO_PROXY", "localhost,127.0.0.1");
    for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"] {
        command.env_remove(name);
    }
    command
}

fn hub(server: &HubServer, cache: &Path) -> Hub {
    Hub {
        cache: cache.to_path_buf(),
        endpoint: server.endpoint(),
        token: None,
        offline: false,
    }
}

fn fetched(hub: &Hub) -> Result<Fetched, FetchError> {
    fetch(hub, REPO, "main", PATIENCE, &mut |_| {})
}

/// The names in a directory, sorted; empty if the directory does not exist.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn blobs(cache: &TempDir) -> Vec<String> {
    names(&cache.path().join("models--ElnaggarLab--ankh3-large/blobs"))
}

#[test]
fn a_safetensors_model_arrives_in_the_standard_cache() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let mut announced = Vec::new();
    let (mut last, mut arrived) = (0, 0);
    let result = fetch(&hub, REPO, "main", PATIENCE, &mut |event| match event {
        Event::Start { file, .. } => announced.push(file.to_string()),
        Event::Position(position) => last = position,
        Event::Done { .. } => arrived += last,
        Event::Converting => panic!("nothing to convert"),
    });
    let fetched = result.unwrap();
    let repo = cache.path().join("models--ElnaggarLab--ankh3-large");
    assert_eq!(fetched.dir, repo.join("snapshots").join(COMMIT));
    assert_eq!(fetched.commit, COMMIT);
    assert_eq!(fetched.licence.as_deref(), Some("CC-BY-NC-SA-4.0"));
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(
        announced,
        [
            "config.json",
            "tokenizer.json",
            "README.md",
            "model.safetensors"
        ]
    );
    assert_eq!(arrived, server.repository().bytes_of(&announced));
    for (name, content) in server.repository().files() {
        let pointer = fetched.dir.join(name);
        if announced.iter().any(|file| file == name) {
            assert_eq!(fs::read(&pointer).unwrap(), content, "{name}");
            let target = fs::read_link(&pointer).unwrap();
            assert!(target.starts_with("../../blobs"), "{target:?}");
        } else {
            assert!(!pointer.exists(), "{name} is of no use here");
        }
    }
    let checkpoint = Checkpoint::open("ankh3-large", &hub).unwrap();
    assert_eq!(checkpoint.id(), REPO);
    assert_eq!(checkpoint.revision().as_deref(), Some(COMMIT));
}

#[test]
fn a_second_fetch_downloads_nothing() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let first = fetched(&hub).unwrap();
    let again = fetch(&hub, REPO, "main", PATIENCE, &mut |event| {
        panic!("{event:?}")
    })
    .unwrap();
    assert_eq!(first, again);
}

#[test]
fn pickled_shards_are_converted_once() {
    let server = HubServer::start(Repository::pickled_shards());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let mut conversions = 0;
    for _ in 0..2 {
        let count = |event: Event<'_>| conversions += usize::from(event == Event::Converting);
        fetch(&hub, REPO, "main", PATIENCE, &mut { count }).unwrap();
    }
    assert_eq!(conversions, 1);
    let dir = hub.snapshot(REPO, "main").unwrap();
    assert!(
        fs::read_link(dir.join("model.safetensors"))
            .unwrap()
            .starts_with("../../blobs")
    );
    let converted = Checkpoint::load(&dir).unwrap();
    let hash = converted.model_hash().unwrap();
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let pickled = Checkpoint::load(&dir).unwrap();
    assert_eq!(pickled.model_hash().unwrap(), hash);
}

#[test]
fn a_broken_transfer_is_taken_up_where_it_ended() {
    let server = HubServer::start(Repository::safetensors());
    server.fault("model.safetensors", Fault::BreakOnce);
    let cache = tempfile::tempdir().unwrap();
    let fetched = fetched(&hub(&server, cache.path())).unwrap();
    let content = fs::read(fetched.dir.join("model.safetensors")).unwrap();
    assert_eq!(content, server.repository().file("model.safetensors"));
    let resumed = server
        .requests()
        .iter()
        .filter(|request| request.resumed())
        .count();
    assert_eq!(resumed, 1);
}

#[test]
fn a_server_that_cannot_resume_sends_all_of_it_again() {
    let server = HubServer::start(Repository::safetensors());
    server.fault("model.safetensors", Fault::BreakOnceThenIgnoreRange);
    let cache = tempfile::tempdir().unwrap();
    let fetched = fetched(&hub(&server, cache.path())).unwrap();
    let content = fs::read(fetched.dir.join("model.safetensors")).unwrap();
    assert_eq!(content, server.repository().file("model.safetensors"));
}

#[test]
fn a_transfer_that_never_ends_well_leaves_no_model_behind() {
    let server = HubServer::start(Repository::safetensors());
    server.fault("model.safetensors", Fault::BreakAtOnce);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let error = fetched(&hub).unwrap_err();
    assert!(matches!(&error, FetchError::Broken { file, .. } if file == "model.safetensors"));
    assert!(
        error.to_string().contains("run the same command again"),
        "{error}"
    );
    assert_eq!(hub.snapshot(REPO, "main"), None);
    assert!(
        ModelRef::parse("ankh3-large")
            .unwrap()
            .resolve(&hub)
            .is_err()
    );
    assert!(
        blobs(&cache).iter().all(|name| !name.contains("ankh3")),
        "{:?}",
        blobs(&cache)
    );

    server.fault("model.safetensors", Fault::None);
    fetched(&hub).unwrap();
    assert!(hub.snapshot(REPO, "main").is_some());
}

#[test]
fn a_bad_checksum_is_an_error_and_nothing_is_kept() {
    for file in ["model.safetensors", "config.json"] {
        let server = HubServer::start(Repository::safetensors());
        server.fault(file, Fault::FlipByte);
        let cache = tempfile::tempdir().unwrap();
        let hub = hub(&server, cache.path());
        let error = fetched(&hub).unwrap_err();
        let FetchError::Checksum {
            file: named,
            expected,
            found,
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(named, file);
        assert_ne!(expected, found);
        assert!(!blobs(&cache).contains(expected), "{file}");
        assert!(!blobs(&cache).contains(found), "{file}");
        assert_eq!(hub.snapshot(REPO, "main"), None);
    }
}

#[test]
fn too_many_bytes_are_as_bad_as_too_few() {
    let server = HubServer::start(Repository::safetensors());
    server.fault("model.safetensors", Fault::AppendByte);
    let cache = tempfile::tempdir().unwrap();
    let error = fetched(&hub(&server, cache.path())).unwrap_err();
    assert!(matches!(error, FetchError::Checksum { .. }), "{error}");
}

#[test]
fn a_refusal_of_the_storage_host_is_not_tried_again() {
    let server = HubServer::start(Repository::safetensors());
    server.fault("model.safetensors", Fault::Refuse);
    let cache = tempfile::tempdir().unwrap();
    let error = fetched(&hub(&server, cache.path())).unwrap_err();
    assert!(
        matches!(error, FetchError::Refused { status: 403, .. }),
        "{error}"
    );
    // One request for the size, one for the file.
    let asked = server
        .requests()
        .iter()
        .filter(|request| request.is_storage())
        .count();
    assert_eq!(asked, 2);
}

#[test]
fn two_jobs_at_once_both_succeed() {
    for repository in [Repository::safetensors(), Repository::pickled_shards()] {
        let server = HubServer::start(repository);
        server.fault("model.safetensors", Fault::Slow);
        let cache = tempfile::tempdir().unwrap();
        let hub = hub(&server, cache.path());
        let results: Vec<_> = std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..4).map(|_| scope.spawn(|| fetched(&hub))).collect();
            jobs.into_iter().map(|job| job.join().unwrap()).collect()
        });
        let dirs: Vec<_> = results
            .into_iter()
            .map(|result| result.unwrap().dir)
            .collect();
        assert!(dirs.iter().all(|dir| *dir == dirs[0]));
        Checkpoint::load(&dirs[0]).unwrap();
        assert!(
            blobs(&cache).iter().all(|name| !name.starts_with('.')),
            "{:?}",
            blobs(&cache)
        );
    }
}

/// The files of a job that was killed in the middle: an unfinished blob, a truncated blob, a
/// dangling link.
#[test]
fn the_remains_of_a_dead_job_do_not_disturb() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let repo = cache.path().join("models--ElnaggarLab--ankh3-large");
    let dir = repo.join("snapshots").join(COMMIT);
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(repo.join("blobs")).unwrap();
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    fs::write(repo.join("blobs/.ankh3-abc.incomplete"), b"half").unwrap();
    let blob = server.repository().blob("model.safetensors");
    fs::write(repo.join("blobs").join(blob), b"cut").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../blobs/gone", dir.join("config.json")).unwrap();
    assert_eq!(hub.snapshot(REPO, "main"), None, "half a model is no model");
    fetched(&hub).unwrap();
    Checkpoint::open(REPO, &hub).unwrap();
}

#[test]
fn offline_touches_nothing() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let offline = Hub {
        offline: true,
        ..hub(&server, cache.path())
    };
    let error = fetched(&offline).unwrap_err();
    assert!(matches!(error, FetchError::Offline), "{error}");
    assert!(server.requests().is_empty());
    assert!(names(cache.path()).is_empty());
}

#[test]
fn answers_of_the_hub_become_advice() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let get = |repo, revision| {
        fetch(&hub, repo, revision, PATIENCE, &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    let message = get("nobody/nothing", "main");
    assert!(
        message.contains("nobody/nothing") && message.contains("spelling"),
        "{message}"
    );
    let message = get(REPO, "v99");
    assert!(message.contains("v99"), "{message}");
    let message = get("gated/model", "main");
    assert!(
        message.contains("401") && message.contains("HF_TOKEN"),
        "{message}"
    );
}

#[test]
fn a_token_opens_a_gated_repository() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub {
        token: Some("open sesame".to_string()),
        ..hub(&server, cache.path())
    };
    fetch(&hub, "gated/model", "main", PATIENCE, &mut |_| {}).unwrap();
}

#[test]
fn a_hub_that_is_not_there_is_unreachable() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let hub = Hub {
        endpoint: format!("http://127.0.0.1:{port}"),
        ..hub(&server, cache.path())
    };
    let error = fetched(&hub).unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
}

#[test]
fn a_repository_without_weights_is_no_model() {
    for missing in ["config.json", "model.safetensors"] {
        let server = HubServer::start(Repository::safetensors().without(missing));
        let cache = tempfile::tempdir().unwrap();
        let error = fetched(&hub(&server, cache.path())).unwrap_err();
        assert!(matches!(error, FetchError::NotAModel { .. }), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[test]
fn an_etag_that_is_no_checksum_is_refused() {
    let server = HubServer::start(Repository::safetensors());
    server.fault("config.json", Fault::StrangeEtag);
    let cache = tempfile::tempdir().unwrap();
    let error = fetched(&hub(&server, cache.path())).unwrap_err();
    assert!(matches!(error, FetchError::Unverifiable { .. }), "{error}");
}

/// A commit identifies the files, so it needs no reference.
#[test]
fn a_commit_is_a_revision_too() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    fetch(&hub, REPO, COMMIT, PATIENCE, &mut |_| {}).unwrap();
    let name = format!("ankh3-large@{COMMIT}");
    assert!(ModelRef::parse(&name).unwrap().resolve(&hub).is_ok());
    assert!(
        ModelRef::parse("ankh3-large")
            .unwrap()
            .resolve(&hub)
            .is_err()
    );
}
