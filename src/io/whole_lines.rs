//! Text whose last line must end with a line break. A file that was cut off may end in the middle of
//! a number that is still a number, so a missing line break is the only sign.

use std::io::{self, BufRead, ErrorKind, Read};

/// A reader that fails at the end of a text whose last line has no line break.
#[derive(Debug)]
pub struct WholeLines<R> {
    inner: R,
    /// Whether the bytes so far end with a line break; also true before the first byte.
    at_line_end: bool,
}

impl<R: BufRead> WholeLines<R> {
    /// Passes on what `inner` reads.
    pub fn new(inner: R) -> Self {
        WholeLines {
            inner,
            at_line_end: true,
        }
    }
}

impl<R: BufRead> BufRead for WholeLines<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let at_line_end = self.at_line_end;
        let bytes = self.inner.fill_buf()?;
        if bytes.is_empty() && !at_line_end {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the last line has no line break, so the file is truncated; make it again",
            ));
        }
        Ok(bytes)
    }

    fn consume(&mut self, bytes: usize) {
        // The buffer is filled already, so this reads nothing.
        if let (1.., Ok(buffer)) = (bytes, self.inner.fill_buf()) {
            self.at_line_end = buffer[..bytes].ends_with(b"\n");
        }
        self.inner.consume(bytes);
    }
}

impl<R: BufRead> Read for WholeLines<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(bytes)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn a_text_without_its_last_line_break_is_an_error() {
        for (text, whole) in [
            ("", true),
            ("a\nb\n", true),
            ("a\nb", false),
            ("\n", true),
            ("a", false),
        ] {
            for capacity in [1, 2, 100] {
                let reader =
                    || WholeLines::new(BufReader::with_capacity(capacity, text.as_bytes()));
                let mut read = String::new();
                assert_eq!(
                    reader().read_to_string(&mut read).is_ok(),
                    whole,
                    "{text:?}"
                );
                assert_eq!(reader().lines().all(|line| line.is_ok()), whole, "{text:?}");
            }
        }
    }
}
