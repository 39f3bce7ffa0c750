//! Inference or training. Both run the same code; training drops values where T5 does: after the
//! embeddings, in attention weights, inside the feed-forward block, on every residual branch and
//! after the final norm.
//!
//! Every place has a random stream of its own. Streams form a tree: step → stack → layer →
//! sub-layer → value inside the sub-layer or residual branch. The numbers of the branches are
//! written down in this file alone.

use candle_core::{Result, Tensor};

use super::Config;
use super::names::Stack;
use crate::kernels::dropout::Dropout;
use crate::kernels::linear::Weight;

/// Whether a stack infers or learns.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Nothing is dropped.
    Inference,
    /// Values are dropped.
    Training(StackDropout),
}

/// The random streams of one stack.
#[derive(Clone, Copy, Debug)]
pub struct StackDropout {
    dropout: Dropout,
    stack: Stack,
    num_layers: usize,
}

/// A place of a stack where values are dropped; layers are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropoutPlace {
    /// The embeddings, which the first layer reads.
    Embedding,
    /// The self-attention of a layer.
    SelfAttention(usize),
    /// The decoder's attention to the encoder's output in a layer.
    CrossAttention(usize),
    /// The feed-forward block of a layer.
    FeedForward(usize),
    /// The output of the final norm.
    FinalNorm,
}

/// The two random streams of a sub-layer `x + output(inside(x))`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubLayerDropout {
    /// Drops attention weights, or hidden values of the feed-forward block.
    pub inside: Option<Dropout>,
    /// Drops the residual branch: the product of the output projection.
    pub branch: Option<Dropout>,
}

impl Mode {
    /// The mode of one stack in a step with this dropout.
    pub fn new(dropout: Option<Dropout>, stack: Stack, config: &Config) -> Self {
        dropout.map_or(Mode::Inference, |dropout| {
            Mode::Training(StackDropout {
                dropout: dropout.at(match stack {
                    Stack::Encoder => 0,
                    Stack::Decoder => 1,
                }),
                stack,
                num_layers: stack.num_layers(config),
            })
        })
    }

    /// The random stream of a place.
    pub(crate) fn dropout(self, place: DropoutPlace) -> Option<Dropout> {
        match self {
            Mode::Inference => None,
            Mode::Training(streams) => Some(streams.at(place)),
        }
    }

    /// The random streams of a sub-layer.
    pub(crate) fn sub_layer(self, place: DropoutPlace) -> SubLayerDropout {
        let dropout = self.dropout(place);
        SubLayerDropout {
            inside: dropout.map(|dropout| dropout.at(0)),
            branch: dropout.map(|dropout| dropout.at(1)),
        }
    }

    /// `x`, dropped by the stream of a place.
    pub(super) fn drop(self, place: DropoutPlace, x: &Tensor) -> Result<Tensor> {
        dropped(self.dropout(place), x)
    }
}

impl StackDropout {
    fn at(self, place: DropoutPlace) -> Dropout {
        let layer = |number: usize| self.dropout.at(number as u64);
        match (place, self.stack) {
            (DropoutPlace::SelfAttention(number), _) => layer(number).at(0),
            (DropoutPlace::CrossAttention(number), _)
            | (DropoutPlace::FeedForward(number), Stack::Encoder) => layer(number).at(1),
            (DropoutPlace::FeedForward(number), Stack::Decoder) => layer(number).at(2),
            // The ends of a stack are numbered like layers behind the last.
            (DropoutPlace::Embedding, _) => layer(self.num_layers),
            (DropoutPlace::FinalNorm, Stack::Encoder) => layer(self.num_layers + 1),
            (DropoutPlace::FinalNorm, Stack::Decoder) => layer(self.num_layers + 1).at(0),
        }
    }
}

impl SubLayerDropout {
    /// `x`, dropped by the stream inside the sub-layer.
    pub(super) fn drop_inside(self, x: &Tensor) -> Result<Tensor> {
        dropped(self.inside, x)
    }

    /// `residual + weight · x`, the product dropped by the branch's stream.
    pub(super) fn add_branch(
        self,
        weight: &Weight,
        x: &Tensor,
        residual: &Tensor,
    ) -> Result<Tensor> {
        match self.branch {
            None => weight.forward_add(x, residual),
            Some(dropout) => dropout.add(&weight.forward(x)?, residual),
        }
    }
}

fn dropped(dropout: Option<Dropout>, x: &Tensor) -> Result<Tensor> {
    dropout.map_or(Ok(x.clone()), |dropout| dropout.apply(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The streams of every place are part of a training run's results, so their numbers never
    /// change.
    #[test]
    fn places_have_the_streams_they_always_had() {
        let step = Dropout::new(0.1, 7);
        let stack = |stack, number| {
            let streams = StackDropout {
                dropout: step.at(number),
                stack,
                num_layers: 5,
            };
            (streams, step.at(number))
        };
        let (encoder, root) = stack(Stack::Encoder, 0);
        assert_eq!(encoder.at(DropoutPlace::Embedding), root.at(5));
        assert_eq!(encoder.at(DropoutPlace::FinalNorm), root.at(6));
        assert_eq!(encoder.at(DropoutPlace::SelfAttention(3)), root.at(3).at(0));
        assert_eq!(encoder.at(DropoutPlace::FeedForward(3)), root.at(3).at(1));
        let (decoder, root) = stack(Stack::Decoder, 1);
        assert_eq!(decoder.at(DropoutPlace::Embedding), root.at(5));
        assert_eq!(decoder.at(DropoutPlace::FinalNorm), root.at(6).at(0));
        assert_eq!(decoder.at(DropoutPlace::SelfAttention(3)), root.at(3).at(0));
        assert_eq!(
            decoder.at(DropoutPlace::CrossAttention(3)),
            root.at(3).at(1)
        );
        assert_eq!(decoder.at(DropoutPlace::FeedForward(3)), root.at(3).at(2));
        let sub_layer = Mode::Training(decoder).sub_layer(DropoutPlace::CrossAttention(2));
        assert_eq!(sub_layer.inside, Some(root.at(2).at(1).at(0)));
        assert_eq!(sub_layer.branch, Some(root.at(2).at(1).at(1)));
    }
}
