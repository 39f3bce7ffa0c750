//! Residues to token ids and back. The vocabulary is data, read from a checkpoint's
//! `tokenizer.json` or `spiece.model`.
//!
//! The reference is SentencePiece's segmentation of the raw string with the prefix before it (the
//! slow `T5Tokenizer` of Hugging Face): `[prefix] + one id per residue + </s>`. A sequence of
//! letters needs no search over segmentations, so a table of 26 entries is enough. Hugging Face's
//! fast tokenizers put a `▁` before the text, which these vocabularies lack: it becomes an `<unk>`
//! that changes every embedding. This tokenizer never adds it.
//!
//! ```
//! use ankh3::tokenizer::{TaskPrefix, Tokenizer};
//!
//! let tokenizer = Tokenizer::ankh3();
//! let encoding = tokenizer.encode(b"MKX", TaskPrefix::Nlu)?;
//! assert_eq!(encoding.token_ids, [4, 24, 18, 27, 1]);
//! assert_eq!(encoding.token_ids.len(), Tokenizer::num_tokens(3));
//! assert_eq!(tokenizer.piece(24), "M");
//! # Ok::<(), ankh3::tokenizer::TokenizerError>(())
//! ```

mod read;
mod vocabulary;
mod write;

use std::ops::Range;
use std::str::FromStr;

use thiserror::Error;

/// The task prefix before a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskPrefix {
    /// No prefix token: as Ankh v1 and v2 and several published wrappers do
    None,
    /// `[NLU]`: masked language modelling, Ankh3's usual prefix for embeddings
    Nlu,
    /// `[S2S]`: sequence completion; better embeddings for some tasks
    S2s,
    /// Another token of the vocabulary, such as `<AA2fold>` of `ProstT5`
    Token(&'static str),
}

impl TaskPrefix {
    /// The word on the command line and in metadata: `none`, `nlu`, `s2s`, or the token.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskPrefix::None => "none",
            TaskPrefix::Nlu => "nlu",
            TaskPrefix::S2s => "s2s",
            TaskPrefix::Token(token) => token,
        }
    }

    /// The piece in the vocabulary; `None` for [`TaskPrefix::None`].
    fn piece(self) -> Option<&'static str> {
        match self {
            TaskPrefix::None => None,
            TaskPrefix::Nlu => Some("[NLU]"),
            TaskPrefix::S2s => Some("[S2S]"),
            TaskPrefix::Token(token) => Some(token),
        }
    }
}

impl FromStr for TaskPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Ok(TaskPrefix::None),
            "nlu" | "[nlu]" => Ok(TaskPrefix::Nlu),
            "s2s" | "[s2s]" => Ok(TaskPrefix::S2s),
            // A process reads one or two prefixes, so their text may live as long as the process,
            // and a prefix stays a value that is copied.
            _ if is_bracketed(text) => Ok(TaskPrefix::Token(text.to_owned().leak())),
            _ => Err("a prefix is none, nlu, s2s, or a token of the vocabulary in its brackets, such as `<AA2fold>`".to_owned()),
        }
    }
}

/// Whether a piece is a token in brackets, as task prefixes are.
fn is_bracketed(piece: &str) -> bool {
    let inside = |open, close| piece.strip_prefix(open)?.strip_suffix(close);
    inside('<', '>')
        .or_else(|| inside('[', ']'))
        .is_some_and(|inside| !inside.is_empty())
}

/// The tokens of one sequence, as the encoder reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// `[prefix] + one id per residue + </s>`.
    pub token_ids: Vec<u32>,
    /// Position of the first residue: 1 with a prefix, else 0.
    pub first_residue: usize,
    /// Number of residues without an id of their own, which got the id of `X`.
    pub replaced: usize,
}

impl Encoding {
    /// The positions of the residues in [`Encoding::token_ids`].
    pub fn residues(&self) -> Range<usize> {
        // The last token is `</s>`.
        self.first_residue..self.token_ids.len() - 1
    }
}

/// Why a vocabulary could not be read or a sequence not be encoded.
#[derive(Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum TokenizerError {
    /// The bytes are no `tokenizer.json`.
    #[error("not a tokenizer.json: {0}; fetch the checkpoint again or take its spiece.model")]
    Json(String),
    /// The bytes are no SentencePiece model.
    #[error(
        "not a SentencePiece model: {0}; fetch the checkpoint again or take its tokenizer.json"
    )]
    SentencePiece(String),
    /// A piece that every T5 vocabulary has is missing.
    #[error("the vocabulary has no `{0}`; it is not the vocabulary of a T5")]
    MissingPiece(&'static str),
    /// An added token has the id of a piece.
    #[error(
        "the id {id} is both `{piece}` and the added token `{token}`; fetch the checkpoint again"
    )]
    TwoPieces {
        id: usize,
        piece: String,
        token: String,
    },
    /// The vocabulary lacks the requested prefix.
    #[error(
        "the vocabulary has no `{piece}`, so `--prefix {prefix}` cannot be used with this model; its prefixes: {available}"
    )]
    NoPrefix {
        prefix: &'static str,
        piece: &'static str,
        available: String,
    },
    /// A byte that is no letter.
    #[error(
        "{} at position {position} is not a residue; strip gaps, stops and digits first", shown(*.byte)
    )]
    NotAResidue {
        byte: u8,
        /// The position in the sequence, from 1.
        position: usize,
    },
    /// A residue without an id in a vocabulary that has no `X` to stand for it.
    #[error(
        "residue {} at position {position} has no id and the vocabulary has no `X` to stand for it", shown(*.byte)
    )]
    NoUnknownResidue {
        byte: u8,
        /// The position in the sequence, from 1.
        position: usize,
    },
}

fn shown(byte: u8) -> String {
    format!("`{}`", byte.escape_ascii())
}

/// The origin of a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// `tokenizer.json`.
    Json,
    /// `spiece.model`.
    SentencePiece,
    /// A layout of this crate.
    Builtin,
}

/// A vocabulary, ready to encode.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenizer {
    pieces: Vec<String>,
    kind: TokenizerKind,
    residues: [Option<u32>; 26],
    letters: Vec<Option<u8>>,
    sentinels: Vec<u32>,
    nlu: Option<u32>,
    s2s: Option<u32>,
    /// Further tokens in brackets, neither special ones nor sentinels.
    other_prefixes: Vec<u32>,
    pad: u32,
    eos: u32,
    unk: u32,
}

impl Tokenizer {
    /// The token ids of one sequence: the prefix if any, one id per residue, `</s>`. Lower case
    /// (soft-masked) counts as upper case. A letter without an id of its own (often `J`, `U`, `Z`,
    /// `O`, `B`) gets the id of `X` and is counted.
    pub fn encode(&self, residues: &[u8], prefix: TaskPrefix) -> Result<Encoding, TokenizerError> {
        let mut token_ids = Vec::with_capacity(Self::num_tokens(residues.len()));
        token_ids.extend(self.require_prefix(prefix)?);
        let first_residue = token_ids.len();
        let mut replaced = 0;
        for (index, &byte) in residues.iter().enumerate() {
            let id = if let Some(id) = self.residue_id(byte) {
                id
            } else {
                replaced += 1;
                self.stand_in(byte, index + 1)?
            };
            token_ids.push(id);
        }
        token_ids.push(self.eos);
        Ok(Encoding {
            token_ids,
            first_residue,
            replaced,
        })
    }

    /// Tokens of a sequence of `residues` residues with a task prefix: the prefix, one token per
    /// residue, `</s>`. Without a prefix the sequence has one token fewer.
    pub fn num_tokens(residues: usize) -> usize {
        residues + 2
    }

    fn require_prefix(&self, prefix: TaskPrefix) -> Result<Option<u32>, TokenizerError> {
        let Some(piece) = prefix.piece() else {
            return Ok(None);
        };
        match self.prefix_id(prefix) {
            Some(id) => Ok(Some(id)),
            None => Err(TokenizerError::NoPrefix {
                prefix: prefix.as_str(),
                piece,
                available: self.available_prefixes(),
            }),
        }
    }

    fn available_prefixes(&self) -> String {
        let none = TaskPrefix::None.as_str();
        let all: Vec<_> = std::iter::once(none).chain(self.prefixes()).collect();
        all.join(", ")
    }

    /// The prefixes that the vocabulary has a token for, as `--prefix` takes them.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        let known = [(TaskPrefix::Nlu, self.nlu), (TaskPrefix::S2s, self.s2s)];
        let known = known.into_iter().filter(|(_, id)| id.is_some());
        let known = known.map(|(prefix, _)| prefix.as_str());
        known.chain(self.other_prefixes.iter().map(|id| self.piece(*id)))
    }

    /// Whether lower-case letters are pieces of their own, as the 3Di states of `ProstT5`.
    pub fn has_lower_case_letters(&self) -> bool {
        let is_letter = |piece: &String| {
            let letter = piece.trim_start_matches('\u{2581}').as_bytes();
            letter.len() == 1 && letter[0].is_ascii_lowercase()
        };
        self.pieces.iter().any(is_letter)
    }

    fn stand_in(&self, byte: u8, position: usize) -> Result<u32, TokenizerError> {
        if !byte.is_ascii_alphabetic() {
            return Err(TokenizerError::NotAResidue { byte, position });
        }
        self.residue_id(b'X')
            .ok_or(TokenizerError::NoUnknownResidue { byte, position })
    }

    /// The id of a residue's letter, in either case.
    pub fn residue_id(&self, residue: u8) -> Option<u32> {
        let letter = residue.to_ascii_uppercase();
        let index = letter.is_ascii_uppercase().then(|| letter - b'A')?;
        self.residues[usize::from(index)]
    }

    /// The upper-case letter of an id; `None` for an id that is not a residue.
    pub fn residue(&self, id: u32) -> Option<u8> {
        self.letters.get(id as usize).copied().flatten()
    }

    /// The id of `<extra_id_k>`.
    pub fn sentinel(&self, k: usize) -> Option<u32> {
        self.sentinels.get(k).copied()
    }

    /// The number of sentinels, counted from `<extra_id_0>` without a gap.
    pub fn num_sentinels(&self) -> usize {
        self.sentinels.len()
    }

    /// The id of a prefix token; `None` for [`TaskPrefix::None`] and where the vocabulary lacks it.
    pub fn prefix_id(&self, prefix: TaskPrefix) -> Option<u32> {
        match prefix {
            TaskPrefix::None => None,
            TaskPrefix::Nlu => self.nlu,
            TaskPrefix::S2s => self.s2s,
            TaskPrefix::Token(token) => {
                let mut others = self.other_prefixes.iter().copied();
                others.find(|id| self.piece(*id) == token)
            }
        }
    }

    /// `[NLU]` where the vocabulary has it, else no prefix.
    pub fn default_prefix(&self) -> TaskPrefix {
        match self.nlu {
            Some(_) => TaskPrefix::Nlu,
            None => TaskPrefix::None,
        }
    }

    /// The id of `</s>`.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The id of `<pad>`.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The id of `<unk>`, which [`Tokenizer::encode`] never returns.
    pub fn unk(&self) -> u32 {
        self.unk
    }

    /// The largest id plus one. A model's embedding table may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The text of a token; empty for an unused id.
    pub fn piece(&self, id: u32) -> &str {
        self.pieces.get(id as usize).map_or("", String::as_str)
    }

    /// All pieces in the order of their ids.
    pub fn pieces(&self) -> &[String] {
        &self.pieces
    }

    /// The origin of the vocabulary.
    pub fn kind(&self) -> TokenizerKind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_prefix_residues_and_end() {
        type Case<'a> = (&'a Tokenizer, &'a str, TaskPrefix, &'a [u32], usize, usize);
        let ankh3 = Tokenizer::ankh3();
        let v1 = Tokenizer::ankh_v1();
        let table: &[Case<'_>] = &[
            (
                &ankh3,
                "MKAY",
                TaskPrefix::Nlu,
                &[4, 24, 18, 8, 22, 1],
                1,
                0,
            ),
            (
                &ankh3,
                "MKAY",
                TaskPrefix::S2s,
                &[5, 24, 18, 8, 22, 1],
                1,
                0,
            ),
            (&ankh3, "MKAY", TaskPrefix::None, &[24, 18, 8, 22, 1], 0, 0),
            (&ankh3, "mkay", TaskPrefix::None, &[24, 18, 8, 22, 1], 0, 0),
            (
                &ankh3,
                "XUBZO",
                TaskPrefix::None,
                &[27, 28, 29, 30, 3, 1],
                0,
                0,
            ),
            (&ankh3, "MJJ", TaskPrefix::Nlu, &[4, 24, 27, 27, 1], 1, 2),
            (&ankh3, "", TaskPrefix::Nlu, &[4, 1], 1, 0),
            (&v1, "ALXUZ", TaskPrefix::None, &[3, 4, 23, 26, 27, 1], 0, 0),
            (&v1, "AJ", TaskPrefix::None, &[3, 23, 1], 0, 1),
        ];
        for (tokenizer, text, prefix, ids, first_residue, replaced) in table {
            let expected = Encoding {
                token_ids: ids.to_vec(),
                first_residue: *first_residue,
                replaced: *replaced,
            };
            let encoding = tokenizer.encode(text.as_bytes(), *prefix).unwrap();
            assert_eq!(encoding, expected, "{text} {prefix:?}");
        }
    }

    #[test]
    fn sequences_outside_the_vocabulary_are_errors() {
        let v1 = Tokenizer::ankh_v1();
        let error = v1.encode(b"MK", TaskPrefix::Nlu).unwrap_err().to_string();
        assert!(
            error.contains("[NLU]") && error.ends_with("its prefixes: none"),
            "{error}"
        );
        let error = v1.encode(b"MK*", TaskPrefix::None).unwrap_err();
        assert_eq!(
            error,
            TokenizerError::NotAResidue {
                byte: b'*',
                position: 3
            }
        );
        assert!(
            error.to_string().starts_with("`*` at position 3"),
            "{error}"
        );
    }

    #[test]
    fn ids_and_letters_are_inverse() {
        for tokenizer in [Tokenizer::ankh3(), Tokenizer::ankh_v1()] {
            for letter in *b"ACDEFGHIKLMNPQRSTVWYXBUZO" {
                let id = tokenizer.residue_id(letter).unwrap();
                assert_eq!(tokenizer.residue(id), Some(letter));
            }
            assert_eq!(tokenizer.residue_id(b'J'), None);
            assert_eq!(tokenizer.residue(tokenizer.eos()), None);
            assert_eq!(tokenizer.residue(100_000), None);
        }
    }

    #[test]
    fn prefixes_are_words_or_tokens_in_brackets() {
        for (text, expected) in [
            ("none", TaskPrefix::None),
            ("NLU", TaskPrefix::Nlu),
            ("[S2S]", TaskPrefix::S2s),
            ("<AA2fold>", TaskPrefix::Token("<AA2fold>")),
            ("[NLG]", TaskPrefix::Token("[NLG]")),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
        for text in ["", "A", "AA2fold", "<>", "<AA2fold", "nlg"] {
            assert!(text.parse::<TaskPrefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn added_tokens_are_prefixes_but_special_tokens_are_none() {
        let added = vec![(144, "<fold2AA>".to_owned()), (146, "<AA2fold>".to_owned())];
        let letters = vec![(145, "a".to_owned())];
        let v1 = Tokenizer::ankh_v1();
        assert!(!v1.has_lower_case_letters());
        let tokenizer = v1.with_added_tokens(added).unwrap();
        let tokenizer = tokenizer.with_added_tokens(letters).unwrap();
        assert!(tokenizer.has_lower_case_letters());
        let prefixes: Vec<_> = tokenizer.prefixes().collect();
        assert_eq!(prefixes, ["<fold2AA>", "<AA2fold>"]);
        let encoding = tokenizer.encode(b"Aa", TaskPrefix::Token("<AA2fold>"));
        assert_eq!(encoding.unwrap().token_ids, [146, 3, 3, 1]);
        for token in ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<other>"] {
            let error = tokenizer
                .encode(b"A", TaskPrefix::Token(token))
                .unwrap_err();
            assert!(error.to_string().contains("<AA2fold>"), "{error}");
        }
        let taken = tokenizer.with_added_tokens(vec![(3, "<x>".to_owned())]);
        assert!(matches!(
            taken,
            Err(TokenizerError::TwoPieces { id: 3, .. })
        ));
        let ankh3 = Tokenizer::ankh3();
        assert_eq!(
            ankh3.prefixes().collect::<Vec<_>>(),
            ["nlu", "s2s", "[NLG]"]
        );
    }

    #[test]
    fn default_prefix_is_what_the_vocabulary_has() {
        assert_eq!(Tokenizer::ankh3().default_prefix(), TaskPrefix::Nlu);
        assert_eq!(Tokenizer::ankh_v1().default_prefix(), TaskPrefix::None);
    }
}
