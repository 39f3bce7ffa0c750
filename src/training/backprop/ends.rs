//! The ends of both stacks: embeddings, position biases and the head with its loss.

use rayon::prelude::*;

use super::super::batch::Batch;
use super::arena::Buffer;
use super::attention::PositionBias;
use super::pass::{BatchPass, scale};
use super::weights::StepWeights;
use crate::kernels::cross_entropy::gradient_in_place;
use crate::kernels::dropout::Dropout;
use crate::model::names::{SHARED, Stack};
use crate::model::relative_position::{Direction, buckets_by_distance};

/// Columns of the embedding table that one thread adds up.
const COLUMNS: usize = 64;

impl BatchPass<'_> {
    /// Rows of the embedding table, with dropout.
    pub fn embed(&self, token_ids: &[u32], dropout: Option<Dropout>) -> Buffer {
        let width = self.config.d_model;
        let table = self.parameter(SHARED);
        let mut rows = self.arena.buffer(token_ids.len() * width);
        let chunks = rows.par_chunks_mut(width).with_min_len(64);
        chunks.zip(token_ids).for_each(|(row, id)| {
            row.copy_from_slice(&table[*id as usize * width..][..width]);
        });
        if let Some(dropout) = dropout {
            dropout.apply_in_place(&mut rows);
        }
        rows
    }

    /// Adds the gradients `d` of the rows of [`BatchPass::embed`] to the gradient of the table.
    /// Each thread adds some columns of all rows, in the order of the tokens.
    pub fn embed_backward(&mut self, token_ids: &[u32], dropout: Option<Dropout>, d: &mut [f32]) {
        let width = self.config.d_model;
        if let Some(dropout) = dropout {
            dropout.apply_in_place(d);
        }
        let (d, table) = (&*d, self.sum(SHARED));
        let rows = table.len() / width;
        let sums = (0..width.div_ceil(COLUMNS)).into_par_iter().map(|block| {
            let columns = block * COLUMNS..width.min((block + 1) * COLUMNS);
            let mut sums = vec![0.0; rows * columns.len()];
            for (row, id) in d.chunks_exact(width).zip(token_ids) {
                let sums = &mut sums[*id as usize * columns.len()..][..columns.len()];
                let values = &row[columns.clone()];
                sums.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += value);
            }
            (columns, sums)
        });
        let sums: Vec<_> = sums.collect();
        table
            .par_chunks_mut(width)
            .with_min_len(64)
            .enumerate()
            .for_each(|(row, target)| {
                for (columns, sums) in &sums {
                    let values = &sums[row * columns.len()..][..columns.len()];
                    let target = &mut target[columns.clone()];
                    target
                        .iter_mut()
                        .zip(values)
                        .for_each(|(sum, value)| *sum += value);
                }
            });
    }

    /// The bucket of every distance.
    fn buckets(&self, direction: Direction) -> impl Iterator<Item = usize> + use<> {
        let buckets = self.config.relative_attention_num_buckets;
        buckets_by_distance(
            direction,
            buckets,
            self.config.relative_attention_max_distance,
        )
    }

    /// A stack's bias by distance.
    pub fn position_bias(&self, stack: Stack) -> PositionBias {
        let heads = self.config.num_heads;
        let table = self.parameter(&stack.position_bias());
        let rows = self.buckets(Direction::of(stack));
        let by_distance: Vec<f32> = rows
            .flat_map(|bucket| table[bucket * heads..][..heads].iter().copied())
            .collect();
        PositionBias {
            gradient: vec![0.0; by_distance.len()],
            by_distance,
        }
    }

    /// Adds the gradient of a stack's bias.
    pub fn position_bias_backward(&mut self, stack: Stack, gradient: &[f32]) {
        let heads = self.config.num_heads;
        let buckets = self.buckets(Direction::of(stack));
        let table = self.sum(&stack.position_bias());
        for (bucket, values) in buckets.zip(gradient.chunks_exact(heads)) {
            let target = &mut table[bucket * heads..][..heads];
            target
                .iter_mut()
                .zip(values)
                .for_each(|(sum, value)| *sum += value);
        }
    }

    /// A stack's final norm, with dropout.
    pub fn final_norm(&self, stack: Stack, x: &[f32], dropout: Option<Dropout>) -> Buffer {
        let mut y = self.norm(x, &stack.final_norm());
        if let Some(dropout) = dropout {
            dropout.apply_in_place(&mut y);
        }
        y
    }

    /// The gradient of `x` in [`BatchPass::final_norm`] from the gradient `dy` of the result.
    pub fn final_norm_backward(
        &mut self,
        stack: Stack,
        x: &[f32],
        dropout: Option<Dropout>,
        mut dy: Buffer,
    ) -> Buffer {
        if let Some(dropout) = dropout {
            dropout.apply_in_place(&mut dy);
        }
        let mut d = self.arena.zeros(x.len());
        self.norm_backward(x, &stack.final_norm(), &dy, &mut d);
        d
    }

    /// The loss of every label from the output `x` of the decoder's last layer, and the gradient of
    /// `x`; `dropout` is the stream of the final norm.
    pub fn head(
        &mut self,
        weights: &StepWeights,
        x: &[f32],
        batch: &Batch,
        z_loss: f32,
        dropout: Option<Dropout>,
    ) -> (Vec<f32>, Buffer) {
        let mut y = self.final_norm(Stack::Decoder, x, dropout);
        if let Some(factor) = weights.scale {
            scale(&mut y, factor);
        }
        let mut logits = self.product(&y, &weights.head);
        let vocab = self.config.vocab_size;
        let losses = gradient_in_place(&mut logits, vocab, &batch.labels, z_loss);
        let mut dy = self.product_backward(&y, &weights.head, &logits);
        drop((logits, y));
        if let Some(factor) = weights.scale {
            scale(&mut dy, factor);
        }
        let d = self.final_norm_backward(Stack::Decoder, x, dropout, dy);
        (losses, d)
    }
}
