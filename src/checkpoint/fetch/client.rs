//! The HTTP client of every request to the hub: redirects, the token, limits of time, and new
//! attempts.
//!
//! Redirects are followed here and not by ureq, because the token must reach the hub alone: it is
//! sent to the origin of `HF_ENDPOINT` (scheme, host and port), and to no server after a redirect
//! to elsewhere.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use ureq::config::Config;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderValue, Response, Uri};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, BodyReader};

use super::address::{ServerOrigin, redirected, shown};
use super::error::FetchError;
use super::roots::authorities;
use crate::checkpoint::Hub;

/// Redirects of one request.
const REDIRECTS: usize = 10;

/// The largest answer that is no file of a model.
const SMALL_ANSWER: usize = 16 << 20;

/// The number of attempts of a request, the pauses between them, and how long to wait for a server.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts of a request, or of a transfer that makes no progress.
    pub attempts: u32,
    /// The pause before the second attempt; each further pause is twice as long.
    pub pause: Duration,
    /// The longest pause that a server may ask for with `Retry-After`.
    pub longest_pause: Duration,
    /// The longest wait for a connection.
    pub connect: Duration,
    /// The longest wait for the first byte of an answer.
    pub first_byte: Duration,
    /// The longest wait for the next bytes. A slow transfer may take any time.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            attempts: 5,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
            connect: Duration::from_secs(30),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(120),
        }
    }
}

/// Failed attempts of one request or transfer.
pub(super) struct Attempts {
    patience: Patience,
    failed: u32,
}

impl Attempts {
    pub(super) fn new(patience: Patience) -> Self {
        Attempts {
            patience,
            failed: 0,
        }
    }

    /// Forgets the failures after progress.
    pub(super) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next attempt, or gives the error back where no attempt is left.
    pub(super) fn failed_by(&mut self, error: FetchError) -> Result<(), FetchError> {
        self.failed += 1;
        if !error.is_passing() || self.failed >= self.patience.attempts {
            return Err(error);
        }
        let usual = self.patience.pause * 2_u32.pow(self.failed.min(6) - 1);
        let pause = usual.max(error.asked_pause().unwrap_or_default());
        if pause > self.patience.longest_pause {
            return Err(error);
        }
        tracing::warn!("{error}; trying again in {} s", pause.as_secs_f64().ceil());
        std::thread::sleep(pause);
        Ok(())
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything from a byte on.
    From(u64),
    /// Size and checksum of a file, which the hub often knows before a redirect to its storage.
    Metadata,
}

impl Wanted {
    fn range(self) -> Option<String> {
        match self {
            Wanted::From(0) => None,
            Wanted::From(start) => Some(format!("bytes={start}-")),
            Wanted::Metadata => Some("bytes=0-0".to_string()),
        }
    }
}

/// A successful answer.
pub(super) struct HubAnswer {
    pub status: u16,
    pub headers: HeaderMap,
    /// `X-Linked-Etag`: the checksum of a file in the storage.
    pub linked_etag: Option<String>,
    /// `X-Linked-Size`: the size of a file in the storage.
    pub linked_size: Option<u64>,
    body: Body,
}

impl HubAnswer {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    pub(super) fn into_reader(self) -> BodyReader<'static> {
        self.body.into_reader()
    }
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum RequestFailure {
    /// An answer that another attempt would not change.
    Status {
        status: u16,
        /// Whether the hub itself gave the answer, and not its storage.
        by_hub: bool,
        url: String,
    },
    Error(FetchError),
}

impl From<FetchError> for RequestFailure {
    fn from(error: FetchError) -> Self {
        RequestFailure::Error(error)
    }
}

/// A client for one hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    origin: ServerOrigin,
    token: Option<HeaderValue>,
    pub(super) patience: Patience,
}

impl Client {
    /// # Errors
    /// An endpoint that is no address, and a token that no header can hold.
    pub(super) fn new(hub: &Hub, patience: Patience) -> Result<Self, FetchError> {
        let origin = hub
            .endpoint
            .parse()
            .ok()
            .and_then(|uri| ServerOrigin::of(&uri));
        let origin = origin.ok_or_else(|| FetchError::Endpoint(hub.endpoint.clone()))?;
        let token = hub.token.as_deref().map(bearer).transpose()?;
        Ok(Client {
            agent: settings(patience).into(),
            endpoint: hub.endpoint.clone(),
            origin,
            token,
            patience,
        })
    }

    /// The hub's address followed by `path`, which begins with a slash.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint)
    }

    /// The answer of the first successful attempt.
    pub(super) fn get(&self, url: &str, wanted: Wanted) -> Result<HubAnswer, RequestFailure> {
        self.patiently(|| self.get_once(url, wanted))
    }

    /// The whole body of an answer that is not a file of a model.
    pub(super) fn small_body(&self, url: &str) -> Result<Vec<u8>, RequestFailure> {
        self.patiently(|| {
            let answer = self.get_once(url, Wanted::From(0))?;
            Ok(self.read_small(url, answer)?)
        })
    }

    fn patiently<T>(
        &self,
        attempt: impl Fn() -> Result<T, RequestFailure>,
    ) -> Result<T, RequestFailure> {
        let mut attempts = Attempts::new(self.patience);
        loop {
            match attempt() {
                Err(RequestFailure::Error(error)) => attempts.failed_by(error)?,
                other => return other,
            }
        }
    }

    /// One request and its redirects.
    pub(super) fn get_once(&self, url: &str, wanted: Wanted) -> Result<HubAnswer, RequestFailure> {
        let mut address: Uri = url.parse().map_err(|_| {
            let message = "it is not an address".to_string();
            unreachable(url.to_string(), message)
        })?;
        let mut at_hub = true;
        let (mut linked_etag, mut linked_size) = (None, None);
        for _ in 0..=REDIRECTS {
            at_hub &= ServerOrigin::of(&address).as_ref() == Some(&self.origin);
            let response = self.send(&address, at_hub, wanted)?;
            let (parts, body) = response.into_parts();
            let text = |name: &str| parts.headers.get(name)?.to_str().ok();
            linked_etag = linked_etag.or_else(|| text("x-linked-etag").map(str::to_string));
            linked_size = linked_size.or_else(|| text("x-linked-size")?.trim().parse().ok());
            let known = linked_etag.is_some() && linked_size.is_some();
            if parts.status.is_redirection() && !(wanted == Wanted::Metadata && known) {
                address = target(&address, &parts.headers)?;
                continue;
            }
            let answer = HubAnswer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                linked_etag,
                linked_size,
                body,
            };
            return judged(answer, at_hub, &address);
        }
        let message = format!("it was redirected more than {REDIRECTS} times");
        Err(FetchError::Redirect {
            url: shown(&address),
            message,
        }
        .into())
    }

    fn send(
        &self,
        address: &Uri,
        at_hub: bool,
        wanted: Wanted,
    ) -> Result<Response<Body>, FetchError> {
        let mut request = self.agent.get(address).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = wanted.range() {
            request = request.header(RANGE, range);
        }
        if let Some(token) = self.token.as_ref().filter(|_| at_hub) {
            request = request.header(AUTHORIZATION, token);
        }
        let failed = |error| FetchError::network(shown(address), &error, self.patience);
        request.call().map_err(failed)
    }

    /// Reads the body within limits of size and time.
    fn read_small(&self, url: &str, answer: HubAnswer) -> Result<Vec<u8>, FetchError> {
        let url = || url.to_string();
        let limit = self.patience.first_byte + self.patience.idle;
        let begin = Instant::now();
        let mut body = answer.into_reader();
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match body.read(&mut buffer) {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(unreachable(url(), error.to_string())),
            }
            if bytes.len() > SMALL_ANSWER {
                let message = format!("its answer is longer than {} MiB", SMALL_ANSWER >> 20);
                return Err(unreachable(url(), message));
            }
            if begin.elapsed() > limit {
                let message = format!("its answer takes longer than {} s", limit.as_secs_f64());
                return Err(unreachable(url(), message));
            }
        }
    }
}

fn settings(patience: Patience) -> Config {
    Agent::config_builder()
        .user_agent(concat!("ankh3/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(authorities()).build())
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.first_byte))
        .timeout_per_read(Some(patience.idle))
        .build()
}

fn bearer(token: &str) -> Result<HeaderValue, FetchError> {
    let mut value =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| FetchError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(url: String, message: String) -> FetchError {
    FetchError::Unreachable { url, message }
}

fn target(address: &Uri, headers: &HeaderMap) -> Result<Uri, FetchError> {
    let failed = |message: &str| FetchError::Redirect {
        url: shown(address),
        message: message.to_string(),
    };
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| failed("it redirects, but names no `Location`"))?;
    let next = redirected(address, location)
        .ok_or_else(|| failed("it redirects to something that is no address of http or https"))?;
    if next == *address {
        return Err(failed("it redirects to itself"));
    }
    Ok(next)
}

/// Distinguishes success, answers that may change soon, and answers that will not.
fn judged(answer: HubAnswer, by_hub: bool, address: &Uri) -> Result<HubAnswer, RequestFailure> {
    let (status, url) = (answer.status, shown(address));
    match status {
        200..400 => Ok(answer),
        408 | 429 | 500.. => {
            let asked_pause = retry_after(&answer.headers, SystemTime::now());
            Err(FetchError::Busy {
                url,
                status,
                asked_pause,
            }
            .into())
        }
        _ => Err(RequestFailure::Status {
            status,
            by_hub,
            url,
        }),
    }
}

/// The pause that `Retry-After` asks for, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let table = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Wed, 21 Oct 2015 07:29:30 GMT", Some(90)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ];
        for (text, seconds) in table {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_token_is_a_header_that_logs_hide() {
        let value = bearer("hf_abc").unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer hf_abc");
        assert!(!format!("{value:?}").contains("hf_abc"));
        assert!(matches!(bearer("a\u{1}b"), Err(FetchError::Token)));
    }
}
