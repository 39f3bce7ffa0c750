//! The gradients of a batch on a CPU, without a tape: the network's shape is known, so its backward
//! pass is written out. The gradients must equal those of candle's tape with the same kernels
//! ([`super::network::Network::taped`]), and PyTorch's gradients of Hugging Face's
//! `T5ForConditionalGeneration(labels=…).loss`.
//!
//! The forward pass keeps the activations that the backward pass reads ([`stack`]). In the backward
//! pass the gradient of the residual stream is one buffer that every sub-layer adds to; gradients
//! of weights are added to sums that also span micro-batches. Every weight is packed once per step,
//! and memory is reused ([`arena`]). Values are dropped at the places of [`crate::model::mode`].

mod arena;
mod attention;
mod ends;
mod feed_forward;
mod pass;
mod stack;
mod weights;

use candle_core::{DType, Result, bail};

use super::batch::Batch;
use super::network::{Network, WeightGradients};
use super::variables::ModelParameters;
use crate::kernels::cpu::Isa;
use crate::kernels::cpu::packed_weight::PackedWeight;
use crate::kernels::dropout::Dropout;
use crate::kernels::plan::{Precision, Segment, Visibility};
use crate::model::mode::{DropoutPlace, Mode};
use crate::model::names::Stack;
use arena::{Arena, Buffer};
use attention::{EncodedSource, SegmentPlan};
use pass::BatchPass;
use stack::LayerStack;
use weights::StepWeights;

/// The memory and the packed weights that are reused from step to step.
#[derive(Debug, Default)]
pub(super) struct Backprop {
    arena: Arena,
    tokens: Option<PackedWeight>,
    weights: Option<StepWeights>,
}

impl Backprop {
    /// Packs the weights of the next step.
    ///
    /// # Errors
    /// A weight that is missing or has another shape than the network's.
    pub fn begin(&mut self, network: &Network<'_>, parameters: &ModelParameters) -> Result<()> {
        let weights = match &mut self.weights {
            Some(weights) => weights,
            none => none.insert(StepWeights::new(
                network.config,
                parameters,
                precision(network),
            )?),
        };
        weights.pack(parameters);
        Ok(())
    }

    /// The loss of every label. Adds the gradients of the sum of losses to `sums`, which hold every
    /// weight.
    ///
    /// # Errors
    /// A token outside the vocabulary.
    pub fn add(
        &mut self,
        network: &Network<'_>,
        parameters: &ModelParameters,
        batch: &Batch,
        dropout: Option<Dropout>,
        sums: &mut WeightGradients,
    ) -> Result<Vec<f32>> {
        let weights = self
            .weights
            .as_ref()
            .expect("a step begins with its weights");
        check(batch, network.config.vocab_size)?;
        let empty = || PackedWeight::empty(precision(network));
        let mut pass = BatchPass {
            config: network.config,
            parameters,
            arena: &self.arena,
            tokens: self.tokens.get_or_insert_with(empty),
            isa: Isa::current(),
            sums,
        };
        Ok(pass.run(network, weights, batch, dropout))
    }
}

fn precision(network: &Network<'_>) -> Precision {
    if network.dtype == DType::BF16 {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

fn check(batch: &Batch, vocab: usize) -> Result<()> {
    let ids = [
        &batch.source.token_ids,
        &batch.target.token_ids,
        &batch.labels,
    ];
    match ids.into_iter().flatten().find(|id| **id as usize >= vocab) {
        Some(id) => bail!("token id {id} is outside the embedding table of {vocab} rows"),
        None => Ok(()),
    }
}

fn own_segments(segments: impl Iterator<Item = std::ops::Range<usize>>) -> Vec<Segment> {
    let own = segments.map(|rows| Segment {
        queries: rows.clone(),
        keys: rows,
        first_position: 0,
    });
    own.collect()
}

fn cross_segments(batch: &Batch) -> Vec<Segment> {
    let pairs = batch.target.segments().zip(batch.source.segments());
    let segments = pairs.map(|(queries, keys)| Segment {
        queries,
        keys,
        first_position: 0,
    });
    segments.collect()
}

impl BatchPass<'_> {
    fn run(
        &mut self,
        network: &Network<'_>,
        weights: &StepWeights,
        batch: &Batch,
        dropout: Option<Dropout>,
    ) -> Vec<f32> {
        let mode = Mode::new(dropout, Stack::Encoder, self.config);
        let mut encoder = LayerStack {
            layers: &weights.encoder,
            bias: self.position_bias(Stack::Encoder),
            plan: SegmentPlan {
                visibility: Visibility::All,
                segments: own_segments(batch.source.segments()),
            },
            source: None,
            mode,
        };
        let ids = &batch.source.token_ids;
        let first = self.embed(ids, mode.dropout(DropoutPlace::Embedding));
        let forward = encoder.forward(self, first, network.activations);
        let last = mode.dropout(DropoutPlace::FinalNorm);
        let encoded = self.final_norm(Stack::Encoder, &forward.output, last);

        let decoder_mode = Mode::new(dropout, Stack::Decoder, self.config);
        let (losses, d_encoded) = self.decode(network, weights, batch, &encoded, decoder_mode);
        drop(encoded);

        let mut d = self.final_norm_backward(Stack::Encoder, &forward.output, last, d_encoded);
        encoder.backward(self, forward, &mut d);
        self.embed_backward(ids, mode.dropout(DropoutPlace::Embedding), &mut d);
        self.position_bias_backward(Stack::Encoder, &encoder.bias.gradient);
        losses
    }

    /// The decoder's forward and backward pass: losses and the gradient of the encoder's output.
    fn decode(
        &mut self,
        network: &Network<'_>,
        weights: &StepWeights,
        batch: &Batch,
        encoded: &[f32],
        mode: Mode,
    ) -> (Vec<f32>, Buffer) {
        let source = EncodedSource {
            encoded,
            plan: SegmentPlan {
                visibility: Visibility::All,
                segments: cross_segments(batch),
            },
            gradient: self.arena.zeros(encoded.len()),
        };
        let mut decoder = LayerStack {
            layers: &weights.decoder,
            bias: self.position_bias(Stack::Decoder),
            plan: SegmentPlan {
                visibility: Visibility::Causal,
                segments: own_segments(batch.target.segments()),
            },
            source: Some(source),
            mode,
        };
        let ids = &batch.target.token_ids;
        let first = self.embed(ids, mode.dropout(DropoutPlace::Embedding));
        let forward = decoder.forward(self, first, network.activations);
        let (z_loss, last) = (network.z_loss as f32, mode.dropout(DropoutPlace::FinalNorm));
        let (losses, mut d) = self.head(weights, &forward.output, batch, z_loss, last);
        decoder.backward(self, forward, &mut d);
        self.embed_backward(ids, mode.dropout(DropoutPlace::Embedding), &mut d);
        self.position_bias_backward(Stack::Decoder, &decoder.bias.gradient);
        let source = decoder.source.expect("a decoder has a source");
        (losses, source.gradient)
    }
}
