//! A stack of layers, there and back, with everything kept or computed again (Chen et al. 2016, arXiv 1604.06174): see [`Activations`]. Both ways run the
//! same operations in the same order: the same bits.

use super::super::recompute::Activations;
use super::arena::Buffer;
use super::attention::{Attended, Crossed, Plan, PositionBias, Source};
use super::feed_forward::Fed;
use super::pass::{Pass, at};
use super::weights::Layer;
use crate::kernels::dropout::Dropout;

/// Encoder or decoder.
pub(super) struct Stack<'a> {
    pub layers: &'a [Layer],
    pub bias: PositionBias,
    pub plan: Plan,
    /// What a decoder attends to.
    pub source: Option<Source<'a>>,
    pub dropout: Option<Dropout>,
}

/// What one layer keeps beside its input.
struct Kept {
    attended: Attended,
    /// After self-attention.
    x: Buffer,
    crossed: Option<(Crossed, Buffer)>,
    fed: Fed,
}

impl Kept {
    /// What the feed-forward block reads.
    fn last(&self) -> &[f32] {
        self.crossed.as_ref().map_or(&self.x, |(_, x)| x)
    }
}

/// What a stack keeps.
pub(super) struct Forward {
    /// The input of every layer, or of every `stride`-th.
    inputs: Vec<Buffer>,
    kept: Vec<Kept>,
    stride: Option<usize>,
    /// What the last layer gave.
    pub output: Buffer,
}

impl Stack<'_> {
    /// Runs all layers.
    pub fn forward(&self, pass: &Pass<'_>, first: Buffer, activations: Activations) -> Forward {
        let stride = activations.stride(self.layers.len());
        let (mut x, mut inputs, mut all) = (first, Vec::new(), Vec::new());
        for number in 0..self.layers.len() {
            let kept = self.layer(pass, number, &x);
            let next = self.output(pass, number, &kept);
            let input = std::mem::replace(&mut x, next);
            if stride.is_none_or(|stride| number.is_multiple_of(stride)) {
                inputs.push(input);
            }
            if stride.is_none() {
                all.push(kept);
            }
        }
        Forward {
            inputs,
            kept: all,
            stride,
            output: x,
        }
    }

    /// `d`, the gradient of the output, becomes that of the first layer's input.
    pub fn backward(&mut self, pass: &mut Pass<'_>, forward: Forward, d: &mut [f32]) {
        let Forward {
            inputs,
            kept,
            stride,
            output,
        } = forward;
        drop(output);
        let Some(stride) = stride else {
            for (number, (input, kept)) in inputs.into_iter().zip(kept).enumerate().rev() {
                self.layer_back(pass, number, &input, kept, d);
            }
            return;
        };
        for (stretch, input) in inputs.into_iter().enumerate().rev() {
            let first = stretch * stride;
            let end = (first + stride).min(self.layers.len());
            let mut inputs = vec![input];
            for number in first..end - 1 {
                let kept = self.layer(pass, number, &inputs[number - first]);
                inputs.push(self.output(pass, number, &kept));
            }
            for (place, input) in inputs.into_iter().enumerate().rev() {
                let kept = self.layer(pass, first + place, &input);
                self.layer_back(pass, first + place, &input, kept, d);
            }
        }
    }

    fn dropout(&self, number: usize, sub_layer: usize) -> Option<Dropout> {
        at(at(self.dropout, number), sub_layer)
    }

    /// The feed-forward block's place among the sub-layers.
    fn last(&self) -> usize {
        if self.source.is_some() { 2 } else { 1 }
    }

    /// A layer up to its last product.
    fn layer(&self, pass: &Pass<'_>, number: usize, input: &[f32]) -> Kept {
        let layer = &self.layers[number];
        let dropout = self.dropout(number, 0);
        let attended = pass.attend(&layer.attention, input, &self.bias, &self.plan, dropout);
        let x = pass.attended(&layer.attention, &attended, input, dropout);
        let crossed = layer.cross.as_ref().zip(self.source.as_ref());
        let crossed = crossed.map(|(weights, source)| {
            let dropout = self.dropout(number, 1);
            let kept = pass.cross(weights, &x, source, dropout);
            let x = pass.crossed(weights, &kept, &x, dropout);
            (kept, x)
        });
        let last = crossed.as_ref().map_or(&x, |(_, x)| x);
        let fed = pass.feed(&layer.feed_forward, last, self.dropout(number, self.last()));
        Kept {
            attended,
            x,
            crossed,
            fed,
        }
    }

    /// A layer's last product.
    fn output(&self, pass: &Pass<'_>, number: usize, kept: &Kept) -> Buffer {
        let dropout = self.dropout(number, self.last());
        let weights = &self.layers[number].feed_forward;
        pass.fed(weights, &kept.fed, kept.last(), dropout)
    }

    fn layer_back(
        &mut self,
        pass: &mut Pass<'_>,
        number: usize,
        input: &[f32],
        kept: Kept,
        d: &mut [f32],
    ) {
        let layer = &self.layers[number];
        let Kept {
            attended,
            x,
            crossed,
            fed,
        } = kept;
        let last = crossed.as_ref().map_or(&x, |(_, x)| x);
        let dropout = self.dropout(number, self.last());
        pass.feed_back(&layer.feed_forward, fed, last, dropout, d);
        let dropout = self.dropout(number, 1);
        if let (Some(weights), Some((kept, _)), Some(source)) =
            (&layer.cross, crossed, &mut self.source)
        {
            pass.cross_back(weights, kept, &x, source, dropout, d);
        }
        let dropout = self.dropout(number, 0);
        let (bias, plan) = (&mut self.bias, &self.plan);
        pass.attend_back(&layer.attention, attended, input, bias, plan, dropout, d);
    }
}
