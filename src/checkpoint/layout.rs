//! Names and shapes of every tensor of a T5 in Hugging Face's layout, in the order of the network.

use crate::model::Config;
use crate::model::names::{AttentionNames, LM_HEAD, SHARED, Stack};

/// The output projection of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LmHead {
    /// A tensor of its own, `lm_head.weight`: T5 v1.1 and all Ankh models.
    Own,
    /// The transposed embedding table: T5 v1.0.
    Tied,
}

/// One tensor that a checkpoint must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in `model.safetensors`.
    pub name: String,
    /// The shape of the row-major values; a linear layer is `(out, in)`.
    pub shape: Vec<usize>,
}

/// The tensors of `T5ForConditionalGeneration` in the order of the network.
pub fn tensors(config: &Config, lm_head: LmHead) -> Vec<TensorSpec> {
    let table = vec![config.vocab_size, config.d_model];
    let mut list = vec![spec(SHARED.to_string(), table.clone())];
    stack(&mut list, config, Stack::Encoder);
    stack(&mut list, config, Stack::Decoder);
    if lm_head == LmHead::Own {
        list.push(spec(LM_HEAD.to_string(), table));
    }
    list
}

fn spec(name: String, shape: Vec<usize>) -> TensorSpec {
    TensorSpec { name, shape }
}

fn stack(list: &mut Vec<TensorSpec>, config: &Config, stack: Stack) {
    for layer in 0..stack.num_layers(config) {
        let names = stack.self_attention(layer);
        attention(list, config, &names);
        // The stack's layers share one table; cross-attention has none.
        if layer == 0 {
            let shape = vec![config.relative_attention_num_buckets, config.num_heads];
            list.push(spec(stack.position_bias(), shape));
        }
        list.push(norm(config, names.norm));
        if stack == Stack::Decoder {
            let names = Stack::cross_attention(layer);
            attention(list, config, &names);
            list.push(norm(config, names.norm));
        }
        feed_forward(list, config, stack, layer);
    }
    list.push(norm(config, stack.final_norm()));
}

fn norm(config: &Config, name: String) -> TensorSpec {
    spec(name, vec![config.d_model])
}

fn attention(list: &mut Vec<TensorSpec>, config: &Config, names: &AttentionNames) {
    let inner = config.inner_dim();
    for name in [&names.q, &names.k, &names.v] {
        list.push(spec(name.clone(), vec![inner, config.d_model]));
    }
    list.push(spec(names.o.clone(), vec![config.d_model, inner]));
}

fn feed_forward(list: &mut Vec<TensorSpec>, config: &Config, stack: Stack, layer: usize) {
    let names = stack.feed_forward(layer);
    let inputs = if config.feed_forward_proj.is_gated() {
        vec![names.wi_0, names.wi_1]
    } else {
        vec![names.wi]
    };
    for name in inputs {
        list.push(spec(name, vec![config.d_ff, config.d_model]));
    }
    list.push(spec(names.wo, vec![config.d_model, config.d_ff]));
    list.push(norm(config, names.norm));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::init::ModelPreset;

    /// The parameter counts that are published with the released models, or that follow from their
    /// published sizes.
    #[test]
    fn parameters_are_those_of_the_released_models() {
        for (preset, millions) in [(ModelPreset::Large, 1879), (ModelPreset::Xl, 5731)] {
            let list = tensors(&preset.config(), LmHead::Own);
            let parameters: usize = list
                .iter()
                .map(|spec| spec.shape.iter().product::<usize>())
                .sum();
            let rounded = (parameters as f64 / 1e6).round();
            assert_eq!(rounded, f64::from(millions), "{preset:?}: {parameters}");
        }
    }
}
