//! The names of T5's weights in Hugging Face's `T5ForConditionalGeneration`.
//!
//! ```text
//! shared.weight                                                  embedding table of both stacks
//! STACK.block.I.layer.0.SelfAttention.{q,k,v,o}.weight           STACK: encoder or decoder
//! STACK.block.0.layer.0.SelfAttention.relative_attention_bias.weight
//! decoder.block.I.layer.1.EncDecAttention.{q,k,v,o}.weight
//! STACK.block.I.layer.N.DenseReluDense.{wi_0,wi_1,wi,wo}.weight  N: 1 in the encoder, 2 in the decoder
//! STACK.block.I.layer.J.layer_norm.weight                        before every sub-layer J
//! STACK.final_layer_norm.weight
//! lm_head.weight                                                 missing where embeddings are tied
//! ```

use super::Config;

/// The embedding table, `(vocab_size, d_model)`, that both stacks read.
pub const SHARED: &str = "shared.weight";

/// The names of the embedding table in checkpoints: files name it by one stack or the other, or
/// repeat it.
pub const EMBEDDING_TABLES: [&str; 3] = [
    SHARED,
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
];

/// The projection to logits, `(vocab_size, d_model)`, of a model whose embeddings are not tied.
pub const LM_HEAD: &str = "lm_head.weight";

/// One of T5's two stacks of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// Reads the whole input.
    Encoder,
    /// Writes the output left to right and attends to the encoder's output.
    Decoder,
}

/// The names of one attention's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionNames {
    /// The norm before the attention, `(d_model,)`.
    pub norm: String,
    /// Queries, `(inner_dim, d_model)`.
    pub q: String,
    /// Keys, `(inner_dim, d_model)`.
    pub k: String,
    /// Values, `(inner_dim, d_model)`.
    pub v: String,
    /// The output projection, `(d_model, inner_dim)`.
    pub o: String,
}

/// The names of one feed-forward block's weights; a block has either `wi`, or `wi_0` and `wi_1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedForwardNames {
    /// The norm before the block, `(d_model,)`.
    pub norm: String,
    /// The input projection of a block without a gate, `(d_ff, d_model)`.
    pub wi: String,
    /// The gate of a gated block, `(d_ff, d_model)`.
    pub wi_0: String,
    /// The values that the gate multiplies, `(d_ff, d_model)`.
    pub wi_1: String,
    /// The output projection, `(d_model, d_ff)`.
    pub wo: String,
}

impl Stack {
    /// The first part of the stack's names.
    pub fn as_str(self) -> &'static str {
        match self {
            Stack::Encoder => "encoder",
            Stack::Decoder => "decoder",
        }
    }

    /// Layers of the stack.
    pub fn num_layers(self, config: &Config) -> usize {
        match self {
            Stack::Encoder => config.num_layers,
            Stack::Decoder => config.decoder_layers(),
        }
    }

    /// The self-attention of layer `layer`.
    pub fn self_attention(self, layer: usize) -> AttentionNames {
        attention(&self.sub_layer(layer, 0), "SelfAttention")
    }

    /// The decoder's attention to the encoder's output in layer `layer`.
    pub fn cross_attention(layer: usize) -> AttentionNames {
        attention(&Stack::Decoder.sub_layer(layer, 1), "EncDecAttention")
    }

    /// The feed-forward block of layer `layer`.
    pub fn feed_forward(self, layer: usize) -> FeedForwardNames {
        let at = self.sub_layer(layer, if self == Stack::Encoder { 1 } else { 2 });
        let part = |part: &str| format!("{at}.DenseReluDense.{part}.weight");
        FeedForwardNames {
            norm: format!("{at}.layer_norm.weight"),
            wi: part("wi"),
            wi_0: part("wi_0"),
            wi_1: part("wi_1"),
            wo: part("wo"),
        }
    }

    /// The table of the relative position bias, `(buckets, heads)`; stored in layer 0 and shared by
    /// all layers.
    pub fn position_bias(self) -> String {
        let at = self.sub_layer(0, 0);
        format!("{at}.SelfAttention.relative_attention_bias.weight")
    }

    /// The norm behind the last layer, `(d_model,)`.
    pub fn final_norm(self) -> String {
        format!("{}.final_layer_norm.weight", self.as_str())
    }

    fn sub_layer(self, layer: usize, sub_layer: usize) -> String {
        format!("{}.block.{layer}.layer.{sub_layer}", self.as_str())
    }
}

fn attention(at: &str, module: &str) -> AttentionNames {
    let part = |part: &str| format!("{at}.{module}.{part}.weight");
    AttentionNames {
        norm: format!("{at}.layer_norm.weight"),
        q: part("q"),
        k: part("k"),
        v: part("v"),
        o: part("o"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_hugging_face() {
        let names = Stack::cross_attention(3);
        assert_eq!(names.norm, "decoder.block.3.layer.1.layer_norm.weight");
        assert_eq!(names.k, "decoder.block.3.layer.1.EncDecAttention.k.weight");
        assert_eq!(
            Stack::Encoder.feed_forward(7).wi_1,
            "encoder.block.7.layer.1.DenseReluDense.wi_1.weight"
        );
        assert_eq!(
            Stack::Decoder.feed_forward(0).wo,
            "decoder.block.0.layer.2.DenseReluDense.wo.weight"
        );
        assert_eq!(
            Stack::Encoder.position_bias(),
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        );
    }
}
