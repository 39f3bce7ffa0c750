//! The gradients of a batch on a CPU, without a tape: the network's shape is known, so its backward pass is written down. It must equal the one that
//! candle's tape makes of the same kernels ([`super::step::Network::taped`]), and PyTorch's of Hugging Face's `T5ForConditionalGeneration(labels=…).loss`.
//!
//! Forward keeps what the way back needs ([`stack`]); back, the gradient of the residual stream is one buffer that every sub-layer adds its share to, and
//! gradients of weights are added where they are summed up, also over micro-batches. Every weight is packed once a step, and rooms are taken again
//! ([`arena`]). Dropout's places are those of [`crate::model::Mode`].

mod arena;
mod attention;
mod ends;
mod feed_forward;
mod pass;
mod stack;
mod weights;

use candle_core::{DType, Result, bail};

use super::batch::Batch;
use super::step::{Gradients, Network};
use super::variables::Parameters;
use crate::kernels::cpu::Isa;
use crate::kernels::cpu::packed_weight::{PackedWeight, Precision};
use crate::kernels::dropout::Dropout;
use crate::kernels::plan::{Segment, Visibility};
use crate::model::relative_position::Direction;
use arena::Arena;
use attention::{Plan, Source};
use pass::{Pass, at};
use stack::Stack;
use weights::Weights;

/// What is kept from step to step: rooms and packed weights.
#[derive(Debug, Default)]
pub(super) struct Backprop {
    arena: Arena,
    tokens: Option<PackedWeight>,
    weights: Option<Weights>,
}

impl Backprop {
    /// Takes the weights of the next step.
    ///
    /// # Errors
    /// Where one is missing or of another shape than the network's.
    pub fn begin(&mut self, network: &Network<'_>, parameters: &Parameters) -> Result<()> {
        let weights = match &mut self.weights {
            Some(weights) => weights,
            none => none.insert(Weights::new(
                network.config,
                parameters,
                precision(network),
            )?),
        };
        weights.pack(parameters);
        Ok(())
    }

    /// The loss of every label; adds the gradients of their sum to `sums`, which hold every weight.
    ///
    /// # Errors
    /// Where tokens are outside the vocabulary.
    pub fn add(
        &mut self,
        network: &Network<'_>,
        parameters: &Parameters,
        batch: &Batch,
        dropout: Option<Dropout>,
        sums: &mut Gradients,
    ) -> Result<Vec<f32>> {
        let weights = self
            .weights
            .as_ref()
            .expect("a step begins with its weights");
        check(batch, network.config.vocab_size)?;
        let empty = || PackedWeight::empty(precision(network));
        let mut pass = Pass {
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

impl Pass<'_> {
    fn run(
        &mut self,
        network: &Network<'_>,
        weights: &Weights,
        batch: &Batch,
        dropout: Option<Dropout>,
    ) -> Vec<f32> {
        let layers = weights.encoder.len();
        let [encoder_dropout, decoder_dropout] = [0, 1].map(|stack| at(dropout, stack));
        let mut encoder = Stack {
            layers: &weights.encoder,
            bias: self.position_bias("encoder", Direction::Both),
            plan: Plan {
                visibility: Visibility::All,
                segments: own_segments(batch.source.segments()),
            },
            source: None,
            dropout: encoder_dropout,
        };
        let ids = &batch.source.token_ids;
        let first = self.embed(ids, at(encoder_dropout, layers));
        let forward = encoder.forward(self, first, network.activations);
        let last = at(encoder_dropout, layers + 1);
        let encoded = self.finish("encoder", &forward.output, last);

        let (losses, d_encoded) = self.decode(network, weights, batch, &encoded, decoder_dropout);
        drop(encoded);

        let mut d = self.finish_back("encoder", &forward.output, last, d_encoded);
        encoder.backward(self, forward, &mut d);
        self.embed_back(ids, at(encoder_dropout, layers), &mut d);
        self.position_bias_back("encoder", Direction::Both, &encoder.bias.gradient);
        losses
    }

    /// The decoder, there and back: losses and the gradient of the encoder's output.
    fn decode(
        &mut self,
        network: &Network<'_>,
        weights: &Weights,
        batch: &Batch,
        encoded: &[f32],
        dropout: Option<Dropout>,
    ) -> (Vec<f32>, arena::Buffer) {
        let layers = weights.decoder.len();
        let source = Source {
            encoded,
            plan: Plan {
                visibility: Visibility::All,
                segments: cross_segments(batch),
            },
            gradient: self.arena.zeros(encoded.len()),
        };
        let mut decoder = Stack {
            layers: &weights.decoder,
            bias: self.position_bias("decoder", Direction::Past),
            plan: Plan {
                visibility: Visibility::Causal,
                segments: own_segments(batch.target.segments()),
            },
            source: Some(source),
            dropout,
        };
        let ids = &batch.target.token_ids;
        let first = self.embed(ids, at(dropout, layers));
        let forward = decoder.forward(self, first, network.activations);
        let z_loss = network.z_loss as f32;
        let (losses, mut d) = self.head(weights, &forward.output, batch, z_loss, dropout);
        decoder.backward(self, forward, &mut d);
        self.embed_back(ids, at(dropout, layers), &mut d);
        self.position_bias_back("decoder", Direction::Past, &decoder.bias.gradient);
        let source = decoder.source.expect("a decoder has a source");
        (losses, source.gradient)
    }
}
