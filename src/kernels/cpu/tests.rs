//! Tiles of every shape give the same bytes. [`Array`] has tiles as low as SSE2's registers, as AVX2's and as wide as AVX-512's, whatever the CPU has: so their
//! edges are tested on any machine.
#![expect(
    unsafe_code,
    reason = "kernels are called below what chooses their instruction set"
)]

use half::bf16;

use super::attention::{Attention, Bias, Heads, Segment, Visibility};
use super::attention_backward::{self as backward, Gradients, HeadsMut};
use super::elementwise::{self, Activation};
use super::gemm::{self, Left, Product};
use super::many_queries::{self as many, Floats, ManyQueries, Mix, Pairs, ROWS_PER_TASK};
use super::output::{Gate, Output, Task, interleaved, interleaved_width};
use super::packed_weight::{PANEL, PackedWeight, Precision};
use super::simd::{Array, Bf16Pairs, LANES, Lanes};
use super::{Isa, SharedMut};

type Low = Array<2, 1>;
type Middle = Array<6, 1>;
type Wide = Array<12, 2>;

const HEADS: usize = 2;
/// Of the bias.
const MAX_DISTANCE: usize = 4;

/// Numbers in [-1, 1).
fn values(count: usize, seed: u32) -> Vec<f32> {
    let value = |i: u32| ((i ^ seed).wrapping_mul(0x9e37_79b9) >> 8) as f32 / (1 << 23) as f32;
    (0..count as u32).map(|i| value(i) - 1.0).collect()
}

/// `residual + c + a · weightᵀ` in tiles of the shape of `V`.
fn product<V: Lanes>(a: Left<'_>, weight: &PackedWeight, m: usize, residual: &[f32]) -> Vec<f32> {
    let mut c = values(m * weight.n(), 9);
    let product = Product {
        a,
        weight,
        residual: Some(residual),
        adds: true,
        output: Output::plain(SharedMut(c.as_mut_ptr()), weight.n()),
        m,
    };
    let task = Task::plain(0..m, 0..weight.n().div_ceil(PANEL));
    // SAFETY: arrays need no instructions of their own; the shapes are those of the product.
    product.for_each_part(&task, |part| unsafe { gemm::run_part::<V>(part) });
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

/// Both input layers of a gated block of `d_ff`, `(d_ff, k)` each and one above the other in `w`, as one weight.
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

/// A gated product of `m` rows, every task of which `run` multiplies.
fn gated(
    (m, d_ff): (usize, usize),
    a: &[f32],
    weight: &PackedWeight,
    run: impl Fn(&Product<'_>, &Task) + Sync,
) -> Vec<f32> {
    let mut c = vec![f32::NAN; m * d_ff];
    let gate = Gate {
        activation: Activation::GeluNew,
        isa: Isa::Portable,
    };
    let product = Product {
        a: Left::Rows(a),
        weight,
        residual: None,
        adds: false,
        output: Output::gated(SharedMut(c.as_mut_ptr()), d_ff, weight.n(), gate),
        m,
    };
    let panels = weight.n().div_ceil(PANEL);
    let tasks = (m, gemm::ROW_BLOCK);
    product
        .output
        .for_each_task(tasks, panels, |_| 2, |task| run(&product, task));
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
                let shape = (m, d_ff);
                // SAFETY: arrays need no instructions of their own; the shapes are those of the product.
                let got = [
                    gated(shape, &a, &weight, |product, task| {
                        product.for_each_part(task, |part| unsafe { gemm::run_part::<Low>(part) });
                    }),
                    gated(shape, &a, &weight, |product, task| {
                        product.for_each_part(task, |part| unsafe { gemm::run_part::<Wide>(part) });
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
mod tiles {
    //! Matrix tiles, in plain Rust: what surrounds them is tested on machines that have none.

    use std::io::Write;

    use super::{
        Left, Output, PANEL, PackedWeight, Precision, Product, SharedMut, Task, gated,
        gated_weight, values,
    };
    use crate::kernels::cpu::amx::{self, Block, SIDE, STEP, Unit};
    use crate::kernels::cpu::dot_bf16;
    use crate::kernels::cpu::integer_lanes::Portable;
    use crate::kernels::cpu::integer_product::{self, quantize_rows, run_in_tiles};
    use crate::kernels::cpu::integer_weight::{Bits, IntegerRows, IntegerWeight, Order};
    use crate::kernels::cpu::{IntegerIsa, Isa};

    fn say(what: &str) {
        writeln!(std::io::stderr(), "{what}").expect("stderr is open");
    }

    struct Plain;

    /// `sums(row, column)` of a block become `sum(sums, group of A, group of B)`, step by step.
    unsafe fn multiply(block: &Block, sum: impl Fn(u32, &[u32], &[u32]) -> u32) {
        for row in 0..SIDE {
            for column in 0..SIDE {
                // SAFETY: the block lies where it says.
                unsafe {
                    let from = block.from.wrapping_byte_add(row * block.from_stride);
                    let mut value = *from.add(column);
                    for step in 0..block.steps {
                        let a = block.a.byte_add(row * block.a_stride).add(step * STEP);
                        let b = block.b.add(step * STEP * SIDE + column);
                        let a: Vec<u32> = (0..STEP).map(|i| *a.add(i)).collect();
                        let b: Vec<u32> = (0..STEP).map(|i| *b.add(i * SIDE)).collect();
                        value = sum(value, &a, &b);
                    }
                    *block.to.byte_add(row * block.to_stride).add(column) = value;
                }
            }
        }
    }

    // SAFETY: plain Rust; blocks are the caller's promise.
    unsafe impl Unit for Plain {
        unsafe fn begin() {}
        unsafe fn end() {}
        unsafe fn multiply_bf16(block: &Block) {
            let half = |bits: u32, odd: usize| f32::from_bits(bits >> (16 * odd) << 16);
            let sum = |sum: u32, a: &[u32], b: &[u32]| {
                let of = |odd| {
                    let products = a.iter().zip(b).map(|(a, b)| half(*a, odd) * half(*b, odd));
                    products.sum::<f32>()
                };
                (f32::from_bits(sum) + (of(0) + of(1))).to_bits()
            };
            // SAFETY: passed on from the caller.
            unsafe { multiply(block, sum) };
        }
        unsafe fn multiply_int8(block: &Block) {
            let sum = |sum: u32, a: &[u32], b: &[u32]| {
                let products = a.iter().zip(b).map(|(a, b)| {
                    let bytes = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
                    bytes
                        .map(|(a, b)| i32::from(a as i8) * i32::from(b))
                        .sum::<i32>()
                });
                (sum as i32 + products.sum::<i32>()) as u32
            };
            // SAFETY: passed on from the caller.
            unsafe { multiply(block, sum) };
        }
    }

    /// Takes bytes for bf16.
    struct Faulty;

    // SAFETY: as `Plain`.
    unsafe impl Unit for Faulty {
        unsafe fn begin() {}
        unsafe fn end() {}
        unsafe fn multiply_bf16(block: &Block) {
            // SAFETY: passed on from the caller.
            unsafe { Plain::multiply_bf16(block) };
        }
        unsafe fn multiply_int8(block: &Block) {
            // SAFETY: passed on from the caller.
            unsafe { Plain::multiply_bf16(block) };
        }
    }

    #[test]
    fn plain_tiles_and_those_of_the_machine_multiply_as_the_manual_says() {
        // SAFETY: plain Rust.
        let (plain, faulty) = unsafe { (amx::multiplies::<Plain>(), amx::multiplies::<Faulty>()) };
        assert!(plain && !faulty);
        if !Isa::Amx.is_available() {
            say("no AMX here: its own tiles were not tried");
        }
    }

    #[test]
    fn products_of_bytes_in_tiles_are_exact() {
        for (m, n, k) in [
            (1, 1, 1),
            (3, 33, 70),
            (32, 32, 64),
            (40, 50, 129),
            (65, 64, 512),
        ] {
            let (a, w, residual) = (values(m * k, 2), values(n * k, 1), values(m * n, 3));
            let weight = IntegerWeight::new(Bits::Eight, n, k, |row, target| {
                target.copy_from_slice(&w[row * k..][..k]);
            });
            for residual in [None, Some(&residual[..])] {
                let mut expected = vec![0.0; m * n];
                integer_product::matmul(IntegerIsa::Portable, &a, &weight, residual, &mut expected);
                // Old numbers lie where tiles read beyond the rows.
                let mut rows = IntegerRows {
                    groups: vec![-1; 1 << 16],
                    ..Default::default()
                };
                quantize_rows(
                    (IntegerIsa::Portable, Bits::Eight),
                    &a,
                    (m, k),
                    Order::Rows,
                    1,
                    &mut rows,
                );
                let mut c = vec![f32::NAN; m * n];
                let product = integer_product::Product {
                    rows: &rows,
                    weight: &weight,
                    residual,
                    output: Output::plain(SharedMut(c.as_mut_ptr()), n),
                    m,
                };
                let task = Task::plain(0..m, 0..n.div_ceil(PANEL));
                // SAFETY: plain Rust; the shapes are those of the product.
                unsafe { run_in_tiles::<Portable, Plain>(&product, &task) };
                assert_eq!(c, expected, "{m} x {n} x {k}");
            }
        }
    }

    #[test]
    fn products_in_tiles_equal_those_in_vectors() {
        if !Isa::Avx512Bf16.is_available() {
            say("no AVX512-BF16 here: what surrounds the tiles was not tried");
            return;
        }
        for (m, n, k) in [
            (1, 1, 1),
            (1, 33, 2),
            (3, 129, 33),
            (32, 32, 32),
            (33, 31, 64),
            (128, 64, 100),
            (70, 40, 1539),
            (128, 33, 3072),
        ] {
            let (a, w, residual) = (values(m * k, 2), values(n * k, 1), values(m * n, 3));
            let mut weight = PackedWeight::laid_out(Precision::Bf16, false);
            weight.pack(n, k, |row, target| {
                target.copy_from_slice(&w[row * k..][..k]);
            });
            for (adds, residual) in [(false, None), (true, Some(&residual[..]))] {
                let run_by =
                    |weight: &PackedWeight, rows: std::ops::Range<usize>, in_tiles: bool| {
                        // Zeros or not, a product that does not add must not read them.
                        let mut c = if adds {
                            values(m * n, 9)
                        } else {
                            vec![f32::NAN; m * n]
                        };
                        let product = Product {
                            a: Left::Rows(&a),
                            weight,
                            residual,
                            adds,
                            output: Output::plain(SharedMut(c.as_mut_ptr()), n),
                            m,
                        };
                        let panels = 0..n.div_ceil(PANEL);
                        // SAFETY: the CPU has AVX512-BF16; the shapes are those of the product.
                        unsafe {
                            if in_tiles {
                                let task = Task::plain(rows, panels);
                                dot_bf16::run_in_tiles::<Plain>(&product, &a, &task);
                            } else {
                                for first in rows.clone().step_by(12) {
                                    let strip = first..(first + 12).min(rows.end);
                                    dot_bf16::run(&product, &Task::plain(strip, panels.clone()));
                                }
                            }
                        }
                        c
                    };
                let run = |rows, in_tiles| run_by(&weight, rows, in_tiles);
                let (tiles, vectors) = (run(0..m, true), run(0..m, false));
                let bound = 1e-6 * (k as f32).sqrt().max(1.0) * 4.0;
                for (i, (tile, vector)) in tiles.iter().zip(&vectors).enumerate() {
                    let far = (tile - vector).abs();
                    assert!(far <= bound, "{m} x {n} x {k}, {i}: {tile} and {vector}");
                }
                // So are precise outputs.
                let mut weight = PackedWeight::laid_out(Precision::Bf16, false).precise();
                weight.pack(n, k, |row, target| {
                    target.copy_from_slice(&w[row * k..][..k]);
                });
                let [tiles_of_parts, vectors_of_parts] =
                    [true, false].map(|in_tiles| run_by(&weight, 0..m, in_tiles));
                for (tile, vector) in tiles_of_parts.iter().zip(&vectors_of_parts) {
                    let far = (tile - vector).abs();
                    // Twice as many sums.
                    assert!(
                        far <= 2.0 * bound,
                        "{m} x {n} x {k}, precise: {tile} and {vector}"
                    );
                }
                assert!(k == 1 || tiles_of_parts != tiles);
                // So is a gated block.
                if n % PANEL == 0 && k > 1 {
                    let (w, d_ff) = (values(2 * n * k, 1), n);
                    let weight = PackedWeight::laid_out(Precision::Bf16, false);
                    let weight = gated_weight(&w, d_ff, k, weight);
                    // SAFETY: the CPU has AVX512-BF16; the shapes are those of the product.
                    let tiles = gated((m, d_ff), &a, &weight, |product, task| unsafe {
                        dot_bf16::run_in_tiles::<Plain>(product, &a, task);
                    });
                    // SAFETY: as above.
                    let vectors = gated((m, d_ff), &a, &weight, |product, task| unsafe {
                        dot_bf16::run(product, task);
                    });
                    for (tile, vector) in tiles.iter().zip(&vectors) {
                        let far = (tile - vector).abs();
                        assert!(
                            far <= bound * k as f32,
                            "{m} x {d_ff} x {k}: {tile} {vector}"
                        );
                    }
                }
                // A row is what it is alone.
                let last = run(m - 1..m, true);
                assert_eq!(last[(m - 1) * n..], tiles[(m - 1) * n..], "{m} x {n} x {k}");
                if !adds {
                    assert!(last[..(m - 1) * n].iter().all(|value| value.is_nan()));
                }
            }
        }
    }
}

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

/// What attention reads: one segment.
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

/// The second head in tiles of the shape of `V`.
fn attended<V: Lanes, M: Mix<V>>(
    attention: &Attention<'_>,
    scratch: &mut many::Scratch,
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
    // One for all, as a thread has it.
    let mut scratch = many::Scratch::default();
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

/// Gradients of q, k, v and the bias of the second head in tiles of the shape of `V`.
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
    let task = backward::Task {
        attention,
        gradients: &Gradients {
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
    unsafe { backward::run::<V>(&task, &mut backward::Scratch::default(), &mut bias) };
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
