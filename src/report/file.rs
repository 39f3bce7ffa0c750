//! Files of results as decompressed text, with errors that name the file.

use std::io::{self, BufRead};
use std::path::Path;

use super::error::ReportError;
use crate::io::stdio;

/// Opens stdin (`-`) or a file, decompressed.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, ReportError> {
    stdio::open(path).map_err(unreadable(path))
}

/// The whole text of a file.
pub(super) fn read_text(path: &Path) -> Result<String, ReportError> {
    io::read_to_string(open(path)?).map_err(unreadable(path))
}

/// Adds the path to the system's message.
pub(super) fn unreadable(path: &Path) -> impl Fn(io::Error) -> ReportError {
    move |source| ReportError::Read {
        path: path.to_owned(),
        source,
    }
}
