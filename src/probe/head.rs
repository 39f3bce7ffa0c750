//! A head: a body over the rows of one protein's embedding, and what is read out of it.
//!
//! ```text
//! body       linear: the rows as they are; mlp: gelu(linear(rows)), dropped; convbert: one ConvBERT layer
//! residues   linear(body), a row a residue
//! protein    linear(mean or maximum of body over residues)
//! pairs      linear([h_i · h_j ; h_i − h_j]) to two classes, averaged with its transpose: the logit of a contact is the second less the first
//! ```
//!
//! The head of the paper is `convbert`; its last layer begins uniform in ±0.1 with bias 0 (for a number: the mean of the training labels).

use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::convbert::{self, ConvBert, dropped};
use super::dense::Dense;
use super::parameters::{Init, Parameters, Spec};
use crate::kernels::dropout::Dropout;

const MLP_DROPOUT: f64 = 0.2;

/// What stands between embeddings and the last layer.
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

/// What is read out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readout {
    /// A row a residue.
    Residues,
    /// One row of the mean over residues.
    Mean,
    /// One row of the maximum over residues.
    Max,
    /// A logit a pair of residues.
    Pairs,
}

/// A head's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Values in a row of the embedding.
    pub width: usize,
    /// Between embedding and last layer.
    pub body: Body,
    /// What is read out.
    pub readout: Readout,
    /// Values in a row of the output: classes, or 1 for a number. Of no meaning for pairs.
    pub outputs: usize,
}

impl Shape {
    /// All weights; a number's bias begins at `bias`.
    pub fn specs(&self, bias: f64) -> Vec<Spec> {
        let mut specs = match self.body {
            Body::Linear => Vec::new(),
            Body::Mlp => Dense::specs("hidden", self.width, self.hidden()).to_vec(),
            Body::ConvBert => convbert::specs(self.width),
        };
        let (input, outputs) = match self.readout {
            Readout::Pairs => (2 * self.hidden(), 2),
            _ => (self.hidden(), self.outputs),
        };
        specs.push(Spec::new(
            "decoder.weight",
            &[outputs, input],
            Init::Uniform(0.1),
        ));
        specs.push(Spec::new("decoder.bias", &[outputs], Init::Constant(bias)));
        specs
    }

    /// Values in a row of the body.
    fn hidden(&self) -> usize {
        match self.body {
            Body::Linear | Body::ConvBert => self.width,
            Body::Mlp => (self.width / 2).max(1),
        }
    }

    /// Whether the body can be that wide.
    pub fn is_possible(&self) -> bool {
        self.width > 0 && (self.body != Body::ConvBert || self.width.is_multiple_of(4))
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
    shape: Shape,
    layers: Layers,
    decoder: Dense,
}

impl Head {
    /// The head of this form.
    ///
    /// # Errors
    /// Where a weight is missing.
    pub fn new(shape: Shape, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            shape,
            layers: match shape.body {
                Body::Linear => Layers::Linear,
                Body::Mlp => Layers::Mlp(Dense::new(parameters, "hidden")?),
                Body::ConvBert => Layers::ConvBert(Box::new(ConvBert::new(parameters)?)),
            },
            decoder: Dense::new(parameters, "decoder")?,
        })
    }

    /// Its form.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// One protein's rows `(length, width)` to `(length, outputs)`, `(1, outputs)`, or for pairs the logits `(length, length)`. With a key it learns:
    /// values are dropped by the stream of that key.
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

    /// The difference of two classes that are linear in `[h_i · h_j ; h_i − h_j]` and averaged with their transpose: `h_i − h_j` cancels, what is left is
    /// one product of matrices, and no pair's features are ever laid out.
    fn pairs(&self, hidden: &Tensor) -> Result<Tensor> {
        let width = hidden.dim(D::Minus1)?;
        let row = |class: usize| self.decoder.weight.narrow(0, class, 1)?.narrow(1, 0, width);
        let weights = (row(1)? - row(0)?)?;
        let bias = (self.decoder.bias.narrow(0, 1, 1)? - self.decoder.bias.narrow(0, 0, 1)?)?;
        let products = hidden.broadcast_mul(&weights)?.matmul(&hidden.t()?)?;
        products.broadcast_add(&bias)
    }
}
