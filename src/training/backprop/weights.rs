//! The weights of one step in the form that products read: each packed once for the forward pass
//! and once for the gradient of its input. Projections of the same input are one matrix, as in
//! [`crate::model::layers`].

use candle_core::{Result, bail};
use rayon::prelude::*;

use super::super::variables::ModelParameters;
use crate::kernels::cpu::packed_weight::PackedWeight;
use crate::kernels::plan::Precision;
use crate::model::Config;
use crate::model::names::{AttentionNames, FeedForwardNames, LM_HEAD, SHARED, Stack};

/// Matrices `(n_i, k)` of the same input, one below the other.
#[derive(Debug)]
pub(super) struct Matrix {
    /// The name and the number of rows of each part.
    pub parts: Vec<(String, usize)>,
    /// Rows of all parts.
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
pub(super) struct SelfAttentionMatrices {
    pub norm: String,
    pub qkv: Matrix,
    pub output: Matrix,
}

/// Attention to the source and its norm.
#[derive(Debug)]
pub(super) struct CrossAttentionMatrices {
    pub norm: String,
    pub q: Matrix,
    pub kv: Matrix,
    pub output: Matrix,
}

/// The feed-forward block and its norm.
#[derive(Debug)]
pub(super) struct FeedForwardMatrices {
    pub norm: String,
    pub input: Matrix,
    pub output: Matrix,
}

/// One layer; only layers of the decoder have cross-attention.
#[derive(Debug)]
pub(super) struct LayerMatrices {
    pub self_attention: SelfAttentionMatrices,
    pub cross_attention: Option<CrossAttentionMatrices>,
    pub feed_forward: FeedForwardMatrices,
}

/// All weights of a step.
#[derive(Debug)]
pub(super) struct StepWeights {
    pub encoder: Vec<LayerMatrices>,
    pub decoder: Vec<LayerMatrices>,
    pub head: Matrix,
    /// Factor of the decoder's output before the head.
    pub scale: Option<f32>,
}

/// Makes the matrices of a model's weights.
struct Builder<'a> {
    config: &'a Config,
    parameters: &'a ModelParameters,
    precision: Precision,
}

impl Matrix {
    /// Packs the current values of the weights.
    fn pack(&mut self, parameters: &ModelParameters) {
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

impl LayerMatrices {
    fn matrices(&mut self) -> impl Iterator<Item = &mut Matrix> {
        let LayerMatrices {
            self_attention,
            cross_attention,
            feed_forward,
        } = self;
        let cross = cross_attention.as_mut();
        let cross = cross.map(|cross| [&mut cross.q, &mut cross.kv, &mut cross.output]);
        [
            &mut self_attention.qkv,
            &mut self_attention.output,
            &mut feed_forward.input,
            &mut feed_forward.output,
        ]
        .into_iter()
        .chain(cross.into_iter().flatten())
    }
}

impl StepWeights {
    /// Unpacked room for all weights.
    ///
    /// # Errors
    /// A weight that is missing or has another shape than `config` says.
    pub fn new(
        config: &Config,
        parameters: &ModelParameters,
        precision: Precision,
    ) -> Result<Self> {
        let builder = Builder {
            config,
            parameters,
            precision,
        };
        let has_head = parameters.contains_key(LM_HEAD);
        let head = if has_head { LM_HEAD } else { SHARED };
        builder.check(SHARED, &[config.vocab_size, config.d_model])?;
        for stack in [Stack::Encoder, Stack::Decoder] {
            builder.check(
                &stack.position_bias(),
                &[config.relative_attention_num_buckets, config.num_heads],
            )?;
            builder.norm(stack.final_norm())?;
        }
        Ok(StepWeights {
            encoder: builder.layers(Stack::Encoder)?,
            decoder: builder.layers(Stack::Decoder)?,
            head: builder.matrix(&[(head, config.vocab_size)], config.d_model)?,
            scale: config
                .scales_logits(has_head)
                .then(|| (config.d_model as f64).powf(-0.5) as f32),
        })
    }

    /// Packs the current values of all weights; names and shapes are the same as in
    /// [`StepWeights::new`].
    pub fn pack(&mut self, parameters: &ModelParameters) {
        let layers = self.encoder.iter_mut().chain(&mut self.decoder);
        let mut matrices: Vec<&mut Matrix> = layers.flat_map(LayerMatrices::matrices).collect();
        matrices.push(&mut self.head);
        let all = matrices.par_iter_mut().with_max_len(1);
        all.for_each(|matrix| matrix.pack(parameters));
    }
}

impl Builder<'_> {
    fn layers(&self, stack: Stack) -> Result<Vec<LayerMatrices>> {
        (0..stack.num_layers(self.config))
            .map(|layer| self.layer(stack, layer))
            .collect()
    }

    fn layer(&self, stack: Stack, layer: usize) -> Result<LayerMatrices> {
        let cross_attention = match stack {
            Stack::Encoder => None,
            Stack::Decoder => Some(self.cross_attention(Stack::cross_attention(layer))?),
        };
        Ok(LayerMatrices {
            self_attention: self.self_attention(stack.self_attention(layer))?,
            cross_attention,
            feed_forward: self.feed_forward(stack.feed_forward(layer))?,
        })
    }

    fn self_attention(&self, names: AttentionNames) -> Result<SelfAttentionMatrices> {
        let (d_model, inner) = (self.config.d_model, self.config.inner_dim());
        let AttentionNames { norm, q, k, v, o } = names;
        Ok(SelfAttentionMatrices {
            norm: self.norm(norm)?,
            qkv: self.matrix(&[(&q, inner), (&k, inner), (&v, inner)], d_model)?,
            output: self.matrix(&[(&o, d_model)], inner)?,
        })
    }

    fn cross_attention(&self, names: AttentionNames) -> Result<CrossAttentionMatrices> {
        let (d_model, inner) = (self.config.d_model, self.config.inner_dim());
        let AttentionNames { norm, q, k, v, o } = names;
        Ok(CrossAttentionMatrices {
            norm: self.norm(norm)?,
            q: self.matrix(&[(&q, inner)], d_model)?,
            kv: self.matrix(&[(&k, inner), (&v, inner)], d_model)?,
            output: self.matrix(&[(&o, d_model)], inner)?,
        })
    }

    fn feed_forward(&self, names: FeedForwardNames) -> Result<FeedForwardMatrices> {
        let (d_model, d_ff) = (self.config.d_model, self.config.d_ff);
        let input = if self.config.feed_forward_proj.is_gated() {
            self.matrix(&[(&names.wi_0, d_ff), (&names.wi_1, d_ff)], d_model)?
        } else {
            self.matrix(&[(&names.wi, d_ff)], d_model)?
        };
        Ok(FeedForwardMatrices {
            norm: self.norm(names.norm)?,
            input,
            output: self.matrix(&[(&names.wo, d_model)], d_ff)?,
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
