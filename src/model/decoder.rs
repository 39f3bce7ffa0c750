//! The decoder stack: causal self-attention, attention to the source, feed-forward, and the
//! projection to logits.
//!
//! The decoder runs in two ways, with the same numbers: all target positions at once
//! ([`Decoder::forward`], teacher forcing), or one position after the other with the keys and
//! values of earlier positions cached ([`Decoder::step`]). Must equal the decoder of Hugging Face's
//! `T5ForConditionalGeneration`.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::cache::{DecoderCache, Slot};
use super::layers::{CrossAttention, FeedForwardLayer, Norm, SelfAttention, self_plan};
use super::mode::{DropoutPlace, SubLayerDropout};
use super::names::{LM_HEAD, SHARED, Stack};
use super::relative_position::{Direction, bias_by_distance};
use super::rows::FreeRows;
use super::source::DecoderSource;
use super::{Config, Loader, Mode, Packed};
use crate::kernels::attention::attention;
use crate::kernels::gather::gather;
use crate::kernels::linear::Weight;
use crate::kernels::plan::{AttentionPlan, Precision, Segment, Visibility};
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
    /// Factor before the head: `d_model^-0.5` where embeddings are tied.
    scale: Option<f64>,
}

/// One sequence in a step of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepInput {
    /// The token decoded last, or the start token.
    pub token_id: u32,
    /// The sequence's slot in the cache.
    pub slot: usize,
    /// The number of the encoded sequence that this sequence attends to.
    pub source: usize,
}

/// The plans of both attentions of a decoder.
#[derive(Clone, Debug)]
pub struct DecoderPlans {
    /// Self-attention within the target.
    target: AttentionPlan,
    /// Attention from the target to its sources.
    source: AttentionPlan,
}

impl Decoder {
    /// Reads the decoder's tensors and the head.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape than `config` says.
    pub fn load(loader: &Loader<'_>, config: &Config) -> Result<Self> {
        let table = loader.tensor_f32(
            &Stack::Decoder.position_bias(),
            &[config.relative_attention_num_buckets, config.num_heads],
        )?;
        let layers = (0..config.decoder_layers())
            .map(|i| {
                let self_attention = Stack::Decoder.self_attention(i);
                let cross_attention = Stack::cross_attention(i);
                let feed_forward = Stack::Decoder.feed_forward(i);
                Ok(Layer {
                    self_attention: SelfAttention::load(loader, config, &self_attention)?,
                    cross_attention: CrossAttention::load(loader, config, &cross_attention)?,
                    feed_forward: FeedForwardLayer::load(loader, config, &feed_forward)?,
                })
            })
            .collect::<Result<_>>()?;
        let has_head = loader.source.has(LM_HEAD);
        // A model that is neither tied nor has a head cannot name tokens: an error of the loader.
        let is_tied = !has_head && config.tie_word_embeddings;
        let head = if is_tied { SHARED } else { LM_HEAD };
        Ok(Self {
            config: config.clone(),
            embedding: loader.tensor(SHARED, &[config.vocab_size, config.d_model])?,
            bias: bias_by_distance(
                &table,
                Direction::of(Stack::Decoder),
                config.relative_attention_max_distance,
            )?,
            layers,
            final_norm: Norm::load(loader, config, &Stack::Decoder.final_norm())?,
            head: loader.head(head, config.vocab_size, config.d_model)?,
            cache_dtype: loader.cache_dtype(),
            scale: config
                .scales_logits(has_head)
                .then(|| (config.d_model as f64).powf(-0.5)),
        })
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Prepares encoded sequences, `(tokens, d_model)` in the segments of `packed`, for
    /// [`Decoder::forward`] and [`Decoder::step`].
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn source(&self, encoded: &Tensor, packed: &Packed) -> Result<DecoderSource> {
        let keys_values = self
            .layers
            .iter()
            .map(|layer| layer.cross_attention.source(encoded))
            .collect::<Result<_>>()?;
        Ok(DecoderSource {
            keys_values,
            segments: packed.segments().collect(),
            rows: FreeRows::default(),
        })
    }

    /// Room for encoded sequences of `rows` tokens in total, which are added and removed during
    /// decoding.
    ///
    /// # Errors
    /// A device that runs out of memory.
    pub fn sources(&self, rows: usize) -> Result<DecoderSource> {
        Ok(DecoderSource {
            keys_values: self.room(rows)?,
            segments: Vec::new(),
            rows: FreeRows::new(rows),
        })
    }

    /// Logits `(target tokens, vocab)` at every position; target segment `i` attends to source
    /// `sources[i]`.
    ///
    /// # Errors
    /// A token id outside the vocabulary, or a source that does not exist.
    pub fn forward(
        &self,
        target: &Packed,
        sources: &[usize],
        source: &DecoderSource,
    ) -> Result<Tensor> {
        self.forward_in(target, sources, source, Mode::Inference)
    }

    /// [`Decoder::forward`] in inference or training.
    ///
    /// # Errors
    /// A token id outside the vocabulary, or a source that does not exist.
    pub fn forward_in(
        &self,
        target: &Packed,
        sources: &[usize],
        source: &DecoderSource,
        mode: Mode,
    ) -> Result<Tensor> {
        let plans = self.plans(target, sources, &source.segments)?;
        let mut x = self.embedded(target, mode)?;
        for (number, keys_values) in source.keys_values.iter().enumerate() {
            x = self.layer(number, &x, keys_values, &self.bias, &plans, mode)?;
        }
        self.finished(&x, mode)
    }

    /// The plans of both attentions where target segment `i` attends to segment `sources[i]` of
    /// `segments`.
    ///
    /// # Errors
    /// A source that does not exist.
    pub fn plans(
        &self,
        target: &Packed,
        sources: &[usize],
        segments: &[Range<usize>],
    ) -> Result<DecoderPlans> {
        Ok(DecoderPlans {
            target: self_plan(&self.config, target, Visibility::Causal, Precision::F32),
            source: self.cross_plan(target.segments().zip(sources), segments)?,
        })
    }

    /// The position bias by distance, `(2 max_distance + 1, heads)`, that all layers share.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// The input of the first layer: `(target tokens, d_model)`.
    ///
    /// # Errors
    /// A token id outside the vocabulary.
    pub fn embedded(&self, target: &Packed, mode: Mode) -> Result<Tensor> {
        let embedded = gather(&self.embedding, &target.token_ids)?;
        mode.drop(DropoutPlace::Embedding, &embedded)
    }

    /// Keys and values, side by side, that layer `number` computes from the encoder's output.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn keys_values(&self, number: usize, encoded: &Tensor) -> Result<Tensor> {
        self.layers[number].cross_attention.source(encoded)
    }

    /// Layer `number` alone.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn layer(
        &self,
        number: usize,
        x: &Tensor,
        keys_values: &Tensor,
        bias: &Tensor,
        plans: &DecoderPlans,
        mode: Mode,
    ) -> Result<Tensor> {
        let layer = &self.layers[number];
        let dropout = mode.sub_layer(DropoutPlace::SelfAttention(number));
        let attention = &layer.self_attention;
        let x = attention.forward(x, bias, &plans.target, dropout)?;
        let dropout = mode.sub_layer(DropoutPlace::CrossAttention(number));
        let attention = &layer.cross_attention;
        let x = attention.forward(&x, keys_values, &plans.source, dropout)?;
        let dropout = mode.sub_layer(DropoutPlace::FeedForward(number));
        layer.feed_forward.forward(&x, dropout)
    }

    /// Logits of the last layer's output.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn finished(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let x = mode.drop(DropoutPlace::FinalNorm, &self.final_norm.forward(x)?)?;
        match self.scale {
            Some(scale) => self.head.forward(&(x * scale)?),
            None => self.head.forward(&x),
        }
    }

    /// An empty cache with `slots` open slots of `capacity` positions each.
    ///
    /// # Errors
    /// A device that runs out of memory.
    pub fn cache(&self, slots: usize, capacity: usize) -> Result<DecoderCache> {
        let mut cache = self.cache_of(slots * capacity)?;
        cache.rows = FreeRows::default();
        cache.slots = (0..slots)
            .map(|slot| Slot {
                rows: slot * capacity..(slot + 1) * capacity,
                length: 0,
            })
            .collect();
        Ok(cache)
    }

    /// An empty cache of `rows` positions in total, for slots that open and close.
    ///
    /// # Errors
    /// A device that runs out of memory.
    pub fn cache_of(&self, rows: usize) -> Result<DecoderCache> {
        Ok(DecoderCache {
            layers: self.room(rows)?,
            slots: Vec::new(),
            rows: FreeRows::new(rows),
        })
    }

    /// Zeros `(rows, 2 heads d_kv)` for every layer.
    fn room(&self, rows: usize) -> Result<Vec<Tensor>> {
        let shape = (rows, 2 * self.config.inner_dim());
        self.layers
            .iter()
            .map(|_| zeros(shape, self.cache_dtype, self.embedding.device()))
            .collect()
    }

    /// Advances each sequence by one token and returns the logits `(inputs, vocab)` of the token
    /// after it.
    ///
    /// # Errors
    /// A slot that is full or occurs twice, or a source that does not exist.
    pub fn step(
        &self,
        inputs: &[StepInput],
        cache: &mut DecoderCache,
        source: &DecoderSource,
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
            let dropout = SubLayerDropout::default();
            let attention = &layer.cross_attention;
            x = attention.forward(&x, keys_values, &cross_plan, dropout)?;
            x = layer.feed_forward.forward(&x, dropout)?;
        }
        for input in inputs {
            cache.slots[input.slot].length += 1;
        }
        self.finished(&x, Mode::Inference)
    }

    fn step_plan(&self, inputs: &[StepInput], cache: &DecoderCache) -> Result<AttentionPlan> {
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
    ) -> Result<AttentionPlan> {
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

    fn plan(&self, visibility: Visibility, segments: Arc<[Segment]>) -> AttentionPlan {
        AttentionPlan {
            heads: self.config.num_heads,
            d_kv: self.config.d_kv,
            visibility,
            segments,
            precision: Precision::F32,
        }
    }
}
