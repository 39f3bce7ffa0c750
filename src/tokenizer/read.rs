//! Vocabularies from a checkpoint's files: Hugging Face's `tokenizer.json` and SentencePiece's
//! `spiece.model`.

use std::fmt;

use prost::Message;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::vocabulary::sentinel_pieces;
use super::{Tokenizer, TokenizerError, TokenizerKind};

/// The largest number of ids; a file with more is damaged. mT5 has 250,112.
const MAX_IDS: usize = 1 << 19;

/// The two fields of `tokenizer.json` that define the id of a piece.
#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: usize,
    content: String,
}

#[derive(Deserialize)]
struct Model {
    vocab: Vocab,
}

/// Ids and pieces: Unigram's list of pairs, or a map from piece to id.
struct Vocab(Vec<(usize, String)>);

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VocabVisitor).map(Vocab)
    }
}

struct VocabVisitor;

impl VocabVisitor {
    fn checked<E: Error>(pieces: &[(usize, String)]) -> Result<(), E> {
        if pieces.len() > MAX_IDS {
            return Err(E::custom(format!("more than {MAX_IDS} pieces")));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for VocabVisitor {
    type Value = Vec<(usize, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pieces or a map from pieces to ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut pieces = Vec::new();
        while let Some((piece, IgnoredAny)) = list.next_element()? {
            pieces.push((pieces.len(), piece));
            Self::checked(&pieces)?;
        }
        Ok(pieces)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pieces = Vec::new();
        while let Some((piece, id)) = map.next_entry()? {
            pieces.push((id, piece));
            Self::checked(&pieces)?;
        }
        Ok(pieces)
    }
}

/// The message `ModelProto` of `sentencepiece_model.proto`, with the pieces only.
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<SentencePiece>,
}

/// The message `ModelProto.SentencePiece`, without score and type, which have no effect where every
/// residue is one piece.
#[derive(Clone, PartialEq, Message)]
struct SentencePiece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
}

impl Tokenizer {
    /// Reads the vocabulary of a `tokenizer.json` of any model: Unigram's list, or a map from piece
    /// to id.
    pub fn from_tokenizer_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let json: TokenizerJson = serde_json::from_slice(bytes)
            .map_err(|error| TokenizerError::Json(error.to_string()))?;
        let mut pieces = Vec::new();
        for (id, piece) in json.model.vocab.0 {
            place(&mut pieces, id, piece)?;
        }
        for token in json.added_tokens {
            place(&mut pieces, token.id, token.content)?;
        }
        Tokenizer::from_pieces(pieces, TokenizerKind::Json)
    }

    /// Reads a SentencePiece model. T5's sentinels are not in the model: `extra_ids` of them
    /// (`tokenizer_config.json`) follow the pieces, `<extra_id_0>` last. Sentinels inside the model
    /// are found by name.
    pub fn from_spiece(bytes: &[u8], extra_ids: usize) -> Result<Self, TokenizerError> {
        let model = ModelProto::decode(bytes)
            .map_err(|error| TokenizerError::SentencePiece(error.to_string()))?;
        if model.pieces.is_empty() {
            return Err(TokenizerError::SentencePiece(
                "it holds no pieces".to_string(),
            ));
        }
        let pieces: Vec<String> = model
            .pieces
            .into_iter()
            .map(|piece| piece.piece.unwrap_or_default())
            .collect();
        let outside = if pieces.iter().any(|piece| piece == "<extra_id_0>") {
            0
        } else {
            extra_ids
        };
        if pieces.len().saturating_add(outside) > MAX_IDS {
            return Err(TokenizerError::SentencePiece(format!(
                "{} pieces and {outside} sentinels are more than {MAX_IDS} ids",
                pieces.len()
            )));
        }
        let pieces = pieces.into_iter().chain(sentinel_pieces(outside)).collect();
        Tokenizer::from_pieces(pieces, TokenizerKind::SentencePiece)
    }

    /// This vocabulary with further tokens at their ids, such as `ProstT5`'s `<AA2fold>`.
    ///
    /// # Errors
    /// An id that has another piece, or that is too large.
    pub fn with_added_tokens(self, tokens: Vec<(usize, String)>) -> Result<Self, TokenizerError> {
        let mut pieces = self.pieces;
        for (id, token) in tokens {
            if let Some(piece) = pieces.get(id).filter(|piece| !piece.is_empty())
                && *piece != token
            {
                let piece = piece.clone();
                return Err(TokenizerError::TwoPieces { id, piece, token });
            }
            place(&mut pieces, id, token)?;
        }
        Tokenizer::from_pieces(pieces, self.kind)
    }
}

fn place(pieces: &mut Vec<String>, id: usize, piece: String) -> Result<(), TokenizerError> {
    if id >= MAX_IDS {
        return Err(TokenizerError::Json(format!(
            "piece `{piece}` has the id {id}"
        )));
    }
    if id >= pieces.len() {
        pieces.resize(id + 1, String::new());
    }
    pieces[id] = piece;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spiece(pieces: &[&str]) -> Vec<u8> {
        let pieces = pieces
            .iter()
            .map(|piece| SentencePiece {
                piece: Some((*piece).to_string()),
            })
            .collect();
        ModelProto { pieces }.encode_to_vec()
    }

    #[test]
    fn spiece_numbers_its_sentinels_after_its_pieces() {
        let reference = Tokenizer::ankh3();
        let inner: Vec<&str> = reference.pieces()[..31]
            .iter()
            .map(String::as_str)
            .collect();
        let read = Tokenizer::from_spiece(&spiece(&inner), 225).unwrap();
        assert_eq!(read.pieces(), reference.pieces());
        assert_eq!(read.sentinel(0), Some(255));
    }

    #[test]
    fn spiece_with_sentinels_inside_gets_no_more() {
        let bytes = spiece(&[
            "<pad>",
            "</s>",
            "<unk>",
            "A",
            "<extra_id_1>",
            "<extra_id_0>",
        ]);
        let read = Tokenizer::from_spiece(&bytes, 100).unwrap();
        assert_eq!(
            (read.vocab_size(), read.sentinel(0), read.num_sentinels()),
            (6, Some(5), 2)
        );
    }

    #[test]
    fn tokenizer_json_of_either_model_gives_the_same_ids() {
        let added = json!([{"id": 4, "content": "<extra_id_0>", "special": true}]);
        let list = json!([["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["A", -2.5]]);
        let map = json!({"A": 3, "<unk>": 2, "</s>": 1, "<pad>": 0});
        let read = |vocab: &Value| {
            let file = json!({"added_tokens": added, "model": {"type": "any", "vocab": vocab}});
            Tokenizer::from_tokenizer_json(&serde_json::to_vec(&file).unwrap()).unwrap()
        };
        assert_eq!(read(&list), read(&map));
        assert_eq!(read(&list).sentinel(0), Some(4));
    }

    #[test]
    fn damage_is_named() {
        for (bytes, expected) in [
            (&b"{\"model\": "[..], "EOF"),
            (
                b"{\"model\": {\"vocab\": 3}}",
                "expected a list of pieces or a map",
            ),
            (b"{}", "missing field `model`"),
        ] {
            let error = Tokenizer::from_tokenizer_json(bytes)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(expected) && error.contains("spiece.model"),
                "{error}"
            );
        }
        let error = Tokenizer::from_spiece(b"", 0).unwrap_err().to_string();
        assert!(error.contains("no pieces"), "{error}");
        assert!(Tokenizer::from_spiece(b"version https://git-lfs", 0).is_err());
    }
}
