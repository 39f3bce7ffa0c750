//! From pieces to a [`Tokenizer`]: residues, sentinels and prefixes are found by name. And the
//! vocabularies of this crate.

use std::collections::HashMap;

use super::{Tokenizer, TokenizerError, TokenizerKind, is_bracketed};

/// Ids 0 to 30 of Ankh3. Ids 3, 5, 6 and 27 to 30 are not published; they are chosen here for
/// checkpoints of this crate.
const ANKH3: [&str; 31] = [
    "<pad>", "</s>", "<unk>", "O", "[NLU]", "[S2S]", "[NLG]", "L", "A", "G", "S", "V", "E", "R",
    "T", "I", "D", "P", "K", "N", "F", "Q", "Y", "H", "M", "C", "W", "X", "U", "B", "Z",
];
const ANKH3_SENTINELS: usize = 225;

/// Ids 0 to 27 of Ankh v1 and v2.
const ANKH_V1: [&str; 28] = [
    "<pad>", "</s>", "<unk>", "A", "L", "G", "V", "S", "R", "E", "D", "T", "I", "P", "K", "F", "Q",
    "N", "Y", "M", "H", "W", "C", "X", "B", "O", "U", "Z",
];
const ANKH_V1_SENTINELS: usize = 116;

impl Tokenizer {
    /// The vocabulary of checkpoints made by this crate: Ankh3's published ids, and a choice for
    /// the few unpublished ones. A released checkpoint always uses its own files.
    pub fn ankh3() -> Self {
        builtin(&ANKH3, ANKH3_SENTINELS)
    }

    /// The vocabulary of Ankh v1 and v2.
    pub fn ankh_v1() -> Self {
        builtin(&ANKH_V1, ANKH_V1_SENTINELS)
    }

    /// A tokenizer from its pieces in the order of their ids; an empty piece is an unused id.
    pub(super) fn from_pieces(
        pieces: Vec<String>,
        kind: TokenizerKind,
    ) -> Result<Self, TokenizerError> {
        let ids = ids_by_piece(&pieces);
        let required = |piece: &'static str| {
            ids.get(piece)
                .copied()
                .ok_or(TokenizerError::MissingPiece(piece))
        };
        let residues = residue_ids(&ids);
        let mut letters = vec![None; pieces.len()];
        for (letter, id) in (b'A'..=b'Z').zip(residues) {
            if let Some(id) = id {
                letters[id as usize] = Some(letter);
            }
        }
        Ok(Tokenizer {
            residues,
            letters,
            other_prefixes: other_prefixes(&ids),
            sentinels: sentinel_ids(&ids),
            nlu: word(&ids, "[NLU]"),
            s2s: word(&ids, "[S2S]"),
            pad: required("<pad>")?,
            eos: required("</s>")?,
            unk: required("<unk>")?,
            pieces,
            kind,
        })
    }
}

/// `<extra_id_{n - 1}>` … `<extra_id_0>`: T5 appends its sentinels in descending order.
pub(super) fn sentinel_pieces(count: usize) -> impl Iterator<Item = String> {
    (0..count).rev().map(|k| format!("<extra_id_{k}>"))
}

fn builtin(pieces: &[&str], sentinels: usize) -> Tokenizer {
    let pieces = pieces.iter().map(|piece| (*piece).to_string());
    let pieces = pieces.chain(sentinel_pieces(sentinels)).collect();
    Tokenizer::from_pieces(pieces, TokenizerKind::Builtin)
        .expect("the built-in vocabularies hold every required piece")
}

fn ids_by_piece(pieces: &[String]) -> HashMap<&str, u32> {
    let named = pieces
        .iter()
        .enumerate()
        .filter(|(_, piece)| !piece.is_empty());
    // Where a table repeats a piece, SentencePiece uses its first id.
    named
        .rev()
        .map(|(id, piece)| (piece.as_str(), id as u32))
        .collect()
}

/// The id of a piece, or of the piece as a word (`▁A`): `ProtT5` was trained on residues separated
/// by blanks.
fn word(ids: &HashMap<&str, u32>, piece: &str) -> Option<u32> {
    let spaced = format!("\u{2581}{piece}");
    ids.get(piece).or_else(|| ids.get(spaced.as_str())).copied()
}

fn residue_ids(ids: &HashMap<&str, u32>) -> [Option<u32>; 26] {
    std::array::from_fn(|index| {
        let letter = char::from(b'A' + index as u8);
        word(ids, letter.encode_utf8(&mut [0; 4]))
    })
}

/// Tokens in brackets that are neither [NLU] and [S2S] nor special tokens nor sentinels.
fn other_prefixes(ids: &HashMap<&str, u32>) -> Vec<u32> {
    const SPECIAL: [&str; 10] = [
        "<pad>", "</s>", "<unk>", "<s>", "<mask>", "[MASK]", "[CLS]", "[SEP]", "[PAD]", "[UNK]",
    ];
    let is_prefix = |piece: &str| {
        is_bracketed(piece)
            && !SPECIAL.contains(&piece)
            && !["[NLU]", "[S2S]"].contains(&piece)
            && !piece.starts_with("<extra_id_")
            && !piece.starts_with("<0x")
    };
    let found = ids.iter().filter(|(piece, _)| is_prefix(piece));
    let mut found: Vec<u32> = found.map(|(_, id)| *id).collect();
    found.sort_unstable();
    found
}

fn sentinel_ids(ids: &HashMap<&str, u32>) -> Vec<u32> {
    (0..)
        .map_while(|k| ids.get(format!("<extra_id_{k}>").as_str()).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::TaskPrefix;

    #[test]
    fn ankh3_has_its_published_ids() {
        let tokenizer = Tokenizer::ankh3();
        let published = [
            (b'L', 7),
            (b'A', 8),
            (b'G', 9),
            (b'S', 10),
            (b'V', 11),
            (b'E', 12),
            (b'R', 13),
            (b'T', 14),
            (b'I', 15),
            (b'D', 16),
            (b'P', 17),
            (b'K', 18),
            (b'N', 19),
            (b'F', 20),
            (b'Q', 21),
            (b'Y', 22),
            (b'H', 23),
            (b'M', 24),
            (b'C', 25),
            (b'W', 26),
        ];
        for (letter, id) in published {
            assert_eq!(
                tokenizer.residue_id(letter),
                Some(id),
                "{}",
                char::from(letter)
            );
        }
        assert_eq!(
            (tokenizer.pad(), tokenizer.eos(), tokenizer.unk()),
            (0, 1, 2)
        );
        assert_eq!(tokenizer.prefix_id(TaskPrefix::Nlu), Some(4));
        assert_eq!(tokenizer.vocab_size(), 256);
        assert_eq!(tokenizer.num_sentinels(), 225);
        assert_eq!(tokenizer.sentinel(0), Some(255));
        assert_eq!(tokenizer.sentinel(224), Some(31));
        assert_eq!(tokenizer.sentinel(225), None);
    }

    #[test]
    fn ankh_v1_has_its_published_ids() {
        let tokenizer = Tokenizer::ankh_v1();
        for (id, letter) in (3..).zip(*b"ALGVSREDTIPKFQNYMHWCXBOUZ") {
            assert_eq!(
                tokenizer.residue_id(letter),
                Some(id),
                "{}",
                char::from(letter)
            );
        }
        assert_eq!(tokenizer.vocab_size(), 144);
        assert_eq!(tokenizer.sentinel(0), Some(143));
        assert_eq!(tokenizer.sentinel(115), Some(28));
        assert_eq!(tokenizer.prefix_id(TaskPrefix::S2s), None);
    }

    #[test]
    fn a_vocabulary_of_spaced_words_serves_too() {
        let pieces = ["<pad>", "</s>", "<unk>", "\u{2581}A", "\u{2581}X"].map(String::from);
        let tokenizer = Tokenizer::from_pieces(pieces.to_vec(), TokenizerKind::Json).unwrap();
        let ids = tokenizer.encode(b"AU", TaskPrefix::None).unwrap().token_ids;
        assert_eq!(ids, [3, 4, 1]);
    }

    #[test]
    fn a_vocabulary_without_its_end_is_refused() {
        let pieces = vec!["<pad>".to_string(), "<unk>".to_string()];
        let error = Tokenizer::from_pieces(pieces, TokenizerKind::Json).unwrap_err();
        assert_eq!(error, TokenizerError::MissingPiece("</s>"));
    }
}
