//! Errors of embedding files. An `io::Error` inside the error of another crate is found and keeps
//! its kind.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::io::stdio::{is_stdout_closed, stdout_closed};
use crate::shown::shown;

/// Why an embedding file could not be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum EmbeddingError {
    /// The file could not be opened, or is not an embedding file that this tool wrote.
    #[error("{}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Records are missing, or there are too many.
    #[error(
        "{} holds {found} records, but {written} according to its manifest; the file was damaged or changed, make it again",
        path.display()
    )]
    Count {
        path: PathBuf,
        /// Records in the file.
        found: u64,
        /// Records according to the manifest.
        written: u64,
    },
    /// A record could not be read, or does not have the shape of the schema.
    #[error("{}: record {record}{}: {source}", path.display(), quoted_id(id.as_deref()))]
    Record {
        path: PathBuf,
        /// Number of the record, from 1.
        record: u64,
        /// Id of the record, where known.
        id: Option<String>,
        source: io::Error,
    },
}

fn quoted_id(id: Option<&str>) -> String {
    id.map(|id| format!(" ({})", shown(id))).unwrap_or_default()
}

/// An error for invalid data.
pub(super) fn invalid_data(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// An error for a request that a format cannot fulfil.
pub(super) fn invalid_input(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// An error of the same kind with `context: ` before the message.
pub(super) fn with_context(error: &io::Error, context: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{context}: {error}"))
}

/// The `io::Error` inside the error of another crate, so that a broken pipe or a full disk keeps
/// its kind. An error without an `io::Error` inside becomes `InvalidData` with the whole message.
pub(super) fn from_library(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    let error: Box<dyn Error + Send + Sync> = match error.into().downcast::<serde_json::Error>() {
        // serde_json does not return an `io::Error` as its source, but converts into it.
        Ok(json) => io::Error::from(*json).into(),
        Err(error) => error,
    };
    let mut cause: Option<&(dyn Error + 'static)> = Some(error.as_ref());
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            if is_stdout_closed(io) {
                return stdout_closed();
            }
            if let Some(code) = io.raw_os_error() {
                return io::Error::from_raw_os_error(code);
            }
            if let Some(inner) = io.get_ref().filter(|_| io.kind() == io::ErrorKind::Other) {
                cause = Some(inner);
                continue;
            }
            return io::Error::new(io.kind(), io.to_string());
        }
        if let Some(kind) = current
            .downcast_ref()
            .and_then(serde_json::Error::io_error_kind)
        {
            return io::Error::new(kind, current.to_string());
        }
        // Neither serde_json nor csv returns the cause as its source.
        cause = match current.downcast_ref::<csv::Error>().map(csv::Error::kind) {
            Some(csv::ErrorKind::Io(io)) => Some(io),
            _ => current.source(),
        };
    }
    invalid_data(error.to_string())
}

/// As [`from_library`], for `rust_hdf5`, whose inner error types are private: the system's error
/// number is parsed from the message, in which the standard library writes `(os error 28)`.
pub(super) fn from_hdf5(error: rust_hdf5::Hdf5Error) -> io::Error {
    if let rust_hdf5::Hdf5Error::Io(error) = error {
        return error;
    }
    let message = error.to_string();
    let code = message
        .rsplit_once("(os error ")
        .and_then(|(_, rest)| rest.split_once(')'));
    match code.and_then(|(code, _)| code.parse().ok()) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => invalid_data(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::parquet::errors::ParquetError;
    use arrow_schema::ArrowError;

    fn broken_pipe() -> io::Error {
        io::Error::from(io::ErrorKind::BrokenPipe)
    }

    /// The errors of all libraries around `inner`.
    fn wrapped(inner: fn() -> io::Error) -> Vec<Box<dyn Error + Send + Sync>> {
        vec![
            Box::new(inner()),
            Box::new(ArrowError::from(inner())),
            Box::new(ParquetError::from(ArrowError::from(inner()))),
            Box::new(zip::result::ZipError::Io(inner())),
            Box::new(csv::Error::from(inner())),
            Box::new(serde_json::Error::io(inner())),
            Box::new(io::Error::other(ParquetError::from(inner()))),
        ]
    }

    #[test]
    fn a_broken_pipe_is_seen_through_every_wrapper() {
        for error in wrapped(broken_pipe) {
            let shown = format!("{error:?}");
            let error = from_library(error);
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{shown}");
            assert!(!is_stdout_closed(&error), "{shown}");
        }
        for error in wrapped(stdout_closed) {
            let shown = format!("{error:?}");
            assert!(is_stdout_closed(&from_library(error)), "{shown}");
        }
        let hdf5 = rust_hdf5::Hdf5Error::from(broken_pipe());
        assert_eq!(from_hdf5(hdf5).kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_seen_through_hdf5() {
        let write = || -> rust_hdf5::Result<()> {
            let file = rust_hdf5::H5File::options()
                .no_locking()
                .create("/dev/full")?;
            let dataset = file.new_dataset::<f32>().shape([1 << 20]).create("x")?;
            dataset.write_raw(&vec![0f32; 1 << 20])?;
            file.close()
        };
        let error = write().unwrap_err();
        let shown = format!("{error:?}");
        assert_eq!(
            from_hdf5(error).kind(),
            io::ErrorKind::StorageFull,
            "{shown}"
        );
    }
}
