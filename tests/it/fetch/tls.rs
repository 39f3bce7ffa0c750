use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::command;
use super::hub_server::{HubServer, Repository};

fn data(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    folder.join(name)
}

/// The port of a server that opens TLS and passes each request on to `hub`.
fn in_front_of(hub: &HubServer) -> u16 {
    let certificate = CertificateDer::from_pem_file(data("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = hub.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            // A client that does not trust the certificate ends the connection.
            std::thread::spawn(move || pass_on(stream, config, behind));
        }
    });
    port
}

fn pass_on(stream: TcpStream, config: Arc<ServerConfig>, port: u16) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).unwrap();
    let mut client = StreamOwned::new(connection, stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        request.extend_from_slice(&byte);
    }
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    server.write_all(&request)?;
    std::io::copy(&mut server, &mut client)?;
    client.conn.send_close_notify();
    client.flush()
}

#[test]
fn a_certificate_authority_of_ones_own_is_trusted_when_it_is_named() {
    let hub = HubServer::start(Repository::safetensors());
    let endpoint = format!("https://localhost:{}", in_front_of(&hub));
    let variables = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(data("authority.pem"), folder.path().join("authority.pem")).unwrap();
    let run = |name: Option<&str>, value: PathBuf| {
        let cache = tempfile::tempdir().unwrap();
        let mut command = command(&endpoint, cache.path());
        for other in variables.iter().chain(&["SSL_CERT_DIR"]) {
            command.env_remove(other);
        }
        command.envs(name.map(|name| (name, value)));
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for name in variables {
        let (code, messages) = run(Some(name), data("authority.pem"));
        assert_eq!(code, Some(0), "{name}: {messages}");
    }
    let (code, messages) = run(Some("REQUESTS_CA_BUNDLE"), folder.path().to_path_buf());
    assert_eq!(code, Some(0), "a folder: {messages}");
    for (name, value) in [
        (None, PathBuf::new()),
        (Some("SSL_CERT_FILE"), PathBuf::from("/no/such/file.pem")),
    ] {
        let (code, messages) = run(name, value);
        assert_eq!(code, Some(1), "{messages}");
        assert!(
            messages.contains("certificate is not trusted"),
            "{messages}"
        );
        assert!(messages.contains("SSL_CERT_FILE"), "{messages}");
        assert!(!messages.contains("trying again"), "{messages}");
    }
}
