//! Names and shapes of every tensor of a T5 in Hugging Face's layout: weight paths as data.

use crate::model::Config;

/// Whether the output projection is a tensor of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LmHead {
    /// `lm_head.weight`: T5 v1.1 and all of Ankh.
    Own,
    /// The transposed embedding table: T5 v1.0.
    Tied,
}

/// One tensor that a checkpoint must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// As in `model.safetensors`.
    pub name: String,
    /// Row-major; a linear layer is `(out, in)`.
    pub shape: Vec<usize>,
}

/// The tensors of `T5ForConditionalGeneration` in the order of the network.
pub fn tensors(config: &Config, lm_head: LmHead) -> Vec<TensorSpec> {
    let table = vec![config.vocab_size, config.d_model];
    let mut list = vec![spec("shared.weight".to_string(), table.clone())];
    stack(
        &mut list,
        config,
        "encoder",
        config.num_layers,
        &["SelfAttention"],
    );
    let decoder = ["SelfAttention", "EncDecAttention"];
    stack(
        &mut list,
        config,
        "decoder",
        config.decoder_layers(),
        &decoder,
    );
    if lm_head == LmHead::Own {
        list.push(spec("lm_head.weight".to_string(), table));
    }
    list
}

fn spec(name: String, shape: Vec<usize>) -> TensorSpec {
    TensorSpec { name, shape }
}

fn stack(
    list: &mut Vec<TensorSpec>,
    config: &Config,
    stack: &str,
    layers: usize,
    attentions: &[&str],
) {
    for block in 0..layers {
        for (layer, kind) in attentions.iter().enumerate() {
            let at = format!("{stack}.block.{block}.layer.{layer}");
            attention(list, config, &at, kind);
            // One table a stack, shared by its layers; cross-attention has none.
            if block == 0 && layer == 0 {
                let name = format!("{at}.{kind}.relative_attention_bias.weight");
                let shape = vec![config.relative_attention_num_buckets, config.num_heads];
                list.push(spec(name, shape));
            }
            list.push(spec(
                format!("{at}.layer_norm.weight"),
                vec![config.d_model],
            ));
        }
        let at = format!("{stack}.block.{block}.layer.{}", attentions.len());
        feed_forward(list, config, &at);
        list.push(spec(
            format!("{at}.layer_norm.weight"),
            vec![config.d_model],
        ));
    }
    list.push(spec(
        format!("{stack}.final_layer_norm.weight"),
        vec![config.d_model],
    ));
}

fn attention(list: &mut Vec<TensorSpec>, config: &Config, at: &str, kind: &str) {
    let inner = config.inner_dim();
    for projection in ["q", "k", "v"] {
        list.push(spec(
            format!("{at}.{kind}.{projection}.weight"),
            vec![inner, config.d_model],
        ));
    }
    list.push(spec(
        format!("{at}.{kind}.o.weight"),
        vec![config.d_model, inner],
    ));
}

fn feed_forward(list: &mut Vec<TensorSpec>, config: &Config, at: &str) {
    let gated = config.feed_forward_proj.is_gated();
    let inputs: &[&str] = if gated { &["wi_0", "wi_1"] } else { &["wi"] };
    for input in inputs {
        let name = format!("{at}.DenseReluDense.{input}.weight");
        list.push(spec(name, vec![config.d_ff, config.d_model]));
    }
    list.push(spec(
        format!("{at}.DenseReluDense.wo.weight"),
        vec![config.d_model, config.d_ff],
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::init::Preset;

    /// Parameter counts that the released models publish (or that follow from their published sizes).
    #[test]
    fn parameters_are_those_of_the_released_models() {
        for (preset, millions) in [(Preset::Large, 1879), (Preset::Xl, 5731)] {
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
