//! The weights of one step in the form that products read: each packed once for the forward pass and once for the gradient of its input. Projections of
//! the same input are one matrix, as in [`crate::model::layers`]. Names are those of Hugging Face's `T5ForConditionalGeneration`.

use candle_core::{Result, bail};
use rayon::prelude::*;

use super::super::variables::Parameters;
use crate::kernels::cpu::packed_weight::{PackedWeight, Precision};
use crate::model::Config;

/// Matrices `(n_i, k)` of the same input, one below the other.
#[derive(Debug)]
pub(super) struct Matrix {
    /// Names and heights of the parts.
    pub parts: Vec<(String, usize)>,
    /// Height of all.
    pub n: usize,
    /// Width of the input.
    pub k: usize,
    /// For `y = x Wᵀ`.
    pub forward: PackedWeight,
    /// For `dx = dy W`.
    pub backward: PackedWeight,
}

/// Self-attention and its norm.
#[derive(Debug)]
pub(super) struct SelfAttention {
    pub norm: String,
    pub qkv: Matrix,
    pub output: Matrix,
}

/// Attention to the source and its norm.
#[derive(Debug)]
pub(super) struct CrossAttention {
    pub norm: String,
    pub q: Matrix,
    pub kv: Matrix,
    pub output: Matrix,
}

/// The feed-forward block and its norm.
#[derive(Debug)]
pub(super) struct FeedForward {
    pub norm: String,
    pub input: Matrix,
    pub output: Matrix,
}

/// A layer of the encoder, or of the decoder: with attention to the source.
#[derive(Debug)]
pub(super) struct Layer {
    pub attention: SelfAttention,
    pub cross: Option<CrossAttention>,
    pub feed_forward: FeedForward,
}

/// All of a step.
#[derive(Debug)]
pub(super) struct Weights {
    pub encoder: Vec<Layer>,
    pub decoder: Vec<Layer>,
    pub head: Matrix,
    /// What the decoder's output is multiplied by before the head.
    pub scale: Option<f32>,
}

/// Finds what `config` asks for.
struct Names<'a> {
    config: &'a Config,
    parameters: &'a Parameters,
    precision: Precision,
}

impl Matrix {
    /// Packs the weights as they are now.
    fn pack(&mut self, parameters: &Parameters) {
        let parts = self.parts.iter();
        let rows: Vec<&[f32]> = parts
            .flat_map(|(name, _)| parameters[name].values.chunks_exact(self.k))
            .collect();
        let fill = |row: usize, target: &mut [f32]| target.copy_from_slice(rows[row]);
        self.forward.pack(self.n, self.k, fill);
        self.backward
            .pack_transposed(self.k, self.n, |row| rows[row]);
    }
}

impl Layer {
    fn matrices(&mut self) -> impl Iterator<Item = &mut Matrix> {
        let Layer {
            attention,
            cross,
            feed_forward,
        } = self;
        let cross = cross.as_mut();
        let cross = cross.map(|cross| [&mut cross.q, &mut cross.kv, &mut cross.output]);
        [
            &mut attention.qkv,
            &mut attention.output,
            &mut feed_forward.input,
            &mut feed_forward.output,
        ]
        .into_iter()
        .chain(cross.into_iter().flatten())
    }
}

impl Weights {
    /// Room for all weights.
    ///
    /// # Errors
    /// Where one is missing or of another shape than `config` says.
    pub fn new(config: &Config, parameters: &Parameters, precision: Precision) -> Result<Self> {
        let names = Names {
            config,
            parameters,
            precision,
        };
        let has_head = parameters.contains_key("lm_head.weight");
        let head = if has_head {
            "lm_head.weight"
        } else {
            "shared.weight"
        };
        names.check("shared.weight", &[config.vocab_size, config.d_model])?;
        for stack in ["encoder", "decoder"] {
            names.check(
                &bias(stack),
                &[config.relative_attention_num_buckets, config.num_heads],
            )?;
            names.norm(final_norm(stack))?;
        }
        let encoder = (0..config.num_layers).map(|i| names.layer("encoder", i));
        let decoder = (0..config.decoder_layers()).map(|i| names.layer("decoder", i));
        Ok(Weights {
            encoder: encoder.collect::<Result<_>>()?,
            decoder: decoder.collect::<Result<_>>()?,
            head: names.matrix(&[(head, config.vocab_size)], config.d_model)?,
            scale: config
                .scales_logits(has_head)
                .then(|| (config.d_model as f64).powf(-0.5) as f32),
        })
    }

    /// Packs all weights as they are now; `parameters` are those that the room was made for.
    pub fn pack(&mut self, parameters: &Parameters) {
        let layers = self.encoder.iter_mut().chain(&mut self.decoder);
        let mut matrices: Vec<&mut Matrix> = layers.flat_map(Layer::matrices).collect();
        matrices.push(&mut self.head);
        let all = matrices.par_iter_mut().with_max_len(1);
        all.for_each(|matrix| matrix.pack(parameters));
    }
}

/// The name of a stack's position bias.
pub(super) fn bias(stack: &str) -> String {
    format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
}

/// The name of a stack's last norm.
pub(super) fn final_norm(stack: &str) -> String {
    format!("{stack}.final_layer_norm.weight")
}

impl Names<'_> {
    fn layer(&self, stack: &str, number: usize) -> Result<Layer> {
        let at = |sub_layer: usize| format!("{stack}.block.{number}.layer.{sub_layer}");
        let cross = if stack == "decoder" {
            Some(self.cross_attention(&at(1))?)
        } else {
            None
        };
        let last = if cross.is_some() { 2 } else { 1 };
        Ok(Layer {
            attention: self.self_attention(&at(0))?,
            cross,
            feed_forward: self.feed_forward(&at(last))?,
        })
    }

    fn self_attention(&self, at: &str) -> Result<SelfAttention> {
        let (d_model, inner) = (self.config.d_model, self.config.inner_dim());
        let [q, k, v, o] =
            ["q", "k", "v", "o"].map(|part| format!("{at}.SelfAttention.{part}.weight"));
        Ok(SelfAttention {
            norm: self.norm(format!("{at}.layer_norm.weight"))?,
            qkv: self.matrix(&[(&q, inner), (&k, inner), (&v, inner)], d_model)?,
            output: self.matrix(&[(&o, d_model)], inner)?,
        })
    }

    fn cross_attention(&self, at: &str) -> Result<CrossAttention> {
        let (d_model, inner) = (self.config.d_model, self.config.inner_dim());
        let [q, k, v, o] =
            ["q", "k", "v", "o"].map(|part| format!("{at}.EncDecAttention.{part}.weight"));
        Ok(CrossAttention {
            norm: self.norm(format!("{at}.layer_norm.weight"))?,
            q: self.matrix(&[(&q, inner)], d_model)?,
            kv: self.matrix(&[(&k, inner), (&v, inner)], d_model)?,
            output: self.matrix(&[(&o, d_model)], inner)?,
        })
    }

    fn feed_forward(&self, at: &str) -> Result<FeedForward> {
        let (d_model, d_ff) = (self.config.d_model, self.config.d_ff);
        let [gate, up, one, output] =
            ["wi_0", "wi_1", "wi", "wo"].map(|part| format!("{at}.DenseReluDense.{part}.weight"));
        let input = if self.config.feed_forward_proj.is_gated() {
            self.matrix(&[(&gate, d_ff), (&up, d_ff)], d_model)?
        } else {
            self.matrix(&[(&one, d_ff)], d_model)?
        };
        Ok(FeedForward {
            norm: self.norm(format!("{at}.layer_norm.weight"))?,
            input,
            output: self.matrix(&[(&output, d_model)], d_ff)?,
        })
    }

    fn norm(&self, name: String) -> Result<String> {
        self.check(&name, &[self.config.d_model])?;
        Ok(name)
    }

    fn matrix(&self, parts: &[(&str, usize)], k: usize) -> Result<Matrix> {
        for (name, rows) in parts {
            self.check(name, &[*rows, k])?;
        }
        let named = parts.iter().map(|(name, rows)| ((*name).to_owned(), *rows));
        Ok(Matrix {
            parts: named.collect(),
            n: parts.iter().map(|(_, rows)| rows).sum(),
            k,
            forward: PackedWeight::empty(self.precision),
            backward: PackedWeight::empty(self.precision),
        })
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        match self.parameters.get(name) {
            Some(parameter) if parameter.shape == shape => Ok(()),
            Some(parameter) => bail!("`{name}` is {:?}, not {shape:?}", parameter.shape),
            None => bail!("the model in training has no tensor `{name}`"),
        }
    }
}
