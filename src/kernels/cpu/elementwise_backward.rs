//! Gradients of RMS norm and activations on the CPU.
//!
//! With `r = 1 / √(mean(x²) + ε)` and `y = x r w`: `dx = r w g − x r³ / width · Σ w g x`, `dw = Σ
//! over rows of g x r`. Sums over rows are added up in chunks of a fixed size, in order, so that
//! they do not depend on the number of threads.
#![expect(
    clippy::inline_always,
    reason = "kernels must be compiled inside the function that enables their instructions"
)]
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use rayon::prelude::*;

use super::elementwise::{CHUNK, GELU, over_sigmoid, rows_per_chunk};
use super::isa::{Isa, with_isa};
use super::layout::LANES;
use super::simd::Lanes;
use crate::kernels::plan::Activation;

/// Gradients of [`super::elementwise::rms_norm`]: adds to `dx (rows, width)`, which may already
/// hold the gradient of the residual, and returns `dw (width)`.
pub fn rms_norm(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    grad: &[f32],
    dx: &mut [f32],
) -> Vec<f32> {
    let width = weight.len();
    let chunk = rows_per_chunk(width) * width;
    let partial: Vec<Vec<f32>> = x
        .par_chunks(chunk)
        .zip(grad.par_chunks(chunk))
        .zip(dx.par_chunks_mut(chunk))
        .map(|((x, grad), dx)| {
            let mut dw = vec![0.0; width];
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
            for ((x, grad), dx) in rows.zip(dx.chunks_exact_mut(width)) {
                let row = NormRow { x, weight, epsilon, grad };
                // SAFETY: `isa` is available; all slices hold `width` values.
                unsafe {
                    with_isa!(isa, rms_norm_row(row: &NormRow<'_>, dx: &mut [f32], dw: &mut [f32])(&row, dx, &mut dw));
                }
            }
            dw
        })
        .collect();
    let mut dw = vec![0.0; width];
    for partial in partial {
        dw.iter_mut()
            .zip(partial)
            .for_each(|(sum, value)| *sum += value);
    }
    dw
}

struct NormRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    grad: &'a [f32],
}

#[inline(always)]
unsafe fn rms_norm_row<V: Lanes>(row: &NormRow<'_>, dx: &mut [f32], dw: &mut [f32]) {
    let NormRow {
        x,
        weight,
        epsilon,
        grad,
    } = *row;
    let width = x.len();
    let whole = width - width % LANES;
    // SAFETY: vector reads and writes end at `whole`; all slices are equally long.
    unsafe {
        let load = |slice: &[f32], i: usize| V::load(slice.as_ptr().add(i));
        let (mut squares, mut dots) = (V::splat(0.0), V::splat(0.0));
        for i in (0..whole).step_by(LANES) {
            let value = load(x, i);
            squares = value.mul_add(value, squares);
            dots = load(weight, i).mul(load(grad, i)).mul_add(value, dots);
        }
        let (mut squares, mut dot) = (squares.sum(), dots.sum());
        for i in whole..width {
            squares += x[i] * x[i];
            dot += weight[i] * grad[i] * x[i];
        }
        let r = 1.0 / (squares / width as f32 + epsilon).sqrt();
        let back = r * r * r * dot / width as f32;
        for i in (0..whole).step_by(LANES) {
            let scaled = load(grad, i).mul(V::splat(r));
            let d = scaled
                .mul(load(weight, i))
                .sub(load(x, i).mul(V::splat(back)));
            load(dx, i).add(d).store(dx.as_mut_ptr().add(i));
            scaled
                .mul_add(load(x, i), load(dw, i))
                .store(dw.as_mut_ptr().add(i));
        }
        for i in whole..width {
            dx[i] += grad[i] * r * weight[i] - x[i] * back;
            dw[i] += grad[i] * r * x[i];
        }
    }
}

/// Gradient of [`super::elementwise::gated`]: `dx (rows, 2 d_ff)` from `grad (rows, d_ff)`.
pub fn gated(
    isa: Isa,
    activation: Activation,
    x: &[f32],
    d_ff: usize,
    grad: &[f32],
    dx: &mut [f32],
) {
    let rows = rows_per_chunk(2 * d_ff);
    x.par_chunks(rows * 2 * d_ff)
        .zip(grad.par_chunks(rows * d_ff))
        .zip(dx.par_chunks_mut(rows * 2 * d_ff))
        .for_each(|((x, grad), dx)| {
            let rows = x.chunks_exact(2 * d_ff).zip(grad.chunks_exact(d_ff));
            for ((x, grad), dx) in rows.zip(dx.chunks_exact_mut(2 * d_ff)) {
                let (gate, up) = x.split_at(d_ff);
                let (d_gate, d_up) = dx.split_at_mut(d_ff);
                let up = Up {
                    values: up,
                    gradient: d_up,
                };
                run(isa, activation, gate, Some(up), grad, d_gate);
            }
        });
}

/// Gradient of [`super::elementwise::activate`].
pub fn activate(isa: Isa, activation: Activation, x: &[f32], grad: &[f32], dx: &mut [f32]) {
    x.par_chunks(CHUNK)
        .zip(grad.par_chunks(CHUNK))
        .zip(dx.par_chunks_mut(CHUNK))
        .for_each(|((x, grad), dx)| run(isa, activation, x, None, grad, dx));
}

/// The factors of gates, and where their gradient goes.
struct Up<'a> {
    values: &'a [f32],
    gradient: &'a mut [f32],
}

fn run(
    isa: Isa,
    activation: Activation,
    gate: &[f32],
    up: Option<Up<'_>>,
    grad: &[f32],
    d_gate: &mut [f32],
) {
    // SAFETY: `isa` is available; the slices are equally long.
    unsafe {
        with_isa!(isa, slices(activation: Activation, gate: &[f32], up: Option<Up<'_>>, grad: &[f32], d_gate: &mut [f32])(activation, gate, up, grad, d_gate));
    }
}

#[inline(always)]
unsafe fn slices<V: Lanes>(
    activation: Activation,
    gate: &[f32],
    mut up: Option<Up<'_>>,
    grad: &[f32],
    d_gate: &mut [f32],
) {
    // SAFETY: each step reads and writes up to sixteen values that the slices hold.
    unsafe {
        for i in (0..gate.len()).step_by(LANES) {
            let count = LANES.min(gate.len() - i);
            let (value, slope) = value_and_slope::<V>(activation, read(gate, i, count));
            let grad: V = read(grad, i, count);
            let d = if let Some(up) = &mut up {
                write(grad.mul(value), up.gradient, i, count);
                grad.mul(read(up.values, i, count)).mul(slope)
            } else {
                grad.mul(slope)
            };
            write(d, d_gate, i, count);
        }
    }
}

/// Reads `count` values (at most sixteen) from index `i` on; zero beyond.
#[inline(always)]
unsafe fn read<V: Lanes>(source: &[f32], i: usize, count: usize) -> V {
    let source = &source[i..i + count];
    // SAFETY: sixteen values are read, from the source or a padded copy.
    unsafe {
        if count == LANES {
            return V::load(source.as_ptr());
        }
        let mut padded = [0.0; LANES];
        padded[..count].copy_from_slice(source);
        V::load(padded.as_ptr())
    }
}

/// Writes the first `count` values from index `i` on.
#[inline(always)]
unsafe fn write<V: Lanes>(values: V, target: &mut [f32], i: usize, count: usize) {
    let target = &mut target[i..i + count];
    // SAFETY: sixteen values are written where the target holds them.
    unsafe {
        if count == LANES {
            values.store(target.as_mut_ptr());
        } else {
            target.copy_from_slice(&values.to_array()[..count]);
        }
    }
}

/// The activation of `x` and its derivative.
#[inline(always)]
unsafe fn value_and_slope<V: Lanes>(activation: Activation, x: V) -> (V, V) {
    // SAFETY: passed on from `run`.
    unsafe {
        let one = V::splat(1.0);
        match activation {
            Activation::Relu => {
                let slope = x.to_array().map(|x| if x > 0.0 { 1.0 } else { 0.0 });
                (V::splat(0.0).max(x), V::load(slope.as_ptr()))
            }
            Activation::GeluNew => {
                // u = 2 √(2/π) (x + 0.044715 x³); y = x σ(u); y' = σ + x σ (1 − σ) u'
                let square = x.mul(x);
                let u = square
                    .mul_add(V::splat(0.044_715 * GELU), V::splat(GELU))
                    .mul(x);
                let slope = square.mul_add(V::splat(3.0 * 0.044_715 * GELU), V::splat(GELU));
                let s = over_sigmoid(one, u);
                let rest = x.mul(s).mul(one.sub(s));
                (x.mul(s), rest.mul_add(slope, s))
            }
            Activation::Silu => {
                let s = over_sigmoid(one, x);
                (x.mul(s), s.mul(x.mul_add(one.sub(s), one)))
            }
        }
    }
}
