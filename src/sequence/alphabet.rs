//! The table of residues: the treatment of every byte in the text of a sequence.
//!
//! | byte | treatment |
//! |---|---|
//! | the 20 standard residues, `X B U Z O`, either case | kept in upper case (the tokenizer maps a letter that its vocabulary lacks to `X`) |
//! | `J` (leucine or isoleucine) | `X`, counted |
//! | `-` `.` | removed, counted as gaps |
//! | digits | removed, counted (line numbers of GenBank style) |
//! | blanks | removed |
//! | `*` after the last residue | removed, counted |
//! | `*` before a residue, anything else | an error with its position |

use std::fmt;
use std::ops::AddAssign;

use super::mask::{MASK, Masks, unify};
use super::{Problem, Record, Sequence, SequenceError};

/// The treatment of one byte.
enum Fate {
    Residue(u8),
    Ambiguous,
    Gap,
    Digit,
    Blank,
    Stop,
    Odd,
}

/// The table as a function.
fn fate(byte: u8) -> Fate {
    match byte.to_ascii_uppercase() {
        b'J' => Fate::Ambiguous,
        letter @ b'A'..=b'Z' => Fate::Residue(letter),
        b'-' | b'.' => Fate::Gap,
        b'0'..=b'9' => Fate::Digit,
        b' ' | b'\t' | b'\r' | b'\n' | b'\x0b' | b'\x0c' => Fate::Blank,
        b'*' => Fate::Stop,
        _ => Fate::Odd,
    }
}

/// Exceptions to the table for one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Bytes that are kept exactly as they are, whatever the table says.
    pub keep: Vec<u8>,
    /// Whether the text may have masks; each mask becomes one [`MASK`], whatever the table says.
    pub masks: Masks,
}

impl Rules {
    /// The table, except that `bytes` stay as they are.
    pub fn keeping(bytes: &[u8]) -> Self {
        Rules {
            keep: bytes.to_vec(),
            masks: Masks::None,
        }
    }

    /// The table, except that masks in every spelling become [`MASK`].
    pub fn masked(masks: Masks) -> Self {
        Rules {
            masks,
            ..Rules::default()
        }
    }

    fn keeps(&self, byte: u8) -> bool {
        self.keep.contains(&byte) || (self.masks != Masks::None && byte == MASK)
    }
}

/// The changes that cleaning made in one sequence or, as a sum, in all sequences of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Gap characters removed.
    pub gaps: u64,
    /// Digits removed.
    pub digits: u64,
    /// Stops removed from the end.
    pub stops: u64,
    /// `J` read as `X`.
    pub replaced: u64,
    /// Residues cut off by `--over truncate`.
    pub truncated: u64,
}

impl Changes {
    /// True if there was no change.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

impl AddAssign for Changes {
    fn add_assign(&mut self, other: Changes) {
        self.gaps += other.gaps;
        self.digits += other.digits;
        self.stops += other.stops;
        self.replaced += other.replaced;
        self.truncated += other.truncated;
    }
}

impl fmt::Display for Changes {
    /// `3 gaps removed, 2 J read as X`, or `nothing changed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            (self.gaps, "gaps removed"),
            (self.digits, "digits removed"),
            (self.stops, "final stops removed"),
            (self.replaced, "J read as X"),
            (self.truncated, "residues cut off"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        if parts.is_empty() {
            f.write_str("nothing changed")
        } else {
            f.write_str(&parts.join(", "))
        }
    }
}

/// Turns a record into a sequence by the table and counts the changes.
///
/// # Errors
/// The first inner stop, odd character or unknown mask word, with its position; a record without
/// residues.
pub fn clean(record: Record, rules: &Rules) -> Result<(Sequence, Changes), SequenceError> {
    let cleaned = match rules.masks {
        Masks::None => clean_text(&record.text, rules),
        masks => unify(&record.text, masks).and_then(|text| clean_text(&text, rules)),
    };
    match cleaned {
        Ok((residues, changes)) => {
            let Record {
                id,
                description,
                origin,
                ..
            } = record;
            Ok((
                Sequence {
                    id,
                    description,
                    residues,
                    origin,
                },
                changes,
            ))
        }
        Err(problem) => Err(SequenceError {
            id: record.id,
            origin: record.origin,
            problem,
        }),
    }
}

fn clean_text(text: &[u8], rules: &Rules) -> Result<(Vec<u8>, Changes), Problem> {
    let mut residues = Vec::with_capacity(text.len());
    let mut changes = Changes::default();
    let mut first_stop = None;
    let mut blanks = 0;
    for (index, &byte) in text.iter().enumerate() {
        let position = index + 1 - blanks;
        let residue = match fate(byte) {
            _ if rules.keeps(byte) => byte,
            Fate::Residue(letter) => letter,
            Fate::Ambiguous => {
                changes.replaced += 1;
                b'X'
            }
            Fate::Odd => {
                return Err(Problem::OddCharacter {
                    character: shown(&text[index..]),
                    position,
                });
            }
            removed => {
                match removed {
                    Fate::Gap => changes.gaps += 1,
                    Fate::Digit => changes.digits += 1,
                    Fate::Stop => {
                        changes.stops += 1;
                        first_stop.get_or_insert(position);
                    }
                    _ => blanks += 1,
                }
                continue;
            }
        };
        if let Some(position) = first_stop {
            return Err(Problem::InnerStop { position });
        }
        residues.push(residue);
    }
    if residues.is_empty() {
        Err(Problem::Empty)
    } else {
        Ok((residues, changes))
    }
}

/// The first character of `text` as a message shows it.
fn shown(text: &[u8]) -> String {
    let head = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        None => format!("byte 0x{:02X}", head[0]),
        Some(c) if c.is_control() => format!("control character U+{:04X}", c as u32),
        Some(c) if c.is_ascii() => format!("'{c}'"),
        Some(c) => format!("'{c}' (U+{:04X})", c as u32),
    }
}

/// True for a sequence of 50 or more letters, all of them `A C G T U N`: valid residues, but hardly
/// a protein.
pub fn looks_like_nucleotides(residues: &[u8]) -> bool {
    residues.len() >= 50 && residues.iter().all(|residue| b"ACGTUN".contains(residue))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> Result<(String, Changes), Problem> {
        clean_text(text.as_bytes(), &Rules::default())
            .map(|(residues, changes)| (String::from_utf8(residues).unwrap(), changes))
    }

    #[test]
    fn every_byte_has_a_treatment() {
        let kept: Vec<u8> = (0..=255)
            .filter(|&b| matches!(fate(b), Fate::Residue(_)))
            .collect();
        assert_eq!(kept, b"ABCDEFGHIKLMNOPQRSTUVWXYZabcdefghiklmnopqrstuvwxyz");
        for byte in [
            0, b'@', b'>', b';', b'~', b'_', b'?', 0x7f, 0x80, 0xe9, 0xff,
        ] {
            assert!(matches!(fate(byte), Fate::Odd), "{byte:#x}");
        }
    }

    #[test]
    fn changes_are_made_and_counted() {
        let none = Changes::default();
        let table = [
            ("MKV", "MKV", none),
            ("mkvUZOBx", "MKVUZOBX", none),
            (
                "MJKj",
                "MXKX",
                Changes {
                    replaced: 2,
                    ..none
                },
            ),
            ("-M.K-", "MK", Changes { gaps: 3, ..none }),
            ("1 MK 61 V", "MKV", Changes { digits: 3, ..none }),
            ("MK*", "MK", Changes { stops: 1, ..none }),
            (
                "MK**- 1*",
                "MK",
                Changes {
                    stops: 3,
                    gaps: 1,
                    digits: 1,
                    ..none
                },
            ),
        ];
        for (text, residues, changes) in table {
            assert_eq!(cleaned(text), Ok((residues.to_owned(), changes)), "{text}");
        }
    }

    #[test]
    fn odd_text_is_named_with_its_position() {
        let odd = |character: &str, position| {
            Err(Problem::OddCharacter {
                character: character.to_owned(),
                position,
            })
        };
        assert_eq!(cleaned("MK @V"), odd("'@'", 3));
        assert_eq!(cleaned("MKé"), odd("'é' (U+00E9)", 3));
        assert_eq!(cleaned("\0MK"), odd("control character U+0000", 1));
        assert_eq!(cleaned("MK*V*"), Err(Problem::InnerStop { position: 3 }));
        for empty in ["", "*", "--..", " 123 "] {
            assert_eq!(cleaned(empty), Err(Problem::Empty), "{empty:?}");
        }
        let latin1 = clean_text(b"MK\xe9V", &Rules::default()).unwrap_err();
        assert_eq!(
            latin1,
            Problem::OddCharacter {
                character: "byte 0xE9".into(),
                position: 3
            }
        );
    }

    #[test]
    fn kept_bytes_come_before_the_table() {
        let rules = Rules::keeping(b"_*-x");
        let (residues, changes) = clean_text(b"m_*-xX.", &rules).unwrap();
        assert_eq!(residues, b"M_*-xX");
        assert_eq!(
            changes,
            Changes {
                gaps: 1,
                ..Changes::default()
            }
        );
    }

    #[test]
    fn masks_are_kept_only_where_they_are_allowed() {
        let clean = |text: &[u8], rules: &Rules| clean_text(text, rules).map(|(kept, _)| kept);
        assert!(clean(b"M?", &Rules::default()).is_err());
        let rules = Rules::masked(Masks::Words);
        assert_eq!(clean(b"m?x-j1", &rules).unwrap(), b"M?XX");
        assert!(clean(b"M*?", &rules).is_err());
    }

    #[test]
    fn changes_add_up_and_have_words() {
        let mut sum = Changes::default();
        assert_eq!(sum.to_string(), "nothing changed");
        sum += Changes {
            gaps: 2,
            replaced: 1,
            ..Changes::default()
        };
        sum += Changes {
            gaps: 1,
            ..Changes::default()
        };
        assert_eq!(sum.to_string(), "3 gaps removed, 1 J read as X");
    }

    #[test]
    fn nucleotides_are_noticed_from_50_on() {
        assert!(looks_like_nucleotides(&b"ACGTN".repeat(10)));
        assert!(!looks_like_nucleotides(&b"ACGTN".repeat(9)));
        assert!(!looks_like_nucleotides(&b"ACGTM".repeat(10)));
    }
}
