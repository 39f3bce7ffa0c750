//! The forward and backward pass of a stack of layers. Activations are kept, or computed again in
//! the backward pass (Chen et al. 2016, arXiv 1604.06174), as [`Activations`] says. Both ways run
//! the same operations in the same order and give the same bits.

use super::super::network::Activations;
use super::arena::Buffer;
use super::attention::{
    CrossAttentionActivations, EncodedSource, PositionBias, SegmentPlan, SelfAttentionActivations,
};
use super::feed_forward::FeedForwardActivations;
use super::pass::{BatchPass, SubLayer};
use super::weights::{
    CrossAttentionMatrices, FeedForwardMatrices, LayerMatrices, SelfAttentionMatrices,
};
use crate::model::mode::{DropoutPlace, Mode};

/// The layers of the encoder or of the decoder.
pub(super) struct LayerStack<'a> {
    pub layers: &'a [LayerMatrices],
    pub bias: PositionBias,
    pub plan: SegmentPlan,
    /// The encoder's output, which a decoder attends to.
    pub source: Option<EncodedSource<'a>>,
    pub mode: Mode,
}

/// Cross-attention's activations and its result, the input of the feed-forward block.
struct CrossAttended {
    activations: CrossAttentionActivations,
    x: Buffer,
}

/// The values of one layer, beside its input, that the backward pass reads.
struct LayerActivations {
    self_attention: SelfAttentionActivations,
    /// The result of self-attention.
    x: Buffer,
    cross_attention: Option<CrossAttended>,
    feed_forward: FeedForwardActivations,
}

/// The values of a stack that the backward pass reads.
pub(super) struct StackActivations {
    /// The input of every layer, or of every `stride`-th.
    inputs: Vec<Buffer>,
    layers: Vec<LayerActivations>,
    stride: Option<usize>,
    /// The last layer's output.
    pub output: Buffer,
}

/// The input of the feed-forward block.
fn feed_forward_input<'b>(x: &'b Buffer, cross_attention: Option<&'b CrossAttended>) -> &'b Buffer {
    cross_attention.map_or(x, |cross| &cross.x)
}

impl<'a> LayerStack<'a> {
    /// Runs all layers.
    pub fn forward(
        &self,
        pass: &BatchPass<'_>,
        first: Buffer,
        activations: Activations,
    ) -> StackActivations {
        let stride = activations.stride(self.layers.len());
        let (mut x, mut inputs, mut layers) = (first, Vec::new(), Vec::new());
        for number in 0..self.layers.len() {
            let layer = self.layer(pass, number, &x);
            let next = self.output(pass, number, &layer);
            let input = std::mem::replace(&mut x, next);
            if stride.is_none_or(|stride| number.is_multiple_of(stride)) {
                inputs.push(input);
            }
            if stride.is_none() {
                layers.push(layer);
            }
        }
        StackActivations {
            inputs,
            layers,
            stride,
            output: x,
        }
    }

    /// Turns `d`, the gradient of the output, into the gradient of the first layer's input.
    pub fn backward(&mut self, pass: &mut BatchPass<'_>, forward: StackActivations, d: &mut [f32]) {
        let StackActivations {
            inputs,
            layers,
            stride,
            output,
        } = forward;
        drop(output);
        let Some(stride) = stride else {
            for (number, (input, layer)) in inputs.into_iter().zip(layers).enumerate().rev() {
                self.layer_backward(pass, number, &input, layer, d);
            }
            return;
        };
        for (stretch, input) in inputs.into_iter().enumerate().rev() {
            let first = stretch * stride;
            let end = (first + stride).min(self.layers.len());
            let mut inputs = vec![input];
            for number in first..end - 1 {
                let layer = self.layer(pass, number, &inputs[number - first]);
                inputs.push(self.output(pass, number, &layer));
            }
            for (place, input) in inputs.into_iter().enumerate().rev() {
                let layer = self.layer(pass, first + place, &input);
                self.layer_backward(pass, first + place, &input, layer, d);
            }
        }
    }

    fn self_attention<'x>(&self, number: usize, x: &'x [f32]) -> SubLayer<'x, SelfAttentionMatrices>
    where
        'a: 'x,
    {
        SubLayer {
            weights: &self.layers[number].self_attention,
            x,
            dropout: self.mode.sub_layer(DropoutPlace::SelfAttention(number)),
        }
    }

    fn cross_attention<'x>(
        &self,
        number: usize,
        x: &'x [f32],
    ) -> Option<SubLayer<'x, CrossAttentionMatrices>>
    where
        'a: 'x,
    {
        Some(SubLayer {
            weights: self.layers[number].cross_attention.as_ref()?,
            x,
            dropout: self.mode.sub_layer(DropoutPlace::CrossAttention(number)),
        })
    }

    fn feed_forward<'x>(&self, number: usize, x: &'x [f32]) -> SubLayer<'x, FeedForwardMatrices>
    where
        'a: 'x,
    {
        SubLayer {
            weights: &self.layers[number].feed_forward,
            x,
            dropout: self.mode.sub_layer(DropoutPlace::FeedForward(number)),
        }
    }

    /// A layer without its last product.
    fn layer(&self, pass: &BatchPass<'_>, number: usize, input: &[f32]) -> LayerActivations {
        let sub_layer = self.self_attention(number, input);
        let self_attention = pass.self_attention(&sub_layer, &self.bias, &self.plan);
        let x = pass.self_attention_output(&sub_layer, &self_attention);
        let sub_layer = self.cross_attention(number, &x).zip(self.source.as_ref());
        let cross_attention = sub_layer.map(|(sub_layer, source)| {
            let activations = pass.cross_attention(&sub_layer, source);
            let x = pass.cross_attention_output(&sub_layer, &activations);
            CrossAttended { activations, x }
        });
        let last = feed_forward_input(&x, cross_attention.as_ref());
        let feed_forward = pass.feed_forward(&self.feed_forward(number, last));
        LayerActivations {
            self_attention,
            x,
            cross_attention,
            feed_forward,
        }
    }

    /// A layer's last product.
    fn output(&self, pass: &BatchPass<'_>, number: usize, layer: &LayerActivations) -> Buffer {
        let x = feed_forward_input(&layer.x, layer.cross_attention.as_ref());
        pass.feed_forward_output(&self.feed_forward(number, x), &layer.feed_forward)
    }

    fn layer_backward(
        &mut self,
        pass: &mut BatchPass<'_>,
        number: usize,
        input: &[f32],
        layer: LayerActivations,
        d: &mut [f32],
    ) {
        let LayerActivations {
            self_attention,
            x,
            cross_attention,
            feed_forward,
        } = layer;
        let last = feed_forward_input(&x, cross_attention.as_ref());
        pass.feed_forward_backward(&self.feed_forward(number, last), feed_forward, d);
        let sub_layer = self.cross_attention(number, &x);
        if let (Some(sub_layer), Some(cross), Some(source)) =
            (sub_layer, cross_attention, &mut self.source)
        {
            pass.cross_attention_backward(&sub_layer, cross.activations, source, d);
        }
        let sub_layer = self.self_attention(number, input);
        let (bias, plan) = (&mut self.bias, &self.plan);
        pass.self_attention_backward(&sub_layer, self_attention, bias, plan, d);
    }
}
