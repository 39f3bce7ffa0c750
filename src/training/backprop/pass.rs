//! The parts of every layer's forward and backward pass: products with the gradients of input and
//! weight, norms, and sums into the weights' gradients.
//!
//! `y = x Wᵀ`: `dx = dy W`, `dW += dyᵀ x`. Sums over tokens are one chain in the order of the
//! tokens, so they do not depend on the number of threads.

use rayon::prelude::*;

use super::super::network::WeightGradients;
use super::super::variables::ModelParameters;
use super::arena::{Arena, Buffer};
use super::weights::Matrix;
use crate::kernels::cpu::gemm;
use crate::kernels::cpu::packed_weight::PackedWeight;
use crate::kernels::cpu::product::Left;
use crate::kernels::cpu::{Isa, elementwise, elementwise_backward};
use crate::kernels::dropout::Dropout;
use crate::model::Config;
use crate::model::mode::SubLayerDropout;

/// Values given to one thread at a time.
const CHUNK: usize = 1 << 14;

/// The forward and backward pass of one batch.
pub(super) struct BatchPass<'a> {
    pub config: &'a Config,
    pub parameters: &'a ModelParameters,
    pub arena: &'a Arena,
    /// The input of the current product, packed for the gradient of the product's weight.
    pub tokens: &'a mut PackedWeight,
    pub isa: Isa,
    /// The sums of the weights' gradients.
    pub sums: &'a mut WeightGradients,
}

/// A sub-layer `x + f(norm(x))` of one layer, with its weights and its input.
pub(super) struct SubLayer<'a, W> {
    pub weights: &'a W,
    pub x: &'a [f32],
    pub dropout: SubLayerDropout,
}

/// `target += values`.
pub(super) fn add(target: &mut [f32], values: &[f32]) {
    let pairs = target.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    pairs.for_each(|(target, values)| {
        target
            .iter_mut()
            .zip(values)
            .for_each(|(sum, value)| *sum += value);
    });
}

/// `values *= factor`.
pub(super) fn scale(values: &mut [f32], factor: f32) {
    let chunks = values.par_chunks_mut(CHUNK);
    chunks.for_each(|values| values.iter_mut().for_each(|value| *value *= factor));
}

fn sum<'a>(sums: &'a mut WeightGradients, name: &str) -> &'a mut [f32] {
    let sum = sums.get_mut(name);
    sum.expect("the sums hold every weight, whose names were checked")
}

impl BatchPass<'_> {
    /// `x Wᵀ`.
    pub fn product(&self, x: &[f32], weight: &Matrix) -> Buffer {
        let mut y = self.arena.buffer(x.len() / weight.k * weight.n);
        gemm::matmul(self.isa, x, &weight.forward, None, &mut y);
        y
    }

    /// `residual + dropout(x Wᵀ)`.
    pub fn branch(
        &self,
        x: &[f32],
        weight: &Matrix,
        residual: &[f32],
        dropout: Option<Dropout>,
    ) -> Buffer {
        let Some(dropout) = dropout else {
            let mut y = self.arena.buffer(residual.len());
            gemm::matmul(self.isa, x, &weight.forward, Some(residual), &mut y);
            return y;
        };
        let mut y = self.product(x, weight);
        dropout.add_in_place(&mut y, residual);
        y
    }

    /// The gradient of `x` in [`BatchPass::branch`] from the gradient `d` of the result; adds the
    /// gradient of the weight.
    pub fn branch_backward(
        &mut self,
        x: &[f32],
        weight: &Matrix,
        d: &[f32],
        dropout: Option<Dropout>,
    ) -> Buffer {
        let Some(dropout) = dropout else {
            return self.product_backward(x, weight, d);
        };
        let mut dropped = self.arena.buffer(d.len());
        dropout.apply_to(d, &mut dropped);
        self.product_backward(x, weight, &dropped)
    }

    /// The gradient of `x` in [`BatchPass::product`]; adds the gradient of the weight.
    pub fn product_backward(&mut self, x: &[f32], weight: &Matrix, dy: &[f32]) -> Buffer {
        self.weight_backward(x, weight, dy);
        let mut dx = self.arena.buffer(x.len());
        gemm::matmul(self.isa, dy, &weight.backward, None, &mut dx);
        dx
    }

    /// [`BatchPass::product_backward`], with the gradient of `x` added to `dx`.
    pub fn product_backward_onto(
        &mut self,
        x: &[f32],
        weight: &Matrix,
        dy: &[f32],
        dx: &mut [f32],
    ) {
        self.weight_backward(x, weight, dy);
        gemm::multiply_add(self.isa, Left::Rows(dy), &weight.backward, dx);
    }

    /// Adds the gradient of the weight.
    fn weight_backward(&mut self, x: &[f32], weight: &Matrix, dy: &[f32]) {
        let (k, tokens) = (weight.k, x.len() / weight.k);
        self.tokens
            .pack_transposed(k, tokens, |row| &x[row * k..][..k]);
        if let [(name, _)] = &weight.parts[..] {
            let sum = sum(self.sums, name);
            return gemm::multiply_add(self.isa, Left::Columns(dy), self.tokens, sum);
        }
        let mut dw = self.arena.buffer(weight.n * weight.k);
        gemm::multiply(self.isa, Left::Columns(dy), self.tokens, None, &mut dw);
        let mut rest = &dw[..];
        for (name, rows) in &weight.parts {
            let (part, below) = rest.split_at(rows * weight.k);
            self.add(name, part);
            rest = below;
        }
    }

    /// Adds `values` to the gradient of a weight.
    pub fn add(&mut self, name: &str, values: &[f32]) {
        add(self.sum(name), values);
    }

    /// The gradient of a weight.
    pub fn sum(&mut self, name: &str) -> &mut [f32] {
        sum(self.sums, name)
    }

    /// The values of a weight.
    pub fn parameter(&self, name: &str) -> &[f32] {
        &self.parameters[name].values
    }

    fn epsilon(&self) -> f32 {
        self.config.layer_norm_epsilon as f32
    }

    /// The norm of `x` with the weight `name`.
    pub fn norm(&self, x: &[f32], name: &str) -> Buffer {
        let mut out = self.arena.buffer(x.len());
        elementwise::rms_norm(self.isa, x, self.parameter(name), self.epsilon(), &mut out);
        out
    }

    /// Adds the gradient of `x` in [`BatchPass::norm`] to `d`, and the gradient of the weight to
    /// its sum.
    pub fn norm_backward(&mut self, x: &[f32], name: &str, dy: &[f32], d: &mut [f32]) {
        let (weight, epsilon) = (self.parameter(name), self.epsilon());
        let dw = elementwise_backward::rms_norm(self.isa, x, weight, epsilon, dy, d);
        self.add(name, &dw);
    }
}
