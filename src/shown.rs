//! Text of files and of other machines as messages show it: on one line, without characters that
//! move the cursor, change the direction of the text or hide, and never long.
//!
//! ```
//! use ankh3::shown::shown;
//!
//! assert_eq!(shown("sp|P69905|HBA_HUMAN").to_string(), "sp|P69905|HBA_HUMAN");
//! assert_eq!(shown("a\u{1b}[31m\u{202e}b").to_string(), r"a\u{1b}[31m\u{202e}b");
//! assert_eq!(shown(b"caf\xe9").to_string(), r"caf\xe9");
//! let long = shown(&"x".repeat(1000)).to_string();
//! assert!(long.len() < 200 && long.ends_with("x (1000 bytes)"));
//! ```

use std::fmt::{self, Write};

/// Characters that are shown of a long text: at its beginning, at its end.
const ENDS: (usize, usize) = (80, 30);
/// The longest text that is shown as a whole, in characters.
const LONGEST: usize = 120;
/// Characters that are shown of a message, at its beginning and at its end. Messages quote a few
/// texts, so a longer one quotes a text that was not shortened.
const ENDS_OF_MESSAGE: (usize, usize) = (6000, 2000);

/// A text of a file, ready to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(&'a [u8]);

/// `text` with unsafe characters escaped, of a long text only the beginning, the end and the length.
pub fn shown<T: AsRef<[u8]> + ?Sized>(text: &T) -> Shown<'_> {
    Shown(text.as_ref())
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shorten(self.0, LONGEST, ENDS, |part| escape(part, f, is_unsafe))
    }
}

/// A whole message, which may have several lines, with unsafe characters escaped.
#[derive(Clone, Copy, Debug)]
pub struct ShownMessage<'a>(pub &'a str);

impl fmt::Display for ShownMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = ENDS_OF_MESSAGE.0 + ENDS_OF_MESSAGE.1;
        let is_unsafe = |c| is_unsafe(c) && !matches!(c, '\n' | '\t');
        shorten(self.0.as_bytes(), longest, ENDS_OF_MESSAGE, |part| {
            escape(part, f, is_unsafe)
        })
    }
}

/// A part of a text, or what stands for the part that is left out.
#[derive(Clone, Copy)]
enum Part<'a> {
    Bytes(&'a [u8]),
    LeftOut,
    Length(usize),
}

/// Passes `text` on as a whole, or its two ends and its length.
fn shorten(
    text: &[u8],
    longest: usize,
    (begin, end): (usize, usize),
    mut write: impl FnMut(Part<'_>) -> fmt::Result,
) -> fmt::Result {
    if text.len() <= longest {
        return write(Part::Bytes(text));
    }
    write(Part::Bytes(&text[..boundary(text, begin)]))?;
    write(Part::LeftOut)?;
    write(Part::Bytes(&text[boundary(text, text.len() - end)..]))?;
    write(Part::Length(text.len()))
}

/// The last start of a character of UTF-8 at or before `at`.
fn boundary(text: &[u8], at: usize) -> usize {
    let is_start = |at: &usize| text[*at] & 0xc0 != 0x80;
    (at.saturating_sub(3)..=at)
        .rev()
        .find(is_start)
        .unwrap_or(at)
}

fn escape(
    part: Part<'_>,
    f: &mut fmt::Formatter<'_>,
    is_unsafe: impl Fn(char) -> bool,
) -> fmt::Result {
    let bytes = match part {
        Part::Bytes(bytes) => bytes,
        Part::LeftOut => return f.write_str(" … "),
        Part::Length(length) => return write!(f, " ({length} bytes)"),
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_unsafe(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Control characters, line separators, and characters that change the direction of the text or are
/// not visible.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let cases: [(&[u8], &str); 8] = [
            (b"a\x1b[2J\x07", r"a\u{1b}[2J\u{7}"),
            (b"a\0b\x7f", r"a\u{0}b\u{7f}"),
            (b"one\r\ntwo\tthree", r"one\r\ntwo\tthree"),
            ("\u{9b}31m".as_bytes(), r"\u{9b}31m"),
            (
                "\u{202e}gpj\u{2066}\u{2069}".as_bytes(),
                r"\u{202e}gpj\u{2066}\u{2069}",
            ),
            ("a\u{200b}b\u{feff}".as_bytes(), r"a\u{200b}b\u{feff}"),
            (b"\xff\xfea\xc3", r"\xff\xfea\xc3"),
            (
                "voilà, \"日本\" \\ 'x'".as_bytes(),
                "voilà, \"日本\" \\ 'x'",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text).to_string(), expected);
        }
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = c.to_string();
            let shown = shown(&text).to_string();
            assert!(shown == text || shown.is_ascii(), "{shown}");
        }
    }

    #[test]
    fn long_texts_keep_both_ends_and_say_their_length() {
        let text = format!("{}{}", "é".repeat(40_000_000), "-end");
        let short = shown(&text).to_string();
        assert!(
            short.starts_with("éé") && short.ends_with("-end (80000004 bytes)"),
            "{short}"
        );
        assert!(
            short.contains(" … ") && short.chars().count() < 150,
            "{short}"
        );
        assert_eq!(shown(&"x".repeat(120)).to_string(), "x".repeat(120));
        let cut_inside = [&[b'x'; 79][..], "日".repeat(50).as_bytes()].concat();
        assert!(!shown(&cut_inside).to_string().contains("\\x"));
        let bytes = [0xff; 500];
        assert!(shown(&bytes).to_string().len() < 600);
    }

    #[test]
    fn messages_keep_their_lines() {
        let message = "line 1:\n\tx = \u{1b}[0m\n";
        assert_eq!(
            ShownMessage(message).to_string(),
            "line 1:\n\tx = \\u{1b}[0m\n"
        );
        assert!(ShownMessage(&"é".repeat(1 << 20)).to_string().len() < 9000);
    }
}
