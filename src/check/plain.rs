//! The definitions of the kernels and of the encoder in f64, written as plainly as possible.
//! Matrices are row-major.

use crate::model::Config;
use crate::model::names::{SHARED, Stack};
use crate::model::relative_position::{Direction, relative_position_bucket};

/// The values of a weight by its Hugging Face name and shape.
pub(super) type NamedWeights<'a> = dyn Fn(&str, &[usize]) -> Vec<f64> + 'a;

/// `x (rows, k)` times the transpose of `w (n, k)`.
pub(super) fn linear(x: &[f64], w: &[f64], k: usize) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    x.chunks_exact(k)
        .flat_map(|row| w.chunks_exact(k).map(move |weights| dot(row, weights)))
        .collect()
}

/// `x / √(mean(x²) + ε) · weight`, row by row.
pub(super) fn rms_norm(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    let width = weight.len();
    let norm = |row: &[f64]| {
        let mean = row.iter().map(|value| value * value).sum::<f64>() / width as f64;
        let scale = 1.0 / (mean + epsilon).sqrt();
        let scaled = row.iter().zip(weight).map(|(x, w)| x * scale * w);
        scaled.collect::<Vec<_>>()
    };
    x.chunks_exact(width).flat_map(norm).collect()
}

/// `silu(gate) · up` of rows that hold gate beside up.
pub(super) fn gated_silu(x: &[f64], d_ff: usize) -> Vec<f64> {
    let gate = |row: &[f64]| {
        let (gate, up) = row.split_at(d_ff);
        let pairs = gate.iter().zip(up);
        pairs
            .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
            .collect::<Vec<_>>()
    };
    x.chunks_exact(2 * d_ff).flat_map(gate).collect()
}

/// Attention within segments of `qkv (rows, 3 heads d_kv)`, unscaled, with
/// `bias(key - query, head)` added to the scores.
pub(super) fn attention(
    qkv: &[f64],
    heads: usize,
    d_kv: usize,
    lengths: &[usize],
    bias: impl Fn(i64, usize) -> f64,
) -> Vec<f64> {
    let inner = heads * d_kv;
    let part = |row: usize, number: usize, head: usize| {
        &qkv[row * 3 * inner + number * inner + head * d_kv..][..d_kv]
    };
    let mut out = Vec::new();
    let mut first = 0;
    for &length in lengths {
        for query in 0..length {
            for head in 0..heads {
                let score = |key: usize| {
                    let q = part(first + query, 0, head).iter();
                    let dot: f64 = q.zip(part(first + key, 1, head)).map(|(q, k)| q * k).sum();
                    dot + bias(key as i64 - query as i64, head)
                };
                let scores: Vec<f64> = (0..length).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                out.extend((0..d_kv).map(|i| {
                    let value = |key: usize| weights[key] * part(first + key, 2, head)[i];
                    (0..length).map(value).sum::<f64>() / total
                }));
            }
        }
        first += length;
    }
    out
}

/// The encoder's last hidden states after the final norm.
pub(super) fn encoder(
    config: &Config,
    weight: &NamedWeights<'_>,
    segments: &[Vec<u32>],
) -> Vec<f64> {
    let Config {
        d_model,
        d_ff,
        num_heads,
        d_kv,
        ..
    } = *config;
    let inner = config.inner_dim();
    let epsilon = config.layer_norm_epsilon;
    let buckets = config.relative_attention_num_buckets;
    let lengths: Vec<usize> = segments.iter().map(Vec::len).collect();
    let table = weight(&Stack::Encoder.position_bias(), &[buckets, num_heads]);
    let bias = |distance: i64, head: usize| {
        let max_distance = config.relative_attention_max_distance;
        let bucket = relative_position_bucket(distance, Direction::Both, buckets, max_distance);
        table[bucket * num_heads + head]
    };
    let embedding = weight(SHARED, &[config.vocab_size, d_model]);
    let rows = |id: &u32| &embedding[*id as usize * d_model..][..d_model];
    let mut x: Vec<f64> = segments.iter().flatten().flat_map(rows).copied().collect();
    for layer in 0..config.num_layers {
        let names = Stack::Encoder.self_attention(layer);
        let h = rms_norm(&x, &weight(&names.norm, &[d_model]), epsilon);
        let projections = [&names.q, &names.k, &names.v].map(|name| {
            let w = weight(name, &[inner, d_model]);
            linear(&h, &w, d_model)
        });
        let qkv = side_by_side(&projections, inner);
        let mixed = attention(&qkv, num_heads, d_kv, &lengths, bias);
        let o = weight(&names.o, &[d_model, inner]);
        add(&mut x, &linear(&mixed, &o, inner));
        let names = Stack::Encoder.feed_forward(layer);
        let h = rms_norm(&x, &weight(&names.norm, &[d_model]), epsilon);
        let gate_and_up = [&names.wi_0, &names.wi_1].map(|name| {
            let w = weight(name, &[d_ff, d_model]);
            linear(&h, &w, d_model)
        });
        let inside = gated_silu(&side_by_side(&gate_and_up, d_ff), d_ff);
        let wo = weight(&names.wo, &[d_model, d_ff]);
        add(&mut x, &linear(&inside, &wo, d_ff));
    }
    rms_norm(
        &x,
        &weight(&Stack::Encoder.final_norm(), &[d_model]),
        epsilon,
    )
}

/// Matrices of the same `width` as one, rows joined.
fn side_by_side(parts: &[Vec<f64>], width: usize) -> Vec<f64> {
    let rows = parts[0].len() / width;
    (0..rows)
        .flat_map(|row| {
            parts
                .iter()
                .flat_map(move |part| &part[row * width..][..width])
        })
        .copied()
        .collect()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
