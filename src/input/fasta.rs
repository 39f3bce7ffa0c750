//! FASTA input through `bio`, one record at a time, so that every error can name file, record, id
//! and line.
//!
//! The reader of `bio` has no line numbers, does not support CR alone, BOM, comments and bytes that
//! are not UTF-8, and stops at the first invalid byte. So the lines of one record are normalised
//! first (blanks and `;` comments are removed, bytes above 0x7F become private-use characters),
//! then `bio` parses the record. An invalid record is an error of its own; the iterator continues
//! with the next record.

use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;

use bio::io::fasta::{self, FastaRead};
use thiserror::Error;

use super::lines::{Line, Lines};
use super::not_fasta;
use crate::io::stdio;
use crate::sequence::{Origin, Problem, Record, SequenceError};

/// Characters in one header or one sequence before a record is rejected: a thousand times the
/// longest known protein.
const MAX_CHARACTERS: usize = 1 << 26;

/// Why an input, or one of its records, cannot be read.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum InputError {
    /// The file cannot be opened.
    #[error("{file}: cannot be opened")]
    Open {
        /// Name of the file as given.
        file: Arc<str>,
        source: io::Error,
    },
    /// Reading failed in the middle: a truncated or damaged stream, a failing disk.
    #[error(
        "{file}: reading failed after line {line}, record {record}; if the file is truncated or damaged, copy it again"
    )]
    Read {
        /// Name of the file as given.
        file: Arc<str>,
        /// Last line that was read.
        line: u64,
        /// Last record that was begun.
        record: u64,
        /// The error of the system or of the decompression.
        source: io::Error,
    },
    /// The file does not begin like FASTA.
    #[error("{file}: line {line}: {what}")]
    NotFasta {
        /// Name of the file as given.
        file: Arc<str>,
        /// The first line with text.
        line: u64,
        /// The format that the file seems to have, and the way out.
        what: &'static str,
    },
    /// The input has no record.
    #[error("no sequence in {file}")]
    Empty {
        /// Name of the file as given, or a list of several names.
        file: Arc<str>,
    },
    /// Standard input is named twice.
    #[error("'-' is given more than once; standard input can be read only once")]
    StdinTwice,
    /// One record is invalid.
    #[error(transparent)]
    Record(#[from] SequenceError),
}

impl InputError {
    /// False if records after this error can still be read.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, InputError::Record(_) | InputError::Empty { .. })
    }
}

/// The records of one FASTA file. Memory holds one record at a time.
pub struct FastaReader {
    lines: Lines<Box<dyn BufRead + Send>>,
    file: Arc<str>,
    /// The line read last; after the first record, the header of the next one.
    line: Vec<u8>,
    state: State,
    /// Records begun.
    records: u64,
    /// The normalised text of a record, the input of `bio`; a buffer that is used again.
    normalised: Vec<u8>,
    /// The record as `bio` parses it; a buffer that is used again.
    parsed: fasta::Record,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first header.
    Start,
    /// `line` holds a header, of which only the beginning if it was cut.
    Header { cut: bool },
    /// After the last record or a fatal error.
    End,
}

impl FastaReader {
    /// Opens a file, or stdin for `-`.
    ///
    /// # Errors
    /// [`InputError::Open`] for a file that cannot be opened.
    pub fn open(path: &Path) -> Result<Self, InputError> {
        let file: Arc<str> = stdio::input_name(path).into();
        match stdio::open(path) {
            Ok(reader) => Ok(Self::new(reader, file)),
            Err(source) => Err(InputError::Open { file, source }),
        }
    }

    /// Reads FASTA from any reader; `file` is the name in messages.
    pub fn new(reader: Box<dyn BufRead + Send>, file: Arc<str>) -> Self {
        FastaReader {
            lines: Lines::new(reader),
            file,
            line: Vec::new(),
            state: State::Start,
            records: 0,
            normalised: Vec::new(),
            parsed: fasta::Record::new(),
        }
    }

    /// Records begun so far, invalid ones included.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The file's name in messages.
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    fn next_line(&mut self) -> Result<Line, InputError> {
        let read = self.lines.next_line(&mut self.line, MAX_CHARACTERS);
        if self.lines.number() == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3);
        }
        read.map_err(|source| InputError::Read {
            file: Arc::clone(&self.file),
            line: self.lines.number(),
            record: self.records,
            source,
        })
    }

    /// Finds the first header.
    fn start(&mut self) -> Result<State, InputError> {
        loop {
            let cut = match self.next_line()? {
                Line::End => return Ok(State::End),
                line => line == Line::Cut,
            };
            match self.line.trim_ascii() {
                [b'>', ..] => return Ok(State::Header { cut }),
                [] | [b';', ..] => {}
                other => {
                    return Err(InputError::NotFasta {
                        file: Arc::clone(&self.file),
                        line: self.lines.number(),
                        what: not_fasta::name(other),
                    });
                }
            }
        }
    }

    /// Reads the record whose header is in `line`, up to the next header.
    fn record(&mut self, header_cut: bool) -> Result<Record, InputError> {
        self.records += 1;
        let line = self.lines.number();
        let origin = Origin {
            file: Arc::clone(&self.file),
            record: self.records,
            line,
        };
        self.normalised.clear();
        self.normalised.push(b'>');
        let header = self.line.trim_ascii()[1..].trim_ascii();
        push_as_text(&mut self.normalised, header);
        self.normalised.push(b'\n');
        let complete = self.sequence_lines()? && !header_cut;
        fasta::Reader::from_bufread(&self.normalised[..])
            .read(&mut self.parsed)
            .map_err(|source| InputError::Read {
                file: Arc::clone(&self.file),
                line,
                record: origin.record,
                source,
            })?;
        let raw_id = bytes_of(self.parsed.id());
        let id = String::from_utf8_lossy(&raw_id).into_owned();
        if !complete {
            let problem = Problem::Oversize {
                limit: MAX_CHARACTERS,
            };
            return Err(SequenceError {
                id,
                origin,
                problem,
            }
            .into());
        }
        let description = bytes_of(self.parsed.desc().unwrap_or_default().trim());
        Ok(Record {
            raw_id: (id.as_bytes() != raw_id).then_some(raw_id),
            id,
            description: String::from_utf8_lossy(&description).into_owned(),
            text: bytes_of(&String::from_utf8_lossy(self.parsed.seq())),
            origin,
        })
    }

    /// Collects the lines of a sequence; false for a sequence that is too long to keep.
    fn sequence_lines(&mut self) -> Result<bool, InputError> {
        let mut length = 0;
        loop {
            let cut = match self.next_line()? {
                Line::End => {
                    self.state = State::End;
                    break;
                }
                line => line == Line::Cut,
            };
            match self.line.trim_ascii() {
                [b'>', ..] => {
                    self.state = State::Header { cut };
                    break;
                }
                [b';', ..] => {}
                text => {
                    length += if cut { MAX_CHARACTERS + 1 } else { text.len() };
                    if length <= MAX_CHARACTERS {
                        for word in text.split(u8::is_ascii_whitespace) {
                            push_as_text(&mut self.normalised, word);
                        }
                    }
                }
            }
        }
        self.normalised.push(b'\n');
        Ok(length <= MAX_CHARACTERS)
    }
}

impl Iterator for FastaReader {
    type Item = Result<Record, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Start {
            match self.start() {
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::End;
                    return Some(Err(error));
                }
            }
        }
        let State::Header { cut } = self.state else {
            return None;
        };
        let record = self.record(cut);
        if record.as_ref().is_err_and(InputError::is_fatal) {
            self.state = State::End;
        }
        Some(record)
    }
}

/// The private-use characters that stand for the bytes 0x80 to 0xFF inside `bio`, whose lines are
/// `String`s, begin 0x80 after this one. Unlike characters of Latin-1, none of them is white space.
const HIGH_BYTES: u32 = 0xe000;

fn push_as_text(text: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_ascii() {
        return text.extend_from_slice(bytes);
    }
    for &byte in bytes {
        let character = char::from_u32(HIGH_BYTES + u32::from(byte));
        match character {
            Some(character) if byte >= 0x80 => {
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => text.push(byte),
        }
    }
}

fn bytes_of(text: &str) -> Vec<u8> {
    if text.is_ascii() {
        return text.as_bytes().to_vec();
    }
    // The low eight bits of both an ASCII character and a private-use character are the byte.
    text.chars()
        .map(|character| character as u32 as u8)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn reader(text: &[u8]) -> FastaReader {
        FastaReader::new(Box::new(Cursor::new(text.to_vec())), "test".into())
    }

    fn only(text: &[u8]) -> Record {
        let records: Result<Vec<_>, _> = reader(text).collect();
        let mut records = records.unwrap();
        assert_eq!(records.len(), 1);
        records.remove(0)
    }

    #[test]
    fn a_record_is_tidied_and_otherwise_left_alone() {
        let text =
            b"\xef\xbb\xbf\r\n; comment\r\n> a\t one  two \r\n mk V\t*\r\n\r\n;no\r\n-J\0\x01?";
        let record = only(text);
        assert_eq!(
            (record.id.as_str(), record.description.as_str()),
            ("a", "one  two")
        );
        assert_eq!(record.text, b"mkV*-J\0\x01?");
        assert_eq!((record.origin.record, record.origin.line), (1, 3));
        assert_eq!(record.raw_id, None);
    }

    #[test]
    fn every_byte_survives_in_header_and_text() {
        let bytes: Vec<u8> = (0..=255u8)
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let bytes: Vec<u8> = bytes.into_iter().filter(|&byte| byte != 0x0b).collect();
        let mut text = b">".to_vec();
        text.extend([&bytes[..], b" ", &bytes, b"\nA", &bytes].concat());
        let record = only(&text);
        assert_eq!(record.raw_id.as_deref(), Some(&bytes[..]));
        assert_eq!(record.id, String::from_utf8_lossy(&bytes));
        assert_eq!(record.description, String::from_utf8_lossy(&bytes));
        assert_eq!(record.text, [b"A", &bytes[..]].concat());
    }

    #[test]
    fn utf8_ids_stay_whole_also_where_latin1_has_a_blank() {
        let record = only(">voilà\u{e000} größe\nMK".as_bytes());
        assert_eq!(record.id, "voilà\u{e000}");
        assert_eq!(
            (record.raw_id, record.description.as_str()),
            (None, "größe")
        );
    }

    #[test]
    fn an_oversize_record_is_an_error_and_the_next_one_is_read() {
        let long = vec![b'A'; MAX_CHARACTERS / 2 + 1];
        let text = [b">a\n", &long[..], b"\n", &long[..], b"\n>b\nMK\n"].concat();
        let mut reader = reader(&text);
        let error = reader.next().unwrap().unwrap_err();
        assert!(!error.is_fatal());
        assert!(
            error
                .to_string()
                .starts_with("test: record 1 (a), line 1: more than 67108864")
        );
        let record = reader.next().unwrap().unwrap();
        assert_eq!((record.id.as_str(), record.origin.line), ("b", 4));
        assert!(reader.next().is_none());
    }

    #[test]
    fn what_is_no_fasta_is_named() {
        let table: [(&[u8], &str); 5] = [
            (b"@read1\nACGT\n+\nIIII\n", "FASTQ"),
            (b"\n\nMKV\n>a\nMK", "line 3: text before the first header"),
            (b"\x7fELF\x02\x01\x01\0\0\xff", "binary"),
            (b"\xff\xfe>\0a\0\n\0", "UTF-16"),
            (b"ID   001R_FRG3G", "UniProt"),
        ];
        for (text, what) in table {
            let mut reader = reader(text);
            let error = reader.next().unwrap().unwrap_err();
            assert!(
                error.is_fatal() && error.to_string().contains(what),
                "{error}"
            );
            assert!(reader.next().is_none());
        }
    }
}
