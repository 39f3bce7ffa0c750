//! The spellings of a masked residue; each becomes one byte before the table of residues is
//! applied.
//!
//! | spelling | meaning |
//! |---|---|
//! | `?` `_` `#` | a mask |
//! | `<mask>` `[MASK]` `<extra_id_0>` `<extra_id_1>` …, either case | a mask; the number is ignored, masks are numbered anew from the left |
//! | `X` | a residue, or a mask where the user says so |
//! | any other word in `<…>` or `[…]` | an error that names it |

use super::Problem;

/// The byte of a mask, whatever its spelling.
pub const MASK: u8 = b'?';

/// Longest word that can be a mask; a message shows no more of a word.
const LONGEST_WORD: usize = 24;

/// Whether a text may hold masks, and whether `X` is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masks {
    /// No masks: mask characters and words are invalid.
    #[default]
    None,
    /// Mask characters and words are masks; `X` is an unknown residue.
    Words,
    /// Mask characters, words and `X` are masks.
    WordsAndX,
}

/// The text with every mask as [`MASK`]. Positions in errors begin with 1 and count a mask as one
/// character.
///
/// # Errors
/// A word in brackets that is not a mask.
pub(super) fn unify(text: &[u8], masks: Masks) -> Result<Vec<u8>, Problem> {
    let mut unified = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        unified.push(match byte {
            b'?' | b'_' | b'#' => MASK,
            b'X' | b'x' if masks == Masks::WordsAndX => MASK,
            b'<' | b'[' => {
                let word = word(byte, after);
                if !is_mask(byte, word) {
                    return Err(Problem::MaskWord {
                        word: String::from_utf8_lossy(&[&[byte], word].concat()).into_owned(),
                        position: unified.len() + 1,
                    });
                }
                rest = &after[word.len()..];
                MASK
            }
            other => other,
        });
    }
    Ok(unified)
}

/// The text after an opening bracket, up to the closing one or up to the length of the longest
/// word.
fn word(open: u8, after: &[u8]) -> &[u8] {
    let close = if open == b'<' { b'>' } else { b']' };
    let head = &after[..after.len().min(LONGEST_WORD)];
    let end = head.iter().position(|&byte| byte == close);
    &head[..end.map_or(head.len(), |end| end + 1)]
}

/// Whether `word` (without its opening bracket) is a mask.
fn is_mask(open: u8, word: &[u8]) -> bool {
    let word = word.to_ascii_lowercase();
    if open == b'[' {
        return word == b"mask]";
    }
    let number = word
        .strip_prefix(b"extra_id_")
        .and_then(|rest| rest.strip_suffix(b">"));
    let is_sentinel = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    word == b"mask>" || number.is_some_and(is_sentinel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_one_mask() {
        let table = [
            ("M?K_V#", "M?K?V?"),
            ("M<mask>K[MASK]V<extra_id_0>", "M?K?V?"),
            ("<MASK>[mask]<Extra_ID_224>", "???"),
            ("<extra_id_7><extra_id_7>AX", "??AX"),
            ("", ""),
        ];
        for (text, expected) in table {
            let unified = unify(text.as_bytes(), Masks::Words).unwrap();
            assert_eq!(unified, expected.as_bytes(), "{text}");
        }
        assert_eq!(unify(b"MXx?", Masks::WordsAndX).unwrap(), b"M???");
    }

    #[test]
    fn another_word_is_named_with_its_position() {
        let table = [
            ("M<mask>K<msk>V", "<msk>", 4),
            ("[NLU]MK", "[NLU]", 1),
            ("M[mask>K", "[mask>K", 2),
            ("M<", "<", 2),
            ("<extra_id_>", "<extra_id_>", 1),
            ("<extra_id_1a>", "<extra_id_1a>", 1),
            (
                "A<extra_id_00000000000000000000>",
                "<extra_id_000000000000000",
                2,
            ),
        ];
        for (text, word, position) in table {
            let expected = Problem::MaskWord {
                word: word.to_owned(),
                position,
            };
            assert_eq!(
                unify(text.as_bytes(), Masks::Words),
                Err(expected),
                "{text}"
            );
        }
    }
}
