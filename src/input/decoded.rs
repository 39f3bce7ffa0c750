//! Text as programs save it, UTF-8 or UTF-16 with any line end, as UTF-8 with LF.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read};
use std::path::Path;

use super::lines::{Line, Lines};
use crate::io::stdio;

/// Characters that are decoded at a time.
const PIECE: usize = 1 << 12;

/// The unit of UTF-16 in two bytes.
type Unit = fn([u8; 2]) -> u16;

/// A text file without byte order mark, each line with LF at its end.
pub(super) type DecodedText = LineFeeds<Box<dyn BufRead + Send>>;

/// Opens a text file, or stdin for `-`; compressed input is decompressed.
///
/// # Errors
/// A file that cannot be read; a spreadsheet; UTF-16 without byte order mark.
pub(super) fn open(path: &Path) -> io::Result<DecodedText> {
    Ok(LineFeeds::new(decoded(stdio::open(path)?)?))
}

fn decoded(mut reader: Box<dyn BufRead + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let start = reader.fill_buf()?;
    let (mark, units): (usize, Option<Unit>) = match start {
        [0xef, 0xbb, 0xbf, ..] => (3, None),
        [0xff, 0xfe, ..] => (2, Some(u16::from_le_bytes)),
        [0xfe, 0xff, ..] => (2, Some(u16::from_be_bytes)),
        [b'P', b'K', 3, 4, ..] => {
            return Err(unusable(
                "a spreadsheet or a zip archive; save the table as CSV",
            ));
        }
        start if start.iter().take(64).any(|byte| *byte == 0) => {
            return Err(unusable(
                "not text in UTF-8, and without the byte order mark of UTF-16; save the table as UTF-8",
            ));
        }
        _ => (0, None),
    };
    reader.consume(mark);
    Ok(match units {
        None => reader,
        Some(unit) => Box::new(BufReader::new(Utf16::new(reader, unit))),
    })
}

fn unusable(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// UTF-16 as UTF-8.
struct Utf16<R> {
    reader: R,
    unit: Unit,
    /// The first half of a character whose second half has not been read.
    half: Option<u16>,
    text: Vec<u8>,
    /// Bytes of `text` that were passed on.
    at: usize,
}

impl<R: Read> Utf16<R> {
    fn new(reader: R, unit: Unit) -> Self {
        Self {
            reader,
            unit,
            half: None,
            text: Vec::new(),
            at: 0,
        }
    }

    /// Decodes the next characters; false at the end.
    fn decode(&mut self) -> io::Result<bool> {
        let mut bytes = Vec::with_capacity(2 * PIECE);
        let mut piece = (&mut self.reader).take(2 * PIECE as u64);
        piece.read_to_end(&mut bytes)?;
        let (pairs, odd) = bytes.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(unusable("UTF-16 that ends within a character"));
        }
        let mut units: Vec<u16> = self.half.take().into_iter().collect();
        let is_end = units.is_empty() && pairs.is_empty();
        units.extend(pairs.iter().map(|pair| (self.unit)(*pair)));
        let is_first_half = |unit: &u16| (0xd800..0xdc00).contains(unit);
        if !pairs.is_empty() && units.last().is_some_and(is_first_half) {
            self.half = units.pop();
        }
        let text: Result<String, _> = char::decode_utf16(units).collect();
        self.text = text.map_err(|_| unusable("invalid UTF-16"))?.into_bytes();
        self.at = 0;
        Ok(!is_end)
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.text.len() && self.decode()? {}
        let read = (&self.text[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

/// Lines with LF at their ends, whatever ends they had.
pub(super) struct LineFeeds<R> {
    lines: Lines<R>,
    line: Vec<u8>,
    /// Bytes of `line` that were passed on.
    at: usize,
}

impl<R: BufRead> LineFeeds<R> {
    fn new(reader: R) -> Self {
        Self {
            lines: Lines::new(reader),
            line: Vec::new(),
            at: 0,
        }
    }

    /// The beginning of the text that was not read yet, without blanks before it.
    pub(super) fn peek(&mut self) -> io::Result<&[u8]> {
        self.lines.peek().map(<[u8]>::trim_ascii_start)
    }

    /// The next line with LF at its end; empty at the end of the text.
    pub(super) fn next_line(&mut self) -> io::Result<&[u8]> {
        self.at = 0;
        if self.lines.next_line(&mut self.line, usize::MAX)? != Line::End {
            self.line.push(b'\n');
        }
        self.at = self.line.len();
        Ok(&self.line)
    }
}

impl<R: BufRead> Read for LineFeeds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.line.len() {
            self.next_line()?;
            self.at = 0;
        }
        let read = (&self.line[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, String> {
        let reader = Box::new(io::Cursor::new(bytes.to_vec()));
        let mut text = String::new();
        let mut lines = LineFeeds::new(decoded(reader).map_err(|error| error.to_string())?);
        let read = lines.read_to_string(&mut text);
        read.map(|_| text).map_err(|error| error.to_string())
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        units.flat_map(bytes).collect()
    }

    #[test]
    fn every_encoding_gives_the_same_text() {
        let text = "a;ü\n𝔸;b\n\nc\n".repeat(PIECE / 4);
        let windows = text.replace('\n', "\r\n");
        for bytes in [
            text.clone().into_bytes(),
            [b"\xef\xbb\xbf", windows.as_bytes()].concat(),
            text.replace('\n', "\r").into_bytes(),
            utf16(&windows, u16::to_le_bytes),
            utf16(&text, u16::to_be_bytes),
            utf16(&format!("{text}x"), u16::to_le_bytes)[..2 * (text.encode_utf16().count() + 1)]
                .to_vec(),
        ] {
            assert!(read(&bytes).unwrap() == text, "{:?}", &bytes[..8]);
        }
        assert_eq!(read(b"").unwrap(), "");
        assert_eq!(read(b"a").unwrap(), "a\n");
    }

    #[test]
    fn other_files_are_refused() {
        let halved = [0xff, 0xfe, 0x00, 0xd8, b'a', 0];
        let last_half = [0xff, 0xfe, b'a', 0, 0x00, 0xd8];
        for (bytes, what) in [
            (&b"PK\x03\x04..."[..], "a spreadsheet"),
            (b"a\0b\0", "byte order mark"),
            (b"\xff\xfea\0b", "ends within a character"),
            (&halved, "invalid UTF-16"),
            (&last_half, "invalid UTF-16"),
        ] {
            assert!(read(bytes).unwrap_err().contains(what), "{what}");
        }
    }
}
