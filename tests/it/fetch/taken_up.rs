use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ankh3::checkpoint::fetch::{Event, fetch, prune};
use tempfile::TempDir;

use super::hub_server::{COMMIT, Fault, HubServer, Repository};
use super::{PATIENCE, REPO, blobs, command, fetched, hub, names};

const WEIGHTS: &str = "model.safetensors";

/// The file in transfer of the weights.
fn partial(server: &HubServer, cache: &Path) -> PathBuf {
    let blob = server.repository().blob(WEIGHTS);
    cache.join(format!(
        "models--ElnaggarLab--ankh3-large/blobs/{blob}.ankh3-partial"
    ))
}

/// Fetches with the binary and kills it in the middle of the weights; returns the bytes that are
/// left.
fn killed_in_the_middle(server: &HubServer, cache: &TempDir) -> usize {
    server.fault(WEIGHTS, Fault::HaltInTheMiddle);
    let half = server.repository().file(WEIGHTS).len() / 2;
    let mut child = command(&server.endpoint(), cache.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = partial(server, cache.path());
    let begin = Instant::now();
    while fs::metadata(&file).map_or(0, |found| found.len()) < half as u64 {
        assert!(begin.elapsed() < Duration::from_secs(60), "no bytes arrive");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    server.fault(WEIGHTS, Fault::None);
    half
}

fn weights(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(WEIGHTS)).unwrap()
}

#[test]
fn a_killed_fetch_goes_on_where_it_was() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let half = killed_in_the_middle(&server, &cache);
    let before = server.sent(WEIGHTS);
    let output = command(&server.endpoint(), cache.path()).output().unwrap();
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{messages}");
    assert!(messages.contains("from an earlier run"), "{messages}");
    let content = server.repository().file(WEIGHTS);
    assert_eq!(server.sent(WEIGHTS) - before, content.len() - half);
    let dir = hub(&server, cache.path()).snapshot(REPO, "main").unwrap();
    assert_eq!(weights(&dir), content);
    assert!(blobs(&cache).iter().all(|name| !name.contains("ankh3")));
}

#[test]
fn bytes_of_an_earlier_run_that_are_damaged_are_fetched_again() {
    let server = HubServer::start(Repository::safetensors());
    let content = server.repository().file(WEIGHTS);
    let too_long = vec![7; content.len() + 5];
    for left in [
        b"damaged".to_vec(),
        vec![0; content.len()],
        too_long,
        Vec::new(),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let file = partial(&server, cache.path());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, left).unwrap();
        let fetched = fetched(&hub(&server, cache.path())).unwrap();
        assert_eq!(weights(&fetched.dir), content);
        assert!(!file.exists());
    }
}

#[test]
fn a_file_that_has_changed_begins_anew() {
    let old = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    killed_in_the_middle(&old, &cache);
    let changed = Repository::safetensors().changed(WEIGHTS);
    let new = HubServer::start(changed);
    let hub = hub(&new, cache.path());
    let fetched = fetched(&hub).unwrap();
    let content = new.repository().file(WEIGHTS);
    assert_eq!(weights(&fetched.dir), content);
    assert_eq!(new.sent(WEIGHTS), content.len());
    // The bytes of the old file stay until the user deletes them.
    let left = partial(&old, cache.path());
    let bytes = fs::metadata(&left).unwrap().len();
    let pruned = prune(&hub, Some(REPO)).unwrap();
    assert_eq!((pruned.files, pruned.bytes), (1, bytes));
    assert!(!left.exists());
    assert_eq!(prune(&hub, None).unwrap().files, 0);
}

#[test]
fn jobs_at_once_share_one_transfer() {
    let server = HubServer::start(Repository::safetensors());
    server.fault(WEIGHTS, Fault::Slow);
    let cache = tempfile::tempdir().unwrap();
    let jobs: Vec<_> = (0..3)
        .map(|_| {
            command(&server.endpoint(), cache.path())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for job in jobs {
        let output = job.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let content = server.repository().file(WEIGHTS);
    assert_eq!(server.sent(WEIGHTS), content.len());
    assert!(blobs(&cache).iter().all(|name| !name.contains("ankh3")));
}

#[test]
fn what_dead_processes_left_is_deleted() {
    let server = HubServer::start(Repository::pickled_shards());
    let cache = tempfile::tempdir().unwrap();
    let repo = cache.path().join("models--ElnaggarLab--ankh3-large");
    let converting = repo.join("blobs/.ankh3-dead");
    fs::create_dir_all(&converting).unwrap();
    fs::write(converting.join("lock"), b"").unwrap();
    fs::write(converting.join("model.safetensors"), b"half").unwrap();
    fs::write(repo.join("blobs/.ankh3-dead.incomplete"), b"half").unwrap();
    let mut converted = false;
    let on_event = &mut |event: Event<'_>| converted |= event == Event::Converting;
    fetch(
        &hub(&server, cache.path()),
        REPO,
        "main",
        PATIENCE,
        on_event,
    )
    .unwrap();
    assert!(converted);
    assert!(
        blobs(&cache).iter().all(|name| !name.contains("ankh3")),
        "{:?}",
        blobs(&cache)
    );
}

#[test]
fn pruning_deletes_what_no_revision_uses() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let fetched = fetched(&hub(&server, cache.path())).unwrap();
    let before = blobs(&cache);
    let repo = cache.path().join("models--ElnaggarLab--ankh3-large");
    fs::write(repo.join("blobs/unused"), b"12345").unwrap();
    fs::write(repo.join("blobs/half.incomplete"), b"123").unwrap();
    fs::write(repo.join("blobs/half.ankh3-partial"), b"12").unwrap();
    fs::create_dir_all(repo.join("snapshots").join(COMMIT).join("deep")).unwrap();
    fs::write(repo.join("blobs/deep"), b"used").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../../blobs/deep", fetched.dir.join("deep/file")).unwrap();
    // A file in transfer of a living process.
    let living = repo.join("blobs/living.ankh3-partial");
    let lock = fs::File::create(&living).unwrap();
    lock.lock().unwrap();
    let output = command(&server.endpoint(), cache.path())
        .arg("--prune")
        .output()
        .unwrap();
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{messages}");
    assert!(messages.contains("3 files, 10 bytes"), "{messages}");
    assert!(output.stdout.is_empty());
    drop(lock);
    fs::remove_file(living).unwrap();
    fs::remove_file(repo.join("blobs/deep")).unwrap();
    assert_eq!(names(&repo.join("blobs")), before);
}
