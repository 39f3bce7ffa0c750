//! The decoder stack: causal self-attention, attention to the source, feed-forward, and the projection to logits.
//!
//! Two ways to run it, with the same numbers: all target positions at once ([`Decoder::forward`], teacher forcing), or one position after the other
//! with the keys and values of earlier ones kept ([`Decoder::step`]). Must equal the decoder of Hugging Face's `T5ForConditionalGeneration`.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::cache::{DecoderCache, Slot};
use super::layers::{CrossAttention, FeedForwardLayer, Norm, SelfAttention, self_plan};
use super::relative_position::{Direction, bias_by_distance};
use super::rows::Rows;
use super::source::Source;
use super::{Config, Loader, Mode, Packed};
use crate::kernels::attention::{Precision, attention};
use crate::kernels::gather::gather;
use crate::kernels::linear::Weight;
use crate::kernels::plan::{AttentionPlan as Plan, Segment, Visibility};
use crate::kernels::zeros;

#[derive(Debug)]
struct Layer {
    self_attention: SelfAttention,
    cross_attention: CrossAttention,
    feed_forward: FeedForwardLayer,
}

/// The decoder with its weights.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    embedding: Tensor,
    bias: Tensor,
    layers: Vec<Layer>,
    final_norm: Norm,
    head: Weight,
    cache_dtype: DType,
    /// Applied before the head: `d_model^-0.5` where embeddings are tied.
    scale: Option<f64>,
}

/// One sequence's share of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepInput {
    /// The token decoded last (at first the start token).
    pub token_id: u32,
    /// Its slot in the cache.
    pub slot: usize,
    /// Its source.
    pub source: usize,
}

/// Who attends to whom.
#[derive(Clone, Debug)]
pub struct Plans {
    /// Within the target.
    target: Plan,
    /// From the target to its sources.
    source: Plan,
}

impl Decoder {
    /// Reads the decoder's tensors and the head.
    ///
    /// # Errors
    /// Where one is missing or of another shape than `config` says.
    pub fn load(loader: &Loader<'_>, config: &Config) -> Result<Self> {
        let table = loader.tensor_f32(
            "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            &[config.relative_attention_num_buckets, config.num_heads],
        )?;
        let layers = (0..config.decoder_layers())
            .map(|i| {
                let name = |layer: usize| format!("decoder.block.{i}.layer.{layer}");
                Ok(Layer {
                    self_attention: SelfAttention::load(loader, config, &name(0))?,
                    cross_attention: CrossAttention::load(loader, config, &name(1))?,
                    feed_forward: FeedForwardLayer::load(loader, config, &name(2))?,
                })
            })
            .collect::<Result<_>>()?;
        let has_head = loader.source.has("lm_head.weight");
        let head = if has_head {
            "lm_head.weight"
        } else {
            "shared.weight"
        };
        Ok(Self {
            config: config.clone(),
            embedding: loader.tensor("shared.weight", &[config.vocab_size, config.d_model])?,
            bias: bias_by_distance(
                &table,
                Direction::Past,
                config.relative_attention_max_distance,
            )?,
            layers,
            final_norm: Norm::load(loader, config, "decoder.final_layer_norm")?,
            head: loader.head(head, config.vocab_size, config.d_model)?,
            cache_dtype: loader.cache_dtype(),
            scale: config
                .scales_logits(has_head)
                .then(|| (config.d_model as f64).powf(-0.5)),
        })
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Prepares encoded sequences, `(tokens, d_model)` in the segments of `packed`, for [`Decoder::forward`] and [`Decoder::step`].
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn source(&self, encoded: &Tensor, packed: &Packed) -> Result<Source> {
        let keys_values = self
            .layers
            .iter()
            .map(|layer| layer.cross_attention.source(encoded))
            .collect::<Result<_>>()?;
        Ok(Source {
            keys_values,
            segments: packed.segments().collect(),
            rows: Rows::default(),
        })
    }

    /// Room for encoded sequences of `rows` tokens in all, which come and go.
    ///
    /// # Errors
    /// Where the device runs out of memory.
    pub fn sources(&self, rows: usize) -> Result<Source> {
        Ok(Source {
            keys_values: self.room(rows)?,
            segments: Vec::new(),
            rows: Rows::new(rows),
        })
    }

    /// Logits `(target tokens, vocab)` at every position; target segment `i` reads source `sources[i]`.
    ///
    /// # Errors
    /// Where a token id is outside the vocabulary or a source does not exist.
    pub fn forward(&self, target: &Packed, sources: &[usize], source: &Source) -> Result<Tensor> {
        self.forward_in(target, sources, source, Mode::Inference)
    }

    /// [`Decoder::forward`] in inference or training.
    ///
    /// # Errors
    /// Where a token id is outside the vocabulary or a source does not exist.
    pub fn forward_in(
        &self,
        target: &Packed,
        sources: &[usize],
        source: &Source,
        mode: Mode,
    ) -> Result<Tensor> {
        let plans = self.plans(target, sources, &source.segments)?;
        let mut x = self.embedded(target, mode)?;
        for (number, keys_values) in source.keys_values.iter().enumerate() {
            x = self.layer(number, &x, keys_values, &self.bias, &plans, mode)?;
        }
        self.finished(&x, mode)
    }

    /// Who attends to whom when target segment `i` reads segment `sources[i]` of `segments`.
    ///
    /// # Errors
    /// Where a source does not exist.
    pub fn plans(
        &self,
        target: &Packed,
        sources: &[usize],
        segments: &[Range<usize>],
    ) -> Result<Plans> {
        Ok(Plans {
            target: self_plan(&self.config, target, Visibility::Causal, Precision::F32),
            source: self.cross_plan(target.segments().zip(sources), segments)?,
        })
    }

    /// The position bias by distance, `(2 max_distance + 1, heads)`, that all layers share.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// What the first layer reads: `(target tokens, d_model)`.
    ///
    /// # Errors
    /// Where a token id is outside the vocabulary.
    pub fn embedded(&self, target: &Packed, mode: Mode) -> Result<Tensor> {
        let embedded = gather(&self.embedding, &target.token_ids)?;
        mode.drop(self.layers.len(), &embedded)
    }

    /// Keys beside values that layer `number` makes of the encoder's output.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn keys_values(&self, number: usize, encoded: &Tensor) -> Result<Tensor> {
        self.layers[number].cross_attention.source(encoded)
    }

    /// Layer `number` alone; `mode` is that of the stack.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn layer(
        &self,
        number: usize,
        x: &Tensor,
        keys_values: &Tensor,
        bias: &Tensor,
        plans: &Plans,
        mode: Mode,
    ) -> Result<Tensor> {
        let (layer, mode) = (&self.layers[number], mode.at(number));
        let attention = &layer.self_attention;
        let x = attention.forward(x, bias, &plans.target, mode.at(0))?;
        let attention = &layer.cross_attention;
        let x = attention.forward(&x, keys_values, &plans.source, mode.at(1))?;
        layer.feed_forward.forward(&x, mode.at(2))
    }

    /// Logits of the last layer's output; `mode` is that of the stack.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn finished(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.logits(x, mode.at(self.layers.len() + 1))
    }

    /// An empty cache with `slots` open slots of `capacity` positions.
    ///
    /// # Errors
    /// Where the device runs out of memory.
    pub fn cache(&self, slots: usize, capacity: usize) -> Result<DecoderCache> {
        let mut cache = self.cache_of(slots * capacity)?;
        cache.rows = Rows::default();
        cache.slots = (0..slots)
            .map(|slot| Slot {
                rows: slot * capacity..(slot + 1) * capacity,
                length: 0,
            })
            .collect();
        Ok(cache)
    }

    /// An empty cache of `rows` positions in all, for slots that open and close.
    ///
    /// # Errors
    /// Where the device runs out of memory.
    pub fn cache_of(&self, rows: usize) -> Result<DecoderCache> {
        Ok(DecoderCache {
            layers: self.room(rows)?,
            slots: Vec::new(),
            rows: Rows::new(rows),
        })
    }

    /// `(rows, 2 heads d_kv)` for every layer.
    fn room(&self, rows: usize) -> Result<Vec<Tensor>> {
        let shape = (rows, 2 * self.config.inner_dim());
        self.layers
            .iter()
            .map(|_| zeros(shape, self.cache_dtype, self.embedding.device()))
            .collect()
    }

    /// Advances each sequence by one token and returns the logits `(inputs, vocab)` that follow it.
    ///
    /// # Errors
    /// Where a slot is full, occurs twice, or a source does not exist.
    pub fn step(
        &self,
        inputs: &[StepInput],
        cache: &mut DecoderCache,
        source: &Source,
    ) -> Result<Tensor> {
        let plan = self.step_plan(inputs, cache)?;
        let rows = (0..inputs.len()).map(|row| row..row + 1);
        let sources: Vec<usize> = inputs.iter().map(|input| input.source).collect();
        let cross_plan = self.cross_plan(rows.zip(&sources), &source.segments)?;
        let token_ids: Vec<u32> = inputs.iter().map(|input| input.token_id).collect();
        let mut x = gather(&self.embedding, &token_ids)?;
        for ((layer, kept), keys_values) in self
            .layers
            .iter()
            .zip(&cache.layers)
            .zip(&source.keys_values)
        {
            let (q, kv) = layer.self_attention.project(&x)?;
            let kv = kv.contiguous()?.to_dtype(kept.dtype())?;
            for (row, input) in inputs.iter().enumerate() {
                let (position, _) = cache.next(input.slot)?;
                kept.slice_set(&kv.narrow(0, row, 1)?, 0, position)?;
            }
            let mixed = attention(&q, kept, Some(&self.bias), &plan, None)?;
            x = layer.self_attention.finish(&mixed, &x)?;
            x = layer
                .cross_attention
                .forward(&x, keys_values, &cross_plan, Mode::Inference)?;
            x = layer.feed_forward.forward(&x, Mode::Inference)?;
        }
        for input in inputs {
            cache.slots[input.slot].length += 1;
        }
        self.logits(&x, Mode::Inference)
    }

    fn step_plan(&self, inputs: &[StepInput], cache: &DecoderCache) -> Result<Plan> {
        let mut seen = vec![false; cache.slots()];
        let mut segments = Vec::with_capacity(inputs.len());
        for (row, input) in inputs.iter().enumerate() {
            let (_, keys) = cache.next(input.slot)?;
            if std::mem::replace(&mut seen[input.slot], true) {
                candle_core::bail!("slot {} occurs twice in one step", input.slot);
            }
            segments.push(Segment {
                queries: row..row + 1,
                first_position: keys.len() - 1,
                keys,
            });
        }
        Ok(self.plan(Visibility::Causal, segments.into()))
    }

    fn cross_plan<'a>(
        &self,
        targets: impl Iterator<Item = (Range<usize>, &'a usize)>,
        sources: &[Range<usize>],
    ) -> Result<Plan> {
        let segments = targets
            .map(|(queries, index)| match sources.get(*index) {
                Some(keys) => Ok(Segment {
                    queries,
                    keys: keys.clone(),
                    first_position: 0,
                }),
                None => candle_core::bail!("source {index} of {}", sources.len()),
            })
            .collect::<Result<Arc<[_]>>>()?;
        Ok(self.plan(Visibility::All, segments))
    }

    fn plan(&self, visibility: Visibility, segments: Arc<[Segment]>) -> Plan {
        Plan {
            heads: self.config.num_heads,
            d_kv: self.config.d_kv,
            visibility,
            segments,
            precision: Precision::F32,
        }
    }

    fn logits(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let x = mode.drop(0, &self.final_norm.forward(x)?)?;
        match self.scale {
            Some(scale) => self.head.forward(&(x * scale)?),
            None => self.head.forward(&x),
        }
    }
}
