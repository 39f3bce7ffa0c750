//! The certificate authorities that requests trust: Mozilla's list, which is part of this program,
//! and those that an administrator or the user adds, as a proxy that opens TLS needs.
//!
//! The added ones are those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, else the system's store, and
//! those of `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE`.

use std::ffi::OsString;
use std::path::PathBuf;

use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use ureq::tls::{Certificate, RootCerts};

/// The variables of Python's requests and of curl, each a file or a folder.
const BUNDLES: [&str; 2] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// The authorities of this process's environment.
pub(super) fn authorities() -> RootCerts {
    let mut loaded = vec![load_native_certs()];
    loaded.extend(bundles(|name| std::env::var_os(name)));
    for error in loaded.iter().flat_map(|found| &found.errors) {
        tracing::warn!(
            "certificate authorities: {error}; see SSL_CERT_FILE, SSL_CERT_DIR and {}",
            BUNDLES.join(", ")
        );
    }
    let own = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
    let added = loaded.iter().flat_map(|found| &found.certs);
    let certificate = |der: &[u8]| Certificate::from_der(der).to_owned();
    own.iter()
        .chain(added)
        .map(|der| certificate(der))
        .collect::<Vec<_>>()
        .into()
}

fn bundles(variable: impl Fn(&str) -> Option<OsString>) -> impl Iterator<Item = CertificateResult> {
    let named = BUNDLES.into_iter().filter_map(variable);
    named.filter(|value| !value.is_empty()).map(|value| {
        let path = PathBuf::from(value);
        if path.is_dir() {
            load_certs_from_paths(None, Some(&path))
        } else {
            load_certs_from_paths(Some(&path), None)
        }
    })
}
