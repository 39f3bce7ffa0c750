//! Addresses: the server that an address belongs to, and the target of a redirect.

use ureq::http::Uri;
use ureq::http::uri::Authority;

/// The server of an address: two addresses with the same origin are one server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerOrigin {
    scheme: String,
    host: String,
    port: u16,
}

impl ServerOrigin {
    /// `None` for an address that is not `http://HOST…` or `https://HOST…`.
    pub(super) fn of(address: &Uri) -> Option<Self> {
        let scheme = address.scheme_str()?.to_ascii_lowercase();
        let usual_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = address.host().filter(|host| !host.is_empty())?;
        Some(ServerOrigin {
            port: address.port_u16().unwrap_or(usual_port),
            host: host.to_ascii_lowercase(),
            scheme,
        })
    }
}

/// The address that a `Location` header of an answer from `base` names (RFC 3986, section 4.2);
/// `None` where it names no server of http or https.
pub(super) fn redirected(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.trim();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let has_scheme = |(scheme, _): (&str, &str)| !scheme.contains(['/', '?', '#']);
    let absolute = if location.split_once(':').is_some_and(has_scheme) {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let address: Uri = absolute.parse().ok()?;
    ServerOrigin::of(&address).map(|_| address)
}

/// An address for messages: without the user's name and without the query, which may contain a
/// signature that gives access.
pub(super) fn shown(address: &Uri) -> String {
    let authority = address.authority().map_or("", Authority::as_str);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!(
        "{}://{host}{}",
        address.scheme_str().unwrap_or_default(),
        address.path()
    )
}

/// The name of a file as part of an address.
pub(super) fn encoded(name: &str) -> String {
    use std::fmt::Write;
    name.bytes().fold(String::new(), |mut text, byte| {
        let _ = if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            write!(text, "{}", byte as char)
        } else {
            write!(text, "%{byte:02X}")
        };
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = ServerOrigin::of(&address("https://hub.org/a"));
        let table = [
            ("https://hub.org", true),
            ("https://HUB.org:443/b?c", true),
            ("https://name@hub.org/b", true),
            ("http://hub.org/a", false),
            ("http://hub.org:443/a", false),
            ("https://hub.org:8443/a", false),
            ("https://cdn.hub.org/a", false),
            ("https://hub.org.evil.org/a", false),
            ("https://hub.org@evil.org/a", false),
            ("ftp://hub.org/a", false),
            ("/a", false),
        ];
        for (text, same) in table {
            assert_eq!(ServerOrigin::of(&address(text)) == hub, same, "{text}");
        }
    }

    #[test]
    fn a_location_may_be_relative() {
        let base = address("https://hub.org:8443/owner/m/resolve/1/file?download=1");
        let table = [
            (
                "https://cdn.org/f?sig=a%2Fb",
                Some("https://cdn.org/f?sig=a%2Fb"),
            ),
            ("//cdn.org/f", Some("https://cdn.org/f")),
            (
                "/new/m/resolve/1/file",
                Some("https://hub.org:8443/new/m/resolve/1/file"),
            ),
            ("other:8", None),
            (
                "other",
                Some("https://hub.org:8443/owner/m/resolve/1/other"),
            ),
            ("?b", Some("https://hub.org:8443/owner/m/resolve/1/file?b")),
            ("/f#part", Some("https://hub.org:8443/f")),
            ("ftp://cdn.org/f", None),
            ("file:///etc/passwd", None),
            ("https://", None),
            ("http://a b/", None),
        ];
        for (location, expected) in table {
            let found = redirected(&base, location).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn messages_do_not_repeat_secrets() {
        let signed = address("https://me:secret@cdn.org/f?X-Amz-Signature=abc");
        assert_eq!(shown(&signed), "https://cdn.org/f");
        assert_eq!(encoded("a b?#%.bin"), "a%20b%3F%23%25.bin");
    }
}
