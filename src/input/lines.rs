//! Lines of any length with any line end: LF, CRLF or CR alone.

use std::io::{self, BufRead, ErrorKind};

/// Reads lines and counts them.
pub struct Lines<R> {
    reader: R,
    /// Number of the line read last, 1-based; 0 before the first.
    number: u64,
    /// Whether the last line ended in CR: an LF directly after it belongs to the same line end.
    after_cr: bool,
}

/// The result of [`Lines::next_line`].
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// The buffer holds the whole line.
    Whole,
    /// The line is longer than the limit: the buffer holds the beginning, the rest was read and
    /// dropped.
    Cut,
    /// The input has no further line.
    End,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `reader`.
    pub fn new(reader: R) -> Self {
        Lines {
            reader,
            number: 0,
            after_cr: false,
        }
    }

    /// Number of the line read last, 1-based.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that come next, at least one unless the input has ended.
    pub fn peek(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    /// Reads the next line into `line`, without the line end and at most `limit` bytes.
    pub fn next_line(&mut self, line: &mut Vec<u8>, limit: usize) -> io::Result<Line> {
        line.clear();
        let mut length = 0;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() && length == 0 {
                return Ok(Line::End);
            }
            if self.after_cr && available.first() == Some(&b'\n') {
                self.after_cr = false;
                self.reader.consume(1);
                continue;
            }
            self.after_cr = false;
            let end = available
                .iter()
                .position(|&byte| byte == b'\n' || byte == b'\r');
            let part = &available[..end.unwrap_or(available.len())];
            line.extend_from_slice(&part[..part.len().min(limit - line.len())]);
            length += part.len();
            let at_end = available.is_empty();
            self.after_cr = end.is_some_and(|end| available[end] == b'\r');
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() || at_end {
                self.number += 1;
                return Ok(if length > limit {
                    Line::Cut
                } else {
                    Line::Whole
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn lines(text: &[u8], capacity: usize) -> Vec<(u64, Vec<u8>)> {
        let mut lines = Lines::new(BufReader::with_capacity(capacity, text));
        let (mut line, mut all) = (Vec::new(), Vec::new());
        while lines.next_line(&mut line, 1000).unwrap() != Line::End {
            all.push((lines.number(), line.clone()));
        }
        all
    }

    #[test]
    fn any_line_end_gives_the_same_lines_at_any_buffer_size() {
        let want: Vec<(u64, Vec<u8>)> = (1..)
            .zip([&b">a"[..], b"MK", b"", b"VL"].map(<[u8]>::to_vec))
            .collect();
        for text in [
            &b">a\nMK\n\nVL\n"[..],
            b">a\r\nMK\r\n\r\nVL\r\n",
            b">a\rMK\r\rVL",
            b">a\rMK\n\nVL",
        ] {
            for capacity in 1..=text.len() {
                assert_eq!(lines(text, capacity), want, "{text:?} {capacity}");
            }
        }
        assert_eq!(lines(b"", 8), []);
        assert_eq!(lines(b"\n", 8), [(1, vec![])]);
    }

    #[test]
    fn a_line_over_the_limit_is_cut_but_read_to_its_end() {
        let mut lines = Lines::new(BufReader::with_capacity(3, &b"abcdefgh\nxy\n"[..]));
        let mut line = Vec::new();
        assert_eq!(lines.next_line(&mut line, 4).unwrap(), Line::Cut);
        assert_eq!(line, b"abcd");
        assert_eq!(lines.next_line(&mut line, 4).unwrap(), Line::Whole);
        assert_eq!((lines.number(), &line[..]), (2, &b"xy"[..]));
        assert_eq!(lines.next_line(&mut line, 4).unwrap(), Line::End);
    }
}
