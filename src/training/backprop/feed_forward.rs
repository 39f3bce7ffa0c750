//! The feed-forward block, there and back: `x + wo(act(wi_0 norm(x)) · wi_1 norm(x))`, or `x + wo(act(wi norm(x)))`. Must equal Hugging Face's `T5LayerFF`
//! and its gradient.

use super::arena::Buffer;
use super::pass::{Pass, at};
use super::weights::FeedForward;
use crate::kernels::cpu::{elementwise, elementwise_backward};
use crate::kernels::dropout::Dropout;
use crate::kernels::plan::Activation;
use crate::model::FeedForward as Kind;

/// What the block keeps for its way back.
pub(super) struct Fed {
    wide: Buffer,
    hidden: Buffer,
}

impl Pass<'_> {
    fn activation(&self) -> Activation {
        match self.config.feed_forward_proj {
            Kind::Relu => Activation::Relu,
            Kind::GatedGelu => Activation::GeluNew,
            Kind::GatedSilu => Activation::Silu,
        }
    }

    /// The block up to its output projection.
    pub fn feed(&self, weights: &FeedForward, x: &[f32], dropout: Option<Dropout>) -> Fed {
        let d_ff = self.config.d_ff;
        let wide = self.product(&self.norm(x, &weights.norm), &weights.input);
        let mut hidden = self.arena.buffer(wide.len() / weights.input.n * d_ff);
        if self.config.feed_forward_proj.is_gated() {
            elementwise::gated(self.isa, self.activation(), &wide, d_ff, &mut hidden);
        } else {
            elementwise::activate(self.isa, self.activation(), &wide, &mut hidden);
        }
        if let Some(dropout) = at(dropout, 0) {
            dropout.apply_in_place(&mut hidden);
        }
        Fed { wide, hidden }
    }

    /// `x + wo(hidden)`.
    pub fn fed(
        &self,
        weights: &FeedForward,
        kept: &Fed,
        x: &[f32],
        dropout: Option<Dropout>,
    ) -> Buffer {
        self.branch(&kept.hidden, &weights.output, x, at(dropout, 1))
    }

    /// `d` becomes the gradient of `x` from that of [`Pass::fed`].
    pub fn feed_back(
        &mut self,
        weights: &FeedForward,
        kept: Fed,
        x: &[f32],
        dropout: Option<Dropout>,
        d: &mut [f32],
    ) {
        let Fed { wide, hidden } = kept;
        let mut d_hidden = self.branch_back(&hidden, &weights.output, d, at(dropout, 1));
        drop(hidden);
        if let Some(dropout) = at(dropout, 0) {
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
        let normed = self.norm(x, &weights.norm);
        let d_normed = self.product_back(&normed, &weights.input, &d_wide);
        self.norm_back(x, &weights.norm, &d_normed, d);
    }
}
