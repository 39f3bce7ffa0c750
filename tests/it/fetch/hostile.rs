use std::time::{Duration, Instant};

use ankh3::checkpoint::fetch::FetchError;

use super::hub_server::{Fault, HubServer, Repository, Script};
use super::{PATIENCE, fetched, hub};

/// Far more than the tests' patience, for a busy machine.
const BOUND: Duration = Duration::from_secs(40);

fn answer(head: &str) -> Script {
    Script::Always(format!(
        "HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ))
}

/// The error of a fetch that must end, and the number of requests.
fn ends(server: &HubServer) -> (FetchError, usize) {
    let cache = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let error = fetched(&hub(server, cache.path())).unwrap_err();
    assert!(
        begin.elapsed() < BOUND,
        "{error} after {:?}",
        begin.elapsed()
    );
    (error, server.requests().len())
}

#[test]
fn senseless_redirects_are_errors_at_once() {
    let table = [
        ("302 Found", "names no `Location`"),
        ("302 Found\r\nLocation: SAME", "redirects to itself"),
        ("307 Moved\r\nLocation: SAMEx", "more than 10 times"),
        (
            "308 Moved\r\nLocation: file:///etc/passwd",
            "no address of http",
        ),
        ("301 Moved\r\nLocation: http://a b/", "no address of http"),
        ("303 See\r\nLocation: \u{e4}", "Location"),
    ];
    for part in ["/api/", "config.json", "/storage/"] {
        for (head, message) in table {
            let server = HubServer::start(Repository::safetensors());
            server.script(part, answer(head));
            let (error, requests) = ends(&server);
            assert!(
                matches!(error, FetchError::Redirect { .. }),
                "{part}: {error}"
            );
            assert!(error.to_string().contains(message), "{part}: {error}");
            assert!(requests < 30, "{part}, {head}: {requests} requests");
        }
    }
}

#[test]
fn a_silent_server_is_given_up() {
    for part in ["/api/", "config.json", "/storage/"] {
        let server = HubServer::start(Repository::safetensors());
        server.script(part, Script::Silence);
        let (error, requests) = ends(&server);
        assert!(
            error.to_string().contains("no answer within 0.7 s"),
            "{error}"
        );
        assert!(requests < 20, "{part}: {requests} requests");
    }
}

#[test]
fn a_transfer_that_halts_is_given_up() {
    let server = HubServer::start(Repository::safetensors());
    server.fault("model.safetensors", Fault::HaltInTheMiddle);
    let (error, _) = ends(&server);
    assert!(matches!(error, FetchError::Broken { .. }), "{error}");
}

/// With whatever range is asked for, the same or the next few bytes come.
#[test]
fn a_server_that_sends_little_is_not_asked_for_ever() {
    for fault in [Fault::RepeatTheBeginning, Fault::HundredBytes] {
        let server = HubServer::start(Repository::safetensors());
        server.fault("model.safetensors", fault);
        let (error, requests) = ends(&server);
        assert!(
            matches!(error, FetchError::Broken { .. }),
            "{fault:?}: {error}"
        );
        assert!(requests < 40, "{fault:?}: {requests} requests");
    }
}

#[test]
fn nonsense_is_no_answer() {
    let page = "200 OK\r\nContent-Type: text/html\r\n\r\n<html>log in</html>";
    let texts = [
        format!("HTTP/1.1 {page}"),
        "HTTP/1.1 200 OK\r\n\r\n{\"sha\": \"../../x\", \"siblings\": []}".to_string(),
        "HTTP/1.1 200 OK\r\n\r\n{\"sha\": 7}".to_string(),
        format!("HTTP/1.1 200 OK\r\n\r\n{}", "[".repeat(100_000)),
        "SSH-2.0-OpenSSH_9.6\r\n".to_string(),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000)),
    ];
    for text in texts {
        let server = HubServer::start(Repository::safetensors());
        server.script("/api/", Script::Always(text.clone()));
        let (error, _) = ends(&server);
        let start: String = text.chars().take(60).collect();
        assert!(
            matches!(error, FetchError::Unreachable { .. }),
            "{start}: {error}"
        );
    }
}

/// The list of files, the size and checksum of a file, and the file itself.
#[test]
fn a_busy_server_is_asked_again_after_the_pause_that_it_asks_for() {
    for part in ["/api/", "config.json", "/storage/"] {
        for status in [429, 500, 503] {
            let server = HubServer::start(Repository::safetensors());
            let text = format!(
                "HTTP/1.1 {status} Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            server.script(part, Script::Times(1, text));
            let cache = tempfile::tempdir().unwrap();
            let begin = Instant::now();
            fetched(&hub(&server, cache.path())).unwrap();
            assert!(begin.elapsed() > Duration::from_secs(1), "{part}, {status}");
        }
    }
}

#[test]
fn a_server_that_stays_busy_is_an_error() {
    let server = HubServer::start(Repository::safetensors());
    server.script("/api/", answer("503 Busy"));
    let (error, requests) = ends(&server);
    assert!(
        matches!(error, FetchError::Busy { status: 503, .. }),
        "{error}"
    );
    assert_eq!(requests, PATIENCE.attempts as usize);
    // Longer than anyone wants to wait.
    let server = HubServer::start(Repository::safetensors());
    server.script("/api/", answer("429 Busy\r\nRetry-After: 86400"));
    let (error, requests) = ends(&server);
    assert!(error.to_string().contains("a pause of 86400 s"), "{error}");
    assert_eq!(requests, 1);
}

#[test]
fn a_mirror_may_leave_out_ranges_redirects_and_commits() {
    let server = HubServer::start(Repository::safetensors());
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        server.fault(file, Fault::PlainMirror);
    }
    let cache = tempfile::tempdir().unwrap();
    let fetched = fetched(&hub(&server, cache.path())).unwrap();
    let content = std::fs::read(fetched.dir.join("model.safetensors")).unwrap();
    assert_eq!(content, server.repository().file("model.safetensors"));
}
