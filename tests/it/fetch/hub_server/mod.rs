//! The part of the hub's protocol that `fetch` uses, on loopback:
//!
//! - `GET /api/models/{repo}/revision/{revision}`: the commit and the names of the files;
//! - `GET /{repo}/resolve/{commit}/{file}`: small files with their git blob id as `ETag`, `.bin`
//!   and `.safetensors` as a redirect that carries `x-linked-etag` (SHA-256), as the real hub does
//!   for its large files;
//! - `GET /storage/{file}`: the bytes, by range.

mod repository;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

pub use self::repository::Repository;
use self::repository::is_large;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Longer than any client of the tests waits.
const LONG: Duration = Duration::from_secs(60);

/// A failure in the transfer of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The connection closes in the middle, the first time.
    BreakOnce,
    /// The connection closes in the middle, and later requests for ranges get the whole file.
    BreakOnceThenIgnoreRange,
    /// Every connection closes before the first byte.
    BreakAtOnce,
    FlipByte,
    AppendByte,
    StrangeEtag,
    /// The storage host answers 403, as for an expired link.
    Refuse,
    Slow,
    /// Half of the file arrives, and then nothing.
    HaltInTheMiddle,
    /// Each answer is the first 100 bytes.
    RepeatTheBeginning,
    /// Each answer is the next 100 bytes.
    HundredBytes,
    /// A mirror that knows no redirects, no ranges and no commits.
    PlainMirror,
}

/// What the server answers to a request instead of its file.
#[derive(Clone, Debug)]
pub enum Script {
    /// This text, always.
    Always(String),
    /// This text, so many times.
    Times(usize, String),
    /// The same path at another address.
    MovedTo(String),
    /// Nothing.
    Silence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub token: Option<String>,
    range: Option<usize>,
}

impl Request {
    pub fn is_storage(&self) -> bool {
        self.path.starts_with("/storage/")
    }

    pub fn resumed(&self) -> bool {
        self.is_storage() && self.range.is_some_and(|start| start > 0)
    }
}

/// A running server; its thread ends with the test process.
pub struct HubServer {
    port: u16,
    state: Arc<State>,
}

struct State {
    repository: Repository,
    commit: String,
    faults: Mutex<BTreeMap<String, Fault>>,
    scripts: Mutex<Vec<(String, Script)>>,
    requests: Mutex<Vec<Request>>,
    /// Bytes of each file that were sent for transfers.
    sent: Mutex<BTreeMap<String, usize>>,
}

impl HubServer {
    pub fn start(repository: Repository) -> Self {
        HubServer::start_at(repository, COMMIT)
    }

    pub fn start_at(repository: Repository, commit: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            repository,
            commit: commit.to_string(),
            faults: Mutex::default(),
            scripts: Mutex::default(),
            requests: Mutex::default(),
            sent: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // A client that ends early is not an error of the server.
                    let _ = state.serve(&stream, port);
                });
            }
        });
        HubServer { port, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Replaces the answers to requests whose path contains `part`; `None` restores them.
    pub fn script(&self, part: &str, script: impl Into<Option<Script>>) {
        let mut scripts = self.state.scripts.lock().unwrap();
        scripts.retain(|(old, _)| old != part);
        scripts.extend(script.into().map(|script| (part.to_string(), script)));
    }

    /// Bytes of a file that were sent for transfers.
    pub fn sent(&self, file: &str) -> usize {
        self.state
            .sent
            .lock()
            .unwrap()
            .get(file)
            .copied()
            .unwrap_or_default()
    }

    pub fn repository(&self) -> &Repository {
        &self.state.repository
    }

    pub fn fault(&self, file: &str, fault: Fault) {
        self.state
            .faults
            .lock()
            .unwrap()
            .insert(file.to_string(), fault);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl State {
    fn serve(&self, stream: &TcpStream, port: u16) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let path = first.split(' ').nth(1).unwrap_or_default().to_string();
        let mut range = None;
        let mut token = None;
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "range" => range = first_byte(value),
                "authorization" => token = Some(value.to_string()),
                _ => {}
            }
        }
        self.requests.lock().unwrap().push(Request {
            path: path.clone(),
            token: token.clone(),
            range,
        });
        if let Some(script) = self.script_of(&path) {
            return follow(stream, &script, &path);
        }
        if path.contains("gated/model") && token.as_deref() != Some("Bearer open sesame") {
            return head(stream, "401 Unauthorized", &[], 0);
        }
        if let Some(rest) = path.strip_prefix("/api/models/") {
            return self.info(stream, rest);
        }
        if let Some(file) = path.strip_prefix("/storage/") {
            return self.content(stream, file, range, &[]);
        }
        match path.split_once(&format!("/resolve/{}/", self.commit)) {
            Some((_, file)) if self.repository.files.contains_key(file) => {
                self.resolve(stream, file, range, port)
            }
            _ => head(stream, "404 Not Found", &[], 0),
        }
    }

    fn info(&self, mut stream: &TcpStream, rest: &str) -> std::io::Result<()> {
        let known = [
            "ElnaggarLab/ankh3-large",
            "ElnaggarLab/ankh-base",
            "gated/model",
        ]
        .iter()
        .any(|repo| {
            ["main", &self.commit]
                .iter()
                .any(|revision| rest == format!("{repo}/revision/{revision}"))
        });
        if !known {
            return head(stream, "404 Not Found", &[], 0);
        }
        let siblings: Vec<_> = self
            .repository
            .files
            .keys()
            .map(|name| json!({"rfilename": name}))
            .collect();
        let body = json!({"sha": self.commit, "siblings": siblings, "gated": false}).to_string();
        head(
            stream,
            "200 OK",
            &["Content-Type: application/json".to_string()],
            body.len(),
        )?;
        stream.write_all(body.as_bytes())
    }

    fn resolve(
        &self,
        stream: &TcpStream,
        file: &str,
        range: Option<usize>,
        port: u16,
    ) -> std::io::Result<()> {
        let blob = match self.fault_of(file) {
            Fault::StrangeEtag => "abc".to_string(),
            _ => self.repository.blob(file),
        };
        let commit = format!("X-Repo-Commit: {}", self.commit);
        if self.fault_of(file) == Fault::PlainMirror {
            return self.content(stream, file, None, &[format!("ETag: \"{blob}\"")]);
        }
        if is_large(file) {
            let headers = [
                commit,
                format!("X-Linked-Etag: \"{blob}\""),
                format!("Location: http://127.0.0.1:{port}/storage/{file}"),
            ];
            return head(stream, "302 Found", &headers, 0);
        }
        self.content(
            stream,
            file,
            range,
            &[commit, format!("ETag: W/\"{blob}\"")],
        )
    }

    fn content(
        &self,
        mut stream: &TcpStream,
        file: &str,
        range: Option<usize>,
        headers: &[String],
    ) -> std::io::Result<()> {
        let content = self.repository.file(file);
        // `fetch` asks for byte 0 alone to learn the size; only a transfer goes wrong.
        if range == Some(0) {
            let range = format!("Content-Range: bytes 0-0/{}", content.len());
            head(
                stream,
                "206 Partial Content",
                &[headers, &[range]].concat(),
                1,
            )?;
            return stream.write_all(&content[..1]);
        }
        let fault = self.fault_of(file);
        if fault == Fault::Refuse {
            return head(stream, "403 Forbidden", &[], 0);
        }
        let start = match fault {
            Fault::BreakOnceThenIgnoreRange => 0,
            _ => range.unwrap_or(0),
        };
        let mut body = content[start..].to_vec();
        match fault {
            Fault::FlipByte => body[content.len() / 2] ^= 1,
            Fault::AppendByte => body.push(0),
            Fault::Slow => std::thread::sleep(Duration::from_millis(50)),
            Fault::HundredBytes => body.truncate(100),
            _ => {}
        }
        let mut headers = headers.to_vec();
        if fault == Fault::RepeatTheBeginning {
            body = content[..100].to_vec();
            headers.push(format!("Content-Range: bytes 0-99/{}", content.len()));
        }
        let status = if start > 0 {
            "206 Partial Content"
        } else {
            "200 OK"
        };
        head(stream, status, &headers, body.len())?;
        let sent = match fault {
            Fault::BreakAtOnce => 0,
            Fault::BreakOnce | Fault::BreakOnceThenIgnoreRange if range.is_none() => body.len() / 2,
            Fault::HaltInTheMiddle => body.len() / 2,
            _ => body.len(),
        };
        *self
            .sent
            .lock()
            .unwrap()
            .entry(file.to_string())
            .or_default() += sent;
        stream.write_all(&body[..sent])?;
        if fault == Fault::HaltInTheMiddle {
            std::thread::sleep(LONG);
        }
        Ok(())
    }

    /// The script of a path; a script of so many times is used up.
    fn script_of(&self, path: &str) -> Option<Script> {
        let mut scripts = self.scripts.lock().unwrap();
        let (_, script) = scripts.iter_mut().find(|(part, _)| path.contains(part))?;
        match script {
            Script::Times(0, _) => None,
            Script::Times(left, _) => {
                *left -= 1;
                Some(script.clone())
            }
            _ => Some(script.clone()),
        }
    }

    fn fault_of(&self, file: &str) -> Fault {
        self.faults
            .lock()
            .unwrap()
            .get(file)
            .copied()
            .unwrap_or(Fault::None)
    }
}

fn follow(mut stream: &TcpStream, script: &Script, path: &str) -> std::io::Result<()> {
    match script {
        Script::Always(text) | Script::Times(_, text) => {
            stream.write_all(text.replace("SAME", path).as_bytes())
        }
        Script::MovedTo(base) => head(stream, "307 Moved", &[format!("Location: {base}{path}")], 0),
        Script::Silence => {
            std::thread::sleep(LONG);
            Ok(())
        }
    }
}

/// Parses the range `bytes=START-` or `bytes=START-END`.
fn first_byte(range: &str) -> Option<usize> {
    range
        .strip_prefix("bytes=")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

fn head(
    mut stream: &TcpStream,
    status: &str,
    headers: &[String],
    length: usize,
) -> std::io::Result<()> {
    let mut text =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    for header in headers {
        text += header;
        text += "\r\n";
    }
    stream.write_all((text + "\r\n").as_bytes())
}
