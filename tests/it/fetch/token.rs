use ankh3::checkpoint::Hub;
use ankh3::checkpoint::fetch::{FetchError, fetch};

use super::hub_server::{HubServer, Repository, Request, Script};
use super::{PATIENCE, REPO, command, fetched, hub};

const BEARER: &str = "Bearer open sesame";

fn with_token(server: &HubServer, cache: &std::path::Path) -> Hub {
    Hub {
        token: Some("open sesame".to_string()),
        ..hub(server, cache)
    }
}

fn tokens(requests: &[Request]) -> Vec<Option<&str>> {
    requests
        .iter()
        .map(|request| request.token.as_deref())
        .collect()
}

/// The list of files, the size and checksum of a file, and the file itself.
#[test]
fn a_redirect_to_another_port_or_host_carries_no_token() {
    for part in ["/api/", "config.json", "model.safetensors", "/storage/"] {
        for host in ["127.0.0.1", "localhost"] {
            let home = HubServer::start(Repository::safetensors());
            let other = HubServer::start(Repository::safetensors());
            let target = format!("http://{host}:{}", other.port());
            home.script(part, Script::MovedTo(target));
            let cache = tempfile::tempdir().unwrap();
            fetched(&with_token(&home, cache.path())).unwrap();
            assert!(
                !other.requests().is_empty(),
                "{part}: nothing was redirected"
            );
            assert!(
                tokens(&other.requests()).iter().all(Option::is_none),
                "{part}: the token went to {host}"
            );
            assert!(
                tokens(&home.requests()).contains(&Some(BEARER)),
                "{part}: the hub got no token"
            );
        }
    }
}

#[test]
fn the_hub_gets_the_token_after_a_redirect_of_its_own() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let hub = with_token(&server, cache.path());
    fetch(&hub, "gated/model", "main", PATIENCE, &mut |_| {}).unwrap();
    let requests = server.requests();
    assert!(requests.iter().any(Request::is_storage));
    assert!(tokens(&requests).iter().all(|token| *token == Some(BEARER)));
}

/// Once a redirect has left the hub, a way back to the hub is not the user's request any more.
#[test]
fn a_redirect_back_to_the_hub_carries_no_token() {
    let home = HubServer::start(Repository::safetensors());
    let other = HubServer::start(Repository::safetensors());
    home.script("/resolve/", Script::MovedTo(other.endpoint()));
    let back = format!("{}/stolen", home.endpoint());
    other.script("/resolve/", Script::MovedTo(back));
    let cache = tempfile::tempdir().unwrap();
    fetched(&with_token(&home, cache.path())).unwrap_err();
    let stolen = |request: &Request| request.path.starts_with("/stolen");
    let requests = home.requests();
    let mut after = requests.iter().filter(|request| stolen(request)).peekable();
    assert!(after.peek().is_some());
    assert!(after.all(|request| request.token.is_none()));
}

#[test]
fn a_token_with_a_line_end_is_sent_without_it() {
    for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        let server = HubServer::start(Repository::safetensors());
        let cache = tempfile::tempdir().unwrap();
        let output = command(&server.endpoint(), cache.path())
            .env(variable, " open sesame\r\n")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(
            tokens(&server.requests()).contains(&Some(BEARER)),
            "{variable}"
        );
    }
}

#[test]
fn an_endpoint_that_is_no_address_and_a_broken_token_are_named() {
    let server = HubServer::start(Repository::safetensors());
    let cache = tempfile::tempdir().unwrap();
    let endpoints = [
        "",
        "huggingface.co",
        "localhost:8080",
        "ftp://hub.org",
        "http://a b.org",
    ];
    for endpoint in endpoints
        .into_iter()
        .chain(["https://", "http:/hub.org", "hub.org/https://x"])
    {
        let hub = Hub {
            endpoint: endpoint.to_string(),
            ..hub(&server, cache.path())
        };
        let message = fetch(&hub, REPO, "main", PATIENCE, &mut |_| {})
            .unwrap_err()
            .to_string();
        let named = format!("HF_ENDPOINT is `{endpoint}`");
        assert!(message.contains(&named), "{message}");
    }
    let hub = Hub {
        token: Some("a\u{7}b".to_string()),
        ..hub(&server, cache.path())
    };
    let error = fetched(&hub).unwrap_err();
    assert!(matches!(error, FetchError::Token), "{error}");
    assert!(server.requests().is_empty());
}
