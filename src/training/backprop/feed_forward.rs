//! The forward and backward pass of the feed-forward block:
//! `x + wo(act(wi_0 norm(x)) · wi_1 norm(x))`, or `x + wo(act(wi norm(x)))`. Must equal Hugging
//! Face's `T5LayerFF` and its gradient.

use super::arena::Buffer;
use super::pass::{BatchPass, SubLayer};
use super::weights::FeedForwardMatrices;
use crate::kernels::cpu::{elementwise, elementwise_backward};
use crate::kernels::plan::Activation;

/// The values of the block that its backward pass reads.
pub(super) struct FeedForwardActivations {
    wide: Buffer,
    hidden: Buffer,
}

impl BatchPass<'_> {
    fn activation(&self) -> Activation {
        self.config.feed_forward_proj.activation()
    }

    /// The block without its output projection.
    pub fn feed_forward(
        &self,
        layer: &SubLayer<'_, FeedForwardMatrices>,
    ) -> FeedForwardActivations {
        let (weights, d_ff) = (layer.weights, self.config.d_ff);
        let wide = self.product(&self.norm(layer.x, &weights.norm), &weights.input);
        let mut hidden = self.arena.buffer(wide.len() / weights.input.n * d_ff);
        if self.config.feed_forward_proj.is_gated() {
            elementwise::gated(self.isa, self.activation(), &wide, d_ff, &mut hidden);
        } else {
            elementwise::activate(self.isa, self.activation(), &wide, &mut hidden);
        }
        if let Some(dropout) = layer.dropout.inside {
            dropout.apply_in_place(&mut hidden);
        }
        FeedForwardActivations { wide, hidden }
    }

    /// `x + wo(hidden)`.
    pub fn feed_forward_output(
        &self,
        layer: &SubLayer<'_, FeedForwardMatrices>,
        activations: &FeedForwardActivations,
    ) -> Buffer {
        let output = &layer.weights.output;
        self.branch(&activations.hidden, output, layer.x, layer.dropout.branch)
    }

    /// Turns `d`, the gradient of [`BatchPass::feed_forward_output`], into the gradient of `x`.
    pub fn feed_forward_backward(
        &mut self,
        layer: &SubLayer<'_, FeedForwardMatrices>,
        activations: FeedForwardActivations,
        d: &mut [f32],
    ) {
        let weights = layer.weights;
        let FeedForwardActivations { wide, hidden } = activations;
        let mut d_hidden = self.branch_backward(&hidden, &weights.output, d, layer.dropout.branch);
        drop(hidden);
        if let Some(dropout) = layer.dropout.inside {
            dropout.apply_in_place(&mut d_hidden);
        }
        let (activation, d_ff) = (self.activation(), self.config.d_ff);
        let mut d_wide = self.arena.buffer(wide.len());
        if self.config.feed_forward_proj.is_gated() {
            elementwise_backward::gated(self.isa, activation, &wide, d_ff, &d_hidden, &mut d_wide);
        } else {
            elementwise_backward::activate(self.isa, activation, &wide, &d_hidden, &mut d_wide);
        }
        drop((wide, d_hidden));
        let normed = self.norm(layer.x, &weights.norm);
        let d_normed = self.product_backward(&normed, &weights.input, &d_wide);
        self.norm_backward(layer.x, &weights.norm, &d_normed, d);
    }
}
