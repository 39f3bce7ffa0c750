//! Tiles of every shape give the same bytes. [`Array`] has the tiles of SSE2, of AVX2 and of
//! AVX-512 on every CPU, so that their edges are tested on any machine.
#![expect(
    unsafe_code,
    reason = "kernels are called below what chooses their instruction set"
)]

use half::bf16;

use super::attention::{Attention, Heads};
use super::attention_backward::{self as backward, AttentionGradients, HeadsMut};
use super::layout::{LANES, PANEL, interleaved, interleaved_width};
use super::many_queries::{self as many, AttentionScratch, ManyQueries, ROWS_PER_TASK};
use super::mix::{Floats, Mix, Pairs};
use super::output::{OutputGate, ProductOutput, ProductTask, TaskGrid};
use super::packed_weight::PackedWeight;
use super::product::{FloatProduct, Left, ROW_BLOCK};
use super::shared::SharedMut;
use super::simd::{Array, Bf16Pairs, Lanes};
use super::{Isa, dot_f32, elementwise, gemm};
use crate::kernels::plan::{Activation, Bias, Precision, Segment, Visibility};

type Low = Array<2, 1>;
type Middle = Array<6, 1>;
type Wide = Array<12, 2>;

const HEADS: usize = 2;
/// Largest distance of the bias.
const MAX_DISTANCE: usize = 4;

/// Numbers in [-1, 1).
fn values(count: usize, seed: u32) -> Vec<f32> {
    let value = |i: u32| ((i ^ seed).wrapping_mul(0x9e37_79b9) >> 8) as f32 / (1 << 23) as f32;
    (0..count as u32).map(|i| value(i) - 1.0).collect()
}

/// `residual + c + a · weightᵀ` in tiles of the shape of `V`.
fn product<V: Lanes>(a: Left<'_>, weight: &PackedWeight, m: usize, residual: &[f32]) -> Vec<f32> {
    let mut c = values(m * weight.n(), 9);
    let product = FloatProduct {
        a,
        weight,
        residual: Some(residual),
        adds: true,
        output: ProductOutput::plain(SharedMut(c.as_mut_ptr()), weight.n()),
        m,
    };
    let task = ProductTask::plain(0..m, 0..weight.n().div_ceil(PANEL));
    // SAFETY: arrays need no instructions of their own; the shapes are those of the product.
    product.for_each_block(&task, |block| unsafe { dot_f32::run_block::<V>(block) });
    c
}

#[test]
fn products() {
    let shapes = [
        (1, 1, 1),
        (1, 130, 40),
        (2, 70, 513),
        (3, 129, 33),
        (5, 47, 20),
        (13, 33, 1025),
        (40, 100, 64),
    ];
    for (m, n, k) in shapes {
        for precision in [Precision::F32, Precision::Bf16] {
            let w = values(n * k, 1);
            let weights = [false, true].map(|halved| {
                let mut weight = PackedWeight::laid_out(precision, halved);
                weight.pack(n, k, |row, target| {
                    target.copy_from_slice(&w[row * k..][..k]);
                });
                weight
            });
            let (a, residual) = (values(m * k, 2), values(m * n, 3));
            for a in [Left::Rows(&a), Left::Columns(&a)] {
                let first = product::<Low>(a, &weights[0], m, &residual);
                assert!(first.iter().any(|value| *value != 0.0));
                for weight in &weights {
                    let low = product::<Low>(a, weight, m, &residual);
                    let middle = product::<Middle>(a, weight, m, &residual);
                    let wide = product::<Wide>(a, weight, m, &residual);
                    let same = low == first && middle == first && wide == first;
                    assert!(same, "{m} x {n} x {k}, {precision:?}");
                }
            }
        }
    }
}

/// Both input layers of a gated block of `d_ff`, one above the other in `w`, as one interleaved
/// weight.
fn gated_weight(w: &[f32], d_ff: usize, k: usize, mut empty: PackedWeight) -> PackedWeight {
    empty.pack(interleaved_width(d_ff), k, |row, target| {
        let (part, row) = interleaved(row);
        if row < d_ff {
            target.copy_from_slice(&w[(part * d_ff + row) * k..][..k]);
        } else {
            target.fill(0.0);
        }
    });
    empty
}

/// A gated product of `m` rows; `run` multiplies each of its tasks.
fn gated(
    m: usize,
    d_ff: usize,
    a: &[f32],
    weight: &PackedWeight,
    run: impl Fn(&FloatProduct<'_>, &ProductTask) + Sync,
) -> Vec<f32> {
    let mut c = vec![f32::NAN; m * d_ff];
    let gate = OutputGate {
        activation: Activation::GeluNew,
        isa: Isa::Portable,
    };
    let product = FloatProduct {
        a: Left::Rows(a),
        weight,
        residual: None,
        adds: false,
        output: ProductOutput::gated(SharedMut(c.as_mut_ptr()), d_ff, weight.n(), gate),
        m,
    };
    let panels = weight.n().div_ceil(PANEL);
    let grid = TaskGrid {
        rows: m,
        rows_per_task: ROW_BLOCK,
        panels,
    };
    product
        .output
        .for_each_task(&grid, |_| 2, |task| run(&product, task));
    c
}

#[test]
fn gated_products_are_products_and_then_a_gate() {
    for (m, d_ff, k) in [(1, 1, 1), (2, 100, 513), (13, 32, 1025), (125, 65, 600)] {
        let (a, w) = (values(m * k, 2), values(2 * d_ff * k, 1));
        for precision in [Precision::F32, Precision::Bf16] {
            let mut stacked = PackedWeight::laid_out(precision, false);
            stacked.pack(2 * d_ff, k, |row, target| {
                target.copy_from_slice(&w[row * k..][..k]);
            });
            let mut wide = vec![0.0; m * 2 * d_ff];
            gemm::matmul(Isa::Portable, &a, &stacked, None, &mut wide);
            let mut expected = vec![0.0; m * d_ff];
            let gelu = Activation::GeluNew;
            elementwise::gated(Isa::Portable, gelu, &wide, d_ff, &mut expected);
            for halved in [false, true] {
                let weight = PackedWeight::laid_out(precision, halved);
                let weight = gated_weight(&w, d_ff, k, weight);
                // SAFETY: arrays need no instructions of their own; the shapes are those of the
                // product.
                let got = [
                    gated(m, d_ff, &a, &weight, |product, task| {
                        product.for_each_block(task, |block| unsafe {
                            dot_f32::run_block::<Low>(block);
                        });
                    }),
                    gated(m, d_ff, &a, &weight, |product, task| {
                        product.for_each_block(task, |block| unsafe {
                            dot_f32::run_block::<Wide>(block);
                        });
                    }),
                ];
                for got in got {
                    assert_eq!(got, expected, "{m} x {d_ff} x {k}, {precision:?}");
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod tiles;

// SAFETY: no instruction beyond the target's baseline.
unsafe impl<const ROWS: usize, const WIDTH: usize> Bf16Pairs for Array<ROWS, WIDTH> {
    unsafe fn pairs(even: Self, odd: Self) -> Self {
        let bits = |value: f32| u32::from(bf16::from_f32(value).to_bits());
        // SAFETY: arrays of 16 values.
        unsafe {
            let (even, odd) = (even.to_array(), odd.to_array());
            let pairs: [f32; LANES] =
                std::array::from_fn(|i| f32::from_bits(bits(odd[i]) << 16 | bits(even[i])));
            Self::load(pairs.as_ptr())
        }
    }
    unsafe fn add_dot(self, left: f32, right: Self) -> Self {
        let halves = |pair: f32| {
            let bits = pair.to_bits();
            (f32::from_bits(bits << 16), f32::from_bits(bits >> 16 << 16))
        };
        // SAFETY: as above.
        unsafe {
            let (sums, right) = (self.to_array(), right.to_array().map(halves));
            let (even, odd) = halves(left);
            let sums: [f32; LANES] =
                std::array::from_fn(|i| sums[i] + odd * right[i].1 + even * right[i].0);
            Self::load(sums.as_ptr())
        }
    }
}

/// The inputs of an attention of one segment.
struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    bias: Vec<f32>,
    d_kv: usize,
    segment: [Segment; 1],
}

impl Inputs {
    fn new((queries, keys, d_kv): (usize, usize, usize), first_position: usize) -> Self {
        Self {
            q: values(queries * HEADS * d_kv, 1),
            k: values(keys * HEADS * d_kv, 2),
            v: values(keys * HEADS * d_kv, 3),
            bias: values((2 * MAX_DISTANCE + 1) * HEADS, 4),
            d_kv,
            segment: [Segment {
                queries: 0..queries,
                keys: 0..keys,
                first_position,
            }],
        }
    }

    fn attention(&self, visibility: Visibility) -> Attention<'_> {
        let heads = |data| Heads {
            data,
            stride: HEADS * self.d_kv,
            offset: 0,
        };
        Attention {
            q: heads(&self.q),
            k: heads(&self.k),
            v: heads(&self.v),
            heads: HEADS,
            d_kv: self.d_kv,
            bias: Some(Bias {
                by_distance: &self.bias,
                max_distance: MAX_DISTANCE,
            }),
            visibility,
            segments: &self.segment,
            dropout: None,
            precision: Precision::F32,
        }
    }
}

/// The result of the second head, in tiles of the shape of `V`.
fn attended<V: Lanes, M: Mix<V>>(
    attention: &Attention<'_>,
    scratch: &mut AttentionScratch,
) -> Vec<f32> {
    let segment = &attention.segments[0];
    let mut out = vec![0.0; segment.queries.end * HEADS * attention.d_kv];
    for first in (0..segment.queries.len()).step_by(ROWS_PER_TASK) {
        let task = ManyQueries {
            attention,
            segment,
            head: 1,
            queries: first..(first + ROWS_PER_TASK).min(segment.queries.len()),
        };
        // SAFETY: arrays need no instructions of their own; the result holds every row.
        unsafe { many::run::<V, f32, M>(&task, scratch, SharedMut(out.as_mut_ptr())) };
    }
    out
}

#[test]
fn attention_of_many_queries() {
    // One working memory for all cases, as in a thread.
    let mut scratch = AttentionScratch::default();
    let shapes = [
        (2, 2, 8),
        (16, 241, 20),
        (17, 17, 64),
        (33, 100, 96),
        (300, 260, 64),
    ];
    for shape in shapes {
        for visibility in [Visibility::All, Visibility::Causal] {
            let inputs = Inputs::new(shape, 3);
            let attention = inputs.attention(visibility);
            let low = attended::<Low, Floats>(&attention, &mut scratch);
            let middle = attended::<Middle, Floats>(&attention, &mut scratch);
            let wide = attended::<Wide, Floats>(&attention, &mut scratch);
            assert!(low == middle && middle == wide, "{shape:?}, {visibility:?}");
            assert!(low.iter().all(|value| value.is_finite()));
            let pairs = attended::<Low, Pairs>(&attention, &mut scratch);
            let (middle, wide) = (
                attended::<Middle, Pairs>(&attention, &mut scratch),
                attended::<Wide, Pairs>(&attention, &mut scratch),
            );
            assert!(
                pairs == middle && middle == wide,
                "{shape:?}, {visibility:?}"
            );
            // Weights sum to 1, values are below 1: each is rounded by 2^-9 of itself.
            let far = low.iter().zip(&pairs).map(|(a, b)| (a - b).abs());
            let far = far.fold(0.0, f32::max);
            assert!(0.0 < far && far < 2.0 / 512.0, "{shape:?}: {far}");
        }
    }
}

/// Gradients of q, k, v and the bias of the second head, in tiles of the shape of `V`.
fn gradients<V: Lanes>(attention: &Attention<'_>) -> [Vec<f32>; 4] {
    let segment = &attention.segments[0];
    let inner = HEADS * attention.d_kv;
    let (queries, keys) = (segment.queries.len() * inner, segment.keys.len() * inner);
    let (out, grad) = (values(queries, 5), values(queries, 6));
    let (mut dq, mut dk, mut dv) = (vec![0.0; queries], vec![0.0; keys], vec![0.0; keys]);
    let mut bias = vec![0.0; 2 * MAX_DISTANCE + 1];
    let [dq_heads] = HeadsMut::split(&mut dq, inner, [0]);
    let [dk_heads] = HeadsMut::split(&mut dk, inner, [0]);
    let [dv_heads] = HeadsMut::split(&mut dv, inner, [0]);
    let task = backward::GradientTask {
        attention,
        gradients: &AttentionGradients {
            out: &out,
            grad: &grad,
            dq: dq_heads,
            dk: dk_heads,
            dv: dv_heads,
        },
        segment,
        head: 1,
    };
    // SAFETY: arrays need no instructions of their own; the gradients hold every row.
    unsafe { backward::run::<V>(&task, &mut backward::GradientScratch::default(), &mut bias) };
    [dq, dk, dv, bias]
}

#[test]
fn gradients_of_attention() {
    for shape in [(1, 1, 8), (17, 20, 64), (100, 97, 40), (30, 600, 64)] {
        let inputs = Inputs::new(shape, 0);
        let attention = inputs.attention(Visibility::Causal);
        let low = gradients::<Low>(&attention);
        let (middle, wide) = (
            gradients::<Middle>(&attention),
            gradients::<Wide>(&attention),
        );
        assert!(low == middle && middle == wide, "{shape:?}");
        assert!(low.iter().flatten().all(|value| value.is_finite()));
    }
}
