//! The encoder stack: what `embed` needs of a checkpoint. Must equal Hugging Face's `T5EncoderModel`.

use candle_core::{Device, Result, Tensor};

use super::layers::{FeedForwardLayer, Norm, SelfAttention, self_plan};
use super::relative_position::{Direction, bias_by_distance};
use super::{Config, Loader, Mode, Packed};
use crate::kernels::attention::Precision;
use crate::kernels::gather::gather;
use crate::kernels::plain::attention_map;
use crate::kernels::plan::{AttentionPlan as Plan, Visibility};

#[derive(Debug)]
struct Layer {
    attention: SelfAttention,
    feed_forward: FeedForwardLayer,
}

/// The encoder with its weights.
#[derive(Debug)]
pub struct Encoder {
    config: Config,
    embedding: Tensor,
    /// `(2 max_distance + 1, heads)`, shared by all layers.
    bias: Tensor,
    layers: Vec<Layer>,
    final_norm: Norm,
}

impl Encoder {
    /// Reads the encoder's tensors, and only those.
    ///
    /// # Errors
    /// Where one is missing or of another shape than `config` says.
    pub fn load(loader: &Loader<'_>, config: &Config) -> Result<Self> {
        let table = loader.tensor_f32(
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            &[config.relative_attention_num_buckets, config.num_heads],
        )?;
        let layers = (0..config.num_layers)
            .map(|i| {
                Ok(Layer {
                    attention: SelfAttention::load(
                        loader,
                        config,
                        &format!("encoder.block.{i}.layer.0"),
                    )?,
                    feed_forward: FeedForwardLayer::load(
                        loader,
                        config,
                        &format!("encoder.block.{i}.layer.1"),
                    )?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            config: config.clone(),
            embedding: loader.tensor("shared.weight", &[config.vocab_size, config.d_model])?,
            bias: bias_by_distance(
                &table,
                Direction::Both,
                config.relative_attention_max_distance,
            )?,
            layers,
            final_norm: Norm::load(loader, config, "encoder.final_layer_norm")?,
        })
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where its weights are.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// The last hidden state of every token, after the final norm: `(tokens, d_model)`.
    ///
    /// # Errors
    /// Where a token id is outside the vocabulary.
    pub fn forward(&self, packed: &Packed) -> Result<Tensor> {
        self.forward_in(packed, Mode::Inference)
    }

    /// [`Encoder::forward`] in inference or training.
    ///
    /// # Errors
    /// Where a token id is outside the vocabulary.
    pub fn forward_in(&self, packed: &Packed, mode: Mode) -> Result<Tensor> {
        self.run(packed, mode, |_, _| ())
    }

    /// Hidden states `(tokens, d_model)` of the layers asked for, numbered as Hugging Face's `hidden_states`: 0 the embeddings, `i` the output of
    /// layer `i`, and `num_layers` the last layer's output after the final norm. In the order of `wanted`.
    ///
    /// # Errors
    /// Where a layer does not exist or a token id is outside the vocabulary.
    pub fn hidden_states(&self, packed: &Packed, wanted: &[usize]) -> Result<Vec<Tensor>> {
        if let Some(layer) = wanted.iter().find(|layer| **layer > self.config.num_layers) {
            candle_core::bail!(
                "layer {layer} of an encoder of {} layers",
                self.config.num_layers
            );
        }
        let mut found: Vec<Option<Tensor>> = vec![None; wanted.len()];
        self.run(packed, Mode::Inference, |number, state| {
            for (slot, _) in found
                .iter_mut()
                .zip(wanted)
                .filter(|(_, layer)| **layer == number)
            {
                *slot = Some(state.clone());
            }
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Shows the attention weights of one sequence to `look`: layer, head, and the map `(tokens, tokens)` in f32, whose rows sum to 1. One head at a time:
    /// memory grows with tokens², not with layers or heads. Slower than [`Encoder::forward`], which never makes a map.
    ///
    /// Must equal Hugging Face's `output_attentions`.
    ///
    /// # Errors
    /// Where a token id is outside the vocabulary, and what `look` meets.
    pub fn attention_maps(
        &self,
        token_ids: &[u32],
        mut look: impl FnMut(usize, usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let packed = Packed::from_segments([token_ids]);
        let plan = self.plan(&packed);
        let mut x = gather(&self.embedding, token_ids)?;
        for (number, layer) in self.layers.iter().enumerate() {
            let (q, keys_values) = layer.attention.project(&x)?;
            for head in 0..plan.heads {
                let segment = &plan.segments[0];
                let map = attention_map(&q, &keys_values, &self.bias, &plan, segment, head)?;
                look(number, head, &map)?;
            }
            x = layer
                .attention
                .forward(&x, &self.bias, &plan, Mode::Inference)?;
            x = layer.feed_forward.forward(&x, Mode::Inference)?;
        }
        Ok(())
    }

    /// Runs all layers, shows each hidden state to `keep`, and returns the last.
    fn run(
        &self,
        packed: &Packed,
        mode: Mode,
        mut keep: impl FnMut(usize, &Tensor),
    ) -> Result<Tensor> {
        let plan = self.plan(packed);
        let mut x = self.embedded(packed, mode)?;
        for number in 0..self.layers.len() {
            keep(number, &x);
            x = self.layer(number, &x, &self.bias, &plan, mode)?;
        }
        let x = self.finished(&x, mode)?;
        keep(self.layers.len(), &x);
        Ok(x)
    }

    /// Who attends to whom: every segment to itself.
    pub fn plan(&self, packed: &Packed) -> Plan {
        let layer = self.layers.first();
        let precision = layer.map_or(Precision::F32, |layer| layer.attention.precision());
        self_plan(&self.config, packed, Visibility::All, precision)
    }

    /// The position bias by distance, `(2 max_distance + 1, heads)`, that all layers share.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// What the first layer reads: `(tokens, d_model)`.
    ///
    /// # Errors
    /// Where a token id is outside the vocabulary.
    pub fn embedded(&self, packed: &Packed, mode: Mode) -> Result<Tensor> {
        let embedded = gather(&self.embedding, &packed.token_ids)?;
        mode.drop(self.layers.len(), &embedded)
    }

    /// Layer `number` alone; `mode` is that of the stack.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn layer(
        &self,
        number: usize,
        x: &Tensor,
        bias: &Tensor,
        plan: &Plan,
        mode: Mode,
    ) -> Result<Tensor> {
        let (layer, mode) = (&self.layers[number], mode.at(number));
        let x = layer.attention.forward(x, bias, plan, mode.at(0))?;
        layer.feed_forward.forward(&x, mode.at(1))
    }

    /// The last layer's output after the final norm.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn finished(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        mode.drop(self.layers.len() + 1, &self.final_norm.forward(x)?)
    }
}
