//! Vocabularies as the files that Hugging Face's `AutoTokenizer` loads (transformers 4 and 5), with
//! the ids of [`Tokenizer::encode`].
//!
//! The class is the generic `PreTrainedTokenizerFast`, because `T5Tokenizer` of transformers 5
//! replaces the pre-tokenizer of `tokenizer.json` by one that puts `▁` before every text. The
//! normalizer rewrites letters without an id of their own to `X`, as [`Tokenizer::encode`] does.

use serde_json::{Value, json};

use super::Tokenizer;

impl Tokenizer {
    /// The content of `tokenizer.json`, for vocabularies whose residues are bare letters, as in all
    /// Ankh models.
    pub fn to_tokenizer_json(&self) -> Vec<u8> {
        let eos = self.piece(self.eos);
        let end = json!({"SpecialToken": {"id": eos, "type_id": 0}});
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        pretty(&json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added_tokens(),
            "normalizer": self.normalizer(),
            "pre_tokenizer": null,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [text("A"), end],
                "pair": [text("A"), end, text("B"), end],
                "special_tokens": {eos: {"id": eos, "ids": [self.eos], "tokens": [eos]}},
            },
            "decoder": {"type": "Fuse"},
            "model": {
                "type": "Unigram",
                "unk_id": self.unk,
                "vocab": self.pieces.iter().map(|piece| json!([piece, 0.0])).collect::<Vec<_>>(),
                "byte_fallback": false,
            },
        }))
    }

    /// The content of `tokenizer_config.json`.
    pub fn to_tokenizer_config(&self) -> Vec<u8> {
        pretty(&json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "pad_token": self.piece(self.pad),
            "eos_token": self.piece(self.eos),
            "unk_token": self.piece(self.unk),
            "additional_special_tokens": self.sentinel_names(),
            "extra_ids": self.num_sentinels(),
            "model_input_names": ["input_ids", "attention_mask"],
        }))
    }

    /// The content of `special_tokens_map.json`.
    pub fn to_special_tokens_map(&self) -> Vec<u8> {
        pretty(&json!({
            "pad_token": self.piece(self.pad),
            "eos_token": self.piece(self.eos),
            "unk_token": self.piece(self.unk),
            "additional_special_tokens": self.sentinel_names(),
        }))
    }

    fn sentinel_names(&self) -> Vec<&str> {
        self.sentinels.iter().map(|id| self.piece(*id)).collect()
    }

    /// Pieces of several letters must be found before the text is split. Prefixes are ordinary
    /// pieces, not special ones.
    fn added_tokens(&self) -> Vec<Value> {
        let others = self.other_prefixes.iter().copied();
        let prefixes = self.nlu.into_iter().chain(self.s2s).chain(others);
        let ordinary = prefixes.map(|id| (id, false));
        let special = [self.pad, self.eos, self.unk]
            .into_iter()
            .chain(self.sentinels.clone());
        let mut tokens: Vec<_> = special.map(|id| (id, true)).chain(ordinary).collect();
        tokens.sort_unstable();
        tokens
            .into_iter()
            .map(|(id, special)| self.added_token(id, special))
            .collect()
    }

    fn added_token(&self, id: u32, special: bool) -> Value {
        json!({
            "id": id, "content": self.piece(id), "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": special,
        })
    }

    fn normalizer(&self) -> Value {
        let absent = (b'A'..=b'Z').filter(|letter| self.residue_id(*letter).is_none());
        let rewritten = absent.map(|letter| {
            let letter = char::from(letter).to_string();
            json!({"type": "Replace", "pattern": {"String": letter}, "content": "X"})
        });
        json!({"type": "Sequence", "normalizers": rewritten.collect::<Vec<_>>()})
    }
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("a JSON value always serialises");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::TaskPrefix;

    #[test]
    fn what_is_written_is_read_back() {
        for tokenizer in [Tokenizer::ankh3(), Tokenizer::ankh_v1()] {
            let read = Tokenizer::from_tokenizer_json(&tokenizer.to_tokenizer_json()).unwrap();
            assert_eq!(read.pieces(), tokenizer.pieces());
            let text = b"MKAYVLINSRGPXUBZOJ";
            for prefix in [tokenizer.default_prefix(), TaskPrefix::None] {
                assert_eq!(read.encode(text, prefix), tokenizer.encode(text, prefix));
            }
        }
    }
}
