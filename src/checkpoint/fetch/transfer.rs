//! Download of one file from the hub into the cache's blobs, complete and verified or not at all.
//!
//! The file is hashed while it is written, and gets its final name when length and checksum are
//! right. A transfer that broke goes on where it ended, in this run or in the next: the name of the
//! file in transfer contains the checksum, so a file that has changed on the hub begins anew.

use std::io::Read;
use std::path::Path;

use super::Event;
use super::client::{Attempts, Client, HubAnswer, RequestFailure, Wanted};
use super::error::FetchError;
use super::partial::Partial;
use super::remote::RemoteFile;
use crate::checkpoint::checksum::Hasher;

/// A transfer counts as making progress with this many bytes or a hundredth of the file, so that a
/// server that sends little per request is not asked for ever.
const PROGRESS: u64 = 8 << 20;

/// Downloads to `blob`.
pub(super) fn download(
    client: &Client,
    source: &RemoteFile<'_>,
    blob: &Path,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<(), FetchError> {
    let stall = client.patience.idle * client.patience.attempts;
    let opened = Partial::open(blob, source.size, source.name, stall);
    let Some(partial) = opened.map_err(FetchError::io(blob))? else {
        return Ok(());
    };
    let mut transfer = Transfer {
        client,
        source,
        hasher: source.checksum.hasher(source.size),
        partial,
        position: 0,
        asks_for_ranges: true,
    };
    transfer.take_up()?;
    let kept = transfer.position;
    on_event(Event::Start {
        file: source.name,
        size: source.size,
        kept,
    });
    let result = transfer.complete(kept, on_event);
    // Without any byte there is nothing to go on with.
    if transfer.position == 0 && result.is_err() {
        let path = transfer.partial.path().to_path_buf();
        transfer.partial.delete().map_err(FetchError::io(path))?;
        return result;
    }
    result?;
    transfer.partial.place(blob).map_err(FetchError::io(blob))?;
    on_event(Event::Done { file: source.name });
    Ok(())
}

/// One file on its way.
struct Transfer<'a> {
    client: &'a Client,
    source: &'a RemoteFile<'a>,
    partial: Partial,
    hasher: Hasher,
    /// Bytes that are there.
    position: u64,
    /// False after a server has answered a range with other bytes.
    asks_for_ranges: bool,
}

impl Transfer<'_> {
    /// Hashes the bytes that an earlier run has left.
    fn take_up(&mut self) -> Result<(), FetchError> {
        let path = self.partial.path().to_path_buf();
        let failed = || FetchError::io(&path);
        let file = self.partial.rewound().map_err(failed())?;
        let length = file.metadata().map_err(failed())?.len();
        if length > self.source.size {
            return self.begin_anew();
        }
        self.hasher.read(file).map_err(failed())?;
        self.position = length;
        Ok(())
    }

    /// Fetches what is missing and verifies the whole.
    fn complete(
        &mut self,
        kept: u64,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), FetchError> {
        self.receive(on_event)?;
        let mut result = self.verify();
        if result.is_err() && kept > 0 {
            tracing::warn!(
                "{}: the bytes of the earlier run are damaged; beginning anew",
                self.source.name
            );
            self.begin_anew()?;
            self.receive(on_event)?;
            result = self.verify();
        }
        if result.is_err() {
            self.begin_anew()?;
        }
        result
    }

    fn receive(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), FetchError> {
        let mut attempts = Attempts::new(self.client.patience);
        let step = PROGRESS.min(self.source.size / 100).max(1);
        let mut mark = self.position;
        while self.position < self.source.size {
            let result = self.stream(on_event);
            if self.position >= mark.saturating_add(step) {
                mark = self.position;
                attempts.progressed();
            }
            if let Err(error) = result {
                attempts.failed_by(error)?;
            }
        }
        Ok(())
    }

    /// One request, from the end of the bytes that are there, until the transfer ends or breaks.
    fn stream(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), FetchError> {
        if !self.asks_for_ranges {
            self.begin_anew()?;
        }
        let wanted = Wanted::From(self.position);
        let answer = match self.client.get_once(&self.source.url, wanted) {
            Ok(answer) => answer,
            Err(failure) => return Err(self.failure(failure)),
        };
        if self.position > 0 && answer.status != 206 {
            self.begin_anew()?;
        } else if self.position > 0 && !self.is_rest(&answer) {
            self.asks_for_ranges = false;
            return Err(self.broken("the server sent another part of the file"));
        }
        // One byte more than expected is enough to see that the file is too long.
        let rest = self.source.size - self.position + 1;
        let mut body = answer.into_reader().take(rest);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(self.broken(&error.to_string())),
            };
            let path = self.partial.path().to_path_buf();
            let bytes = &buffer[..count];
            self.partial.append(bytes).map_err(FetchError::io(path))?;
            self.hasher.update(bytes);
            self.position += count as u64;
            on_event(Event::Position(self.position));
        }
        if self.position < self.source.size {
            return Err(self.broken("the connection was closed"));
        }
        Ok(())
    }

    /// Whether an answer with status 206 is the rest of the file; a mirror may leave out the
    /// headers that say so.
    fn is_rest(&self, answer: &HubAnswer) -> bool {
        let range = format!("bytes {}-", self.position);
        let starts = |text: &str| text.starts_with(&range);
        let rest = self.source.size - self.position;
        let fits = |text: &str| text.parse() == Ok(rest);
        answer.text("content-range").is_none_or(starts)
            && answer.text("content-length").is_none_or(fits)
    }

    /// The error of a request without an answer that can be used.
    fn failure(&mut self, failure: RequestFailure) -> FetchError {
        match failure {
            RequestFailure::Status { status: 416, .. } if self.position > 0 => {
                self.asks_for_ranges = false;
                self.broken("the server cannot send the rest of the file")
            }
            RequestFailure::Status { status, by_hub, .. } => FetchError::Refused {
                file: self.source.name.to_string(),
                by: if by_hub {
                    "the hub"
                } else {
                    "the hub's storage"
                },
                status,
            },
            RequestFailure::Error(error) => error,
        }
    }

    fn begin_anew(&mut self) -> Result<(), FetchError> {
        let path = self.partial.path().to_path_buf();
        self.partial.empty().map_err(FetchError::io(path))?;
        self.hasher = self.source.checksum.hasher(self.source.size);
        self.position = 0;
        Ok(())
    }

    fn broken(&self, message: &str) -> FetchError {
        FetchError::Broken {
            file: self.source.name.to_string(),
            position: self.position,
            size: self.source.size,
            message: message.to_string(),
        }
    }

    /// Compares length and checksum; afterwards the hasher is that of no bytes.
    fn verify(&mut self) -> Result<(), FetchError> {
        let new = self.source.checksum.hasher(self.source.size);
        let found = std::mem::replace(&mut self.hasher, new).finish();
        let expected = self.source.checksum.as_str();
        if self.position == self.source.size && found == expected {
            return Ok(());
        }
        Err(FetchError::Checksum {
            file: self.source.name.to_string(),
            expected: expected.to_string(),
            found,
        })
    }
}
