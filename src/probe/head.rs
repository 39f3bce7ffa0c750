//! A head: a body over the rows of one protein's embedding, and a last layer over the body's
//! output.
//!
//! ```text
//! body       linear: the rows as they are; mlp: dropout(gelu(linear(rows))); convbert: one ConvBERT layer
//! residues   linear(body), one row per residue
//! protein    linear(mean or maximum of body over residues)
//! pairs      linear([h_i · h_j ; h_i − h_j]) to two classes, averaged with its transpose: the logit of a contact is the second less the first
//! ```
//!
//! The paper's head is `convbert`. The last layer is drawn uniformly from ±0.1 before training,
//! with bias 0 (for a number: the mean of the training labels).

use candle_core::{D, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::convbert::{self, ConvBert, dropped};
use super::dense::Dense;
use super::error::ProbeError;
use super::weights::{HeadWeights, Init, WeightSpec};
use crate::kernels::dropout::Dropout;

const MLP_DROPOUT: f64 = 0.2;

/// The layers between embeddings and the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Body {
    /// No layer: the last layer reads embeddings directly
    Linear,
    /// One hidden layer of half the width
    Mlp,
    /// A ConvBERT layer, as in the paper
    #[cfg_attr(feature = "cli", value(name = "convbert"))]
    ConvBert,
}

/// What the last layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readout {
    /// Each residue: one row per residue.
    Residues,
    /// The mean over residues: one row per protein.
    Mean,
    /// The maximum over residues: one row per protein.
    Max,
    /// Each pair of residues: one logit per pair.
    Pairs,
}

/// The form of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadShape {
    /// Values per row of the embedding.
    pub width: usize,
    /// The layers between embedding and last layer.
    pub body: Body,
    /// What the last layer reads.
    pub readout: Readout,
    /// Values per row of the output: the number of classes, or 1 for a number. Ignored for pairs.
    pub outputs: usize,
}

impl HeadShape {
    /// All weights; the bias of the last layer is `bias` before training.
    pub fn specs(&self, bias: f64) -> Vec<WeightSpec> {
        let mut specs = match self.body {
            Body::Linear => Vec::new(),
            Body::Mlp => Dense::specs("hidden", self.width, self.hidden()).to_vec(),
            Body::ConvBert => convbert::specs(self.width),
        };
        let (input, outputs) = match self.readout {
            Readout::Pairs => (2 * self.hidden(), 2),
            _ => (self.hidden(), self.outputs),
        };
        specs.push(WeightSpec::new(
            "decoder.weight",
            &[outputs, input],
            Init::Uniform(0.1),
        ));
        specs.push(WeightSpec::new(
            "decoder.bias",
            &[outputs],
            Init::Constant(bias),
        ));
        specs
    }

    /// Values per row of the body's output.
    fn hidden(&self) -> usize {
        match self.body {
            Body::Linear | Body::ConvBert => self.width,
            Body::Mlp => (self.width / 2).max(1),
        }
    }

    /// Rejects rows that the body cannot read.
    ///
    /// # Errors
    /// A ConvBERT layer over rows whose width is no multiple of 4.
    pub fn check(&self) -> std::result::Result<(), ProbeError> {
        if self.width > 0 && (self.body != Body::ConvBert || self.width.is_multiple_of(4)) {
            Ok(())
        } else {
            Err(ProbeError::Width(self.width))
        }
    }
}

#[derive(Clone, Debug)]
enum Layers {
    Linear,
    Mlp(Dense),
    ConvBert(Box<ConvBert>),
}

/// A head over its weights.
#[derive(Clone, Debug)]
pub struct Head {
    shape: HeadShape,
    layers: Layers,
    decoder: Dense,
}

impl Head {
    /// A head of this form over these weights.
    ///
    /// # Errors
    /// Where a weight is missing.
    pub fn new(shape: HeadShape, weights: &HeadWeights) -> Result<Self> {
        Ok(Self {
            shape,
            layers: match shape.body {
                Body::Linear => Layers::Linear,
                Body::Mlp => Layers::Mlp(Dense::new(weights, "hidden")?),
                Body::ConvBert => Layers::ConvBert(Box::new(ConvBert::new(weights)?)),
            },
            decoder: Dense::new(weights, "decoder")?,
        })
    }

    /// Where the head runs.
    pub fn device(&self) -> &Device {
        self.decoder.weight.device()
    }

    /// One protein's rows `(length, width)` to `(length, outputs)`, `(1, outputs)`, or for pairs
    /// the logits `(length, length)`. A key means training: dropout takes its random stream from
    /// the key.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn forward(&self, rows: &Tensor, key: Option<u64>) -> Result<Tensor> {
        let hidden = match &self.layers {
            Layers::Linear => rows.clone(),
            Layers::Mlp(layer) => {
                let dropout = key.map(|key| Dropout::new(MLP_DROPOUT, key));
                dropped(&layer.forward(rows)?.gelu_erf()?, dropout)?
            }
            Layers::ConvBert(layer) => layer.forward(rows, key)?,
        };
        match self.shape.readout {
            Readout::Residues => self.decoder.forward(&hidden),
            Readout::Mean => self.decoder.forward(&hidden.mean_keepdim(0)?),
            Readout::Max => self.decoder.forward(&hidden.max_keepdim(0)?),
            Readout::Pairs => self.pairs(&hidden),
        }
    }

    /// The difference of two classes that are linear in `[h_i · h_j ; h_i − h_j]` and averaged with
    /// their transpose: `h_i − h_j` cancels, one product of matrices is left, and the features of
    /// pairs are never laid out in memory.
    fn pairs(&self, hidden: &Tensor) -> Result<Tensor> {
        let width = hidden.dim(D::Minus1)?;
        let row = |class: usize| self.decoder.weight.narrow(0, class, 1)?.narrow(1, 0, width);
        let weights = (row(1)? - row(0)?)?;
        let bias = (self.decoder.bias.narrow(0, 1, 1)? - self.decoder.bias.narrow(0, 0, 1)?)?;
        let products = hidden.broadcast_mul(&weights)?.matmul(&hidden.t()?)?;
        products.broadcast_add(&bias)
    }
}
