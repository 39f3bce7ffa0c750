//! The encoder stack: the only part of a checkpoint that `embed` reads. Must equal Hugging Face's
//! `T5EncoderModel`.

use candle_core::{Device, Result, Tensor};

use super::layers::{FeedForwardLayer, Norm, SelfAttention, self_plan};
use super::mode::{DropoutPlace, SubLayerDropout};
use super::names::{SHARED, Stack};
use super::relative_position::{Direction, bias_by_distance};
use super::{Config, Loader, Mode, Packed};
use crate::kernels::gather::gather;
use crate::kernels::plain::attention_map;
use crate::kernels::plan::{AttentionPlan, Precision, Visibility};

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
    /// Reads the encoder's tensors and no others.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape than `config` says.
    pub fn load(loader: &Loader<'_>, config: &Config) -> Result<Self> {
        let table = loader.tensor_f32(
            &Stack::Encoder.position_bias(),
            &[config.relative_attention_num_buckets, config.num_heads],
        )?;
        let layers = (0..config.num_layers)
            .map(|i| {
                Ok(Layer {
                    attention: SelfAttention::load(
                        loader,
                        config,
                        &Stack::Encoder.self_attention(i),
                    )?,
                    feed_forward: FeedForwardLayer::load(
                        loader,
                        config,
                        &Stack::Encoder.feed_forward(i),
                    )?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            config: config.clone(),
            embedding: loader.tensor(SHARED, &[config.vocab_size, config.d_model])?,
            bias: bias_by_distance(
                &table,
                Direction::of(Stack::Encoder),
                config.relative_attention_max_distance,
            )?,
            layers,
            final_norm: Norm::load(loader, config, &Stack::Encoder.final_norm())?,
        })
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device that holds the weights.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// The last hidden state of every token, after the final norm: `(tokens, d_model)`.
    ///
    /// # Errors
    /// A token id outside the vocabulary.
    pub fn forward(&self, packed: &Packed) -> Result<Tensor> {
        self.forward_in(packed, Mode::Inference)
    }

    /// [`Encoder::forward`] in inference or training.
    ///
    /// # Errors
    /// A token id outside the vocabulary.
    pub fn forward_in(&self, packed: &Packed, mode: Mode) -> Result<Tensor> {
        self.run(packed, mode, |_, _| ())
    }

    /// Hidden states `(tokens, d_model)` of the layers `wanted`, in that order. Layers are numbered
    /// as in Hugging Face's `hidden_states`: 0 is the embeddings, `i` the output of layer `i`, and
    /// `num_layers` the last layer's output after the final norm.
    ///
    /// # Errors
    /// A layer that does not exist, or a token id outside the vocabulary.
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

    /// Passes the attention weights of one sequence to `look`: layer, head, and the map
    /// `(tokens, tokens)` in f32, whose rows sum to 1. One head at a time, so memory grows with
    /// tokens², not with layers or heads. Slower than [`Encoder::forward`], which never computes a
    /// whole map.
    ///
    /// Must equal Hugging Face's `output_attentions`.
    ///
    /// # Errors
    /// A token id outside the vocabulary, and the errors of `look`.
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
            let dropout = SubLayerDropout::default();
            x = layer.attention.forward(&x, &self.bias, &plan, dropout)?;
            x = layer.feed_forward.forward(&x, dropout)?;
        }
        Ok(())
    }

    /// Runs all layers, passes each hidden state to `keep`, and returns the last one.
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

    /// The plan of the self-attention: every segment attends to itself.
    pub fn plan(&self, packed: &Packed) -> AttentionPlan {
        let layer = self.layers.first();
        let precision = layer.map_or(Precision::F32, |layer| layer.attention.precision());
        self_plan(&self.config, packed, Visibility::All, precision)
    }

    /// The position bias by distance, `(2 max_distance + 1, heads)`, that all layers share.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// The input of the first layer: `(tokens, d_model)`.
    ///
    /// # Errors
    /// A token id outside the vocabulary.
    pub fn embedded(&self, packed: &Packed, mode: Mode) -> Result<Tensor> {
        let embedded = gather(&self.embedding, &packed.token_ids)?;
        mode.drop(DropoutPlace::Embedding, &embedded)
    }

    /// Layer `number` alone.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn layer(
        &self,
        number: usize,
        x: &Tensor,
        bias: &Tensor,
        plan: &AttentionPlan,
        mode: Mode,
    ) -> Result<Tensor> {
        let layer = &self.layers[number];
        let dropout = mode.sub_layer(DropoutPlace::SelfAttention(number));
        let x = layer.attention.forward(x, bias, plan, dropout)?;
        let dropout = mode.sub_layer(DropoutPlace::FeedForward(number));
        layer.feed_forward.forward(&x, dropout)
    }

    /// The last layer's output after the final norm.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn finished(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        mode.drop(DropoutPlace::FinalNorm, &self.final_norm.forward(x)?)
    }
}
