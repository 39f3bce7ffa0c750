//! The lines of a structure file, and the problems that are found in them.

use std::io::{self, BufRead};

use crate::input::lines::{Line, Lines};

/// The longest line in bytes: a line of a table of coordinates holds a whole protein.
const LONGEST: usize = 1 << 28;

/// A problem in a file whose name the caller knows.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file cannot be read.
    Io(io::Error),
    /// A place in the file is wrong.
    At {
        line: u64,
        /// Number of the byte in the line, from 1; none where the whole line is meant.
        column: Option<usize>,
        what: String,
    },
    /// The file as a whole is wrong.
    File(String),
}

impl Fault {
    /// The problem of a whole line.
    pub(super) fn line(line: u64, what: impl Into<String>) -> Self {
        Self::At {
            line,
            column: None,
            what: what.into(),
        }
    }

    /// The problem of what begins at a column.
    pub(super) fn at(line: u64, column: usize, what: impl Into<String>) -> Self {
        Self::At {
            line,
            column: Some(column),
            what: what.into(),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The lines of a file, of which the current one is kept.
pub(super) struct Text {
    lines: Lines<Box<dyn BufRead + Send>>,
    /// The current line, without its end.
    pub(super) line: Vec<u8>,
}

impl Text {
    /// The file at its first line that is neither blank nor a comment (`#`); an empty line where
    /// there is none.
    pub(super) fn begin(reader: Box<dyn BufRead + Send>) -> Result<Self, Fault> {
        let mut text = Self {
            lines: Lines::new(reader),
            line: Vec::new(),
        };
        while text.advance()? {
            if text.number() == 1 && text.line.starts_with(b"\xef\xbb\xbf") {
                text.line.drain(..3);
            }
            if !matches!(text.line.trim_ascii().first(), None | Some(b'#')) {
                break;
            }
        }
        Ok(text)
    }

    /// Reads the next line; whether there is one.
    pub(super) fn advance(&mut self) -> Result<bool, Fault> {
        match self.lines.next_line(&mut self.line, LONGEST)? {
            Line::Whole => Ok(true),
            Line::End => Ok(false),
            Line::Cut => {
                let what = format!("the line is longer than {LONGEST} bytes");
                Err(Fault::line(self.number(), what))
            }
        }
    }

    /// Number of the current line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.lines.number()
    }
}

/// A coordinate in Å; none for text that is not a finite number.
pub(super) fn coordinate(text: &str) -> Option<f32> {
    let value = text.trim().parse::<f64>().ok()? as f32;
    value.is_finite().then_some(value)
}
