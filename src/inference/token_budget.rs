//! The largest batch that fits into the free memory of a GPU, in tokens.

use crate::model::Config;

/// Enough tokens to keep every GPU busy; more would only delay the first result.
const MOST: usize = 65_536;
const LEAST: usize = 1024;

/// The parts of a network that are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadedStacks {
    /// The encoder alone.
    Encoder,
    /// The encoder and the decoder.
    Both,
}

/// Tokens whose activations fit into `free` bytes beside the weights, with `size` bytes per value.
/// A tenth of the memory is left to the driver and to cuBLAS.
///
/// A token needs the most memory in the feed-forward block: its residual and the normed copy, both
/// inputs of the gate, the gated product and the output; and in addition the final states in f32.
pub fn token_budget(config: &Config, stacks: LoadedStacks, free: usize, size: usize) -> usize {
    let inner = config.inner_dim();
    let attention = 2 * config.d_model * inner + 2 * inner * config.d_model;
    let layer = attention + 3 * config.d_model * config.d_ff;
    // A decoder's layer attends twice.
    let decoder_layers = match stacks {
        LoadedStacks::Both => config.decoder_layers(),
        LoadedStacks::Encoder => 0,
    };
    let decoder = decoder_layers * (layer + attention);
    let embeddings = config.vocab_size * config.d_model;
    let weights = size * (config.num_layers * layer + decoder + embeddings);
    // Keys and values of every layer of the decoder stay in memory.
    let source = decoder_layers * 2 * inner;
    let widest = 4 * config.d_model + 3 * config.d_ff + 4 * inner;
    let token = size * (widest + source) + 8 * config.d_model;
    let room = (free / 10 * 9).saturating_sub(weights);
    (room / token).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FeedForward;

    #[test]
    fn large_gpus_are_kept_busy_and_small_ones_spared() {
        let large = Config {
            vocab_size: 256,
            d_model: 1536,
            d_kv: 64,
            d_ff: 3840,
            num_layers: 48,
            num_decoder_layers: Some(24),
            num_heads: 16,
            relative_attention_num_buckets: 64,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: FeedForward::GatedSilu,
            tie_word_embeddings: false,
            scale_decoder_outputs: None,
            dropout_rate: 0.0,
            pad_token_id: 0,
            eos_token_id: 1,
            decoder_start_token_id: 0,
        };
        let gib = |n: usize| n << 30;
        assert_eq!(token_budget(&large, LoadedStacks::Both, gib(80), 2), MOST);
        // 2.4 GB of weights, 51 KB per token.
        let budget = token_budget(&large, LoadedStacks::Encoder, gib(4), 2);
        assert!((20_000..40_000).contains(&budget), "{budget}");
        // 1.6 GB more.
        let less = token_budget(&large, LoadedStacks::Both, gib(4), 2);
        assert!((1024..budget / 2).contains(&less), "{less}");
        assert_eq!(
            token_budget(&large, LoadedStacks::Encoder, gib(1), 2),
            LEAST
        );
    }
}
