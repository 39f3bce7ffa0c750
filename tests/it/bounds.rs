//! The CPU kernels read and write nothing beyond their slices: each slice ends where the memory
//! that may be touched ends, so that one byte more is a bus error. Odd shapes: one row, one column,
//! sizes that are no multiples of a tile; every instruction set this machine has.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "a map that is longer than its file")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::{Deref, DerefMut};

use ankh3::kernels::cpu::attend::attend;
use ankh3::kernels::cpu::attention::{Attention, Heads};
use ankh3::kernels::cpu::elementwise::{gated, rms_norm};
use ankh3::kernels::cpu::gemm::multiply;
use ankh3::kernels::cpu::integer_product;
use ankh3::kernels::cpu::integer_weight::{Bits, IntegerWeight};
use ankh3::kernels::cpu::packed_weight::PackedWeight;
use ankh3::kernels::cpu::product::Left;
use ankh3::kernels::cpu::simd::StoredFloat;
use ankh3::kernels::cpu::{IntegerIsa, Isa};
use ankh3::kernels::plan::{Activation, Bias, Precision, Segment, Visibility};
use half::bf16;
use memmap2::{MmapMut, MmapOptions};

/// The largest page of Linux on the CPUs for which the kernels have several instruction sets.
const PAGE: usize = 1 << 16;

/// Floats of which the last is the last that may be touched: beyond it the map has no file.
struct Guarded {
    map: MmapMut,
    range: std::ops::Range<usize>,
}

impl Guarded {
    fn new(count: usize) -> Self {
        let end = (4 * count).next_multiple_of(PAGE);
        let file = tempfile::tempfile().unwrap();
        file.set_len(end as u64).unwrap();
        // SAFETY: no other process opens the file.
        let map = unsafe { MmapOptions::new().len(end + PAGE).map_mut(&file).unwrap() };
        let mut guarded = Guarded {
            map,
            range: end - 4 * count..end,
        };
        for (i, value) in guarded.iter_mut().enumerate() {
            let any = ((i * 7919) % 1000) as f32 / 1000.0 - 0.5;
            // Two finite bf16, too.
            *value = f32::from_bits(any.to_bits() & 0xffff_0000);
        }
        guarded
    }
}

impl Deref for Guarded {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        let (before, floats, after) = unsafe { self.map[self.range.clone()].align_to::<f32>() };
        assert!(before.is_empty() && after.is_empty());
        floats
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [f32] {
        let (_, floats, _) = unsafe { self.map[self.range.clone()].align_to_mut::<f32>() };
        floats
    }
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

const SHAPES: [(usize, usize, usize); 13] = [
    (1, 1, 1),
    (1, 1, 300),
    (1, 130, 257),
    (2, 33, 5),
    (3, 161, 513),
    (4, 16, 64),
    (5, 64, 31),
    (11, 15, 258),
    (12, 96, 3),
    (13, 97, 48),
    (121, 47, 259),
    (127, 1, 17),
    (25, 300, 600),
];

#[test]
fn products() {
    for (m, n, k) in SHAPES {
        let (a, w, r) = (
            Guarded::new(m * k),
            Guarded::new(n * k),
            Guarded::new(m * n),
        );
        let mut c = Guarded::new(m * n);
        let fill = |row: usize, values: &mut [f32]| values.copy_from_slice(&w[row * k..][..k]);
        for precision in [Precision::F32, Precision::Bf16] {
            let weight = PackedWeight::new(n, k, precision, fill);
            // The same bytes, read as (k, n): only the end of the slice matters.
            let transposed = PackedWeight::from_transposed(n, k, precision, &w);
            for isa in isas() {
                for weight in [&weight, &transposed] {
                    multiply(isa, Left::Rows(&a), weight, Some(&r), &mut c);
                    multiply(isa, Left::Columns(&a), weight, None, &mut c);
                }
            }
        }
        for bits in [Bits::Eight, Bits::Sixteen] {
            let weight = IntegerWeight::new(bits, n, k, fill);
            for isa in IntegerIsa::ALL.into_iter().filter(|isa| isa.is_available()) {
                integer_product::matmul(isa, &a, &weight, Some(&r), &mut c);
            }
        }
        assert!(c.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn norms_and_activations() {
    for (rows, width) in [(1, 1), (1, 17), (3, 15), (2, 16), (5, 100)] {
        let (x, weight) = (Guarded::new(rows * width), Guarded::new(width));
        let (wide, mut out) = (Guarded::new(2 * rows * width), Guarded::new(rows * width));
        for isa in isas() {
            rms_norm(isa, &x, &weight, 1e-6, &mut out);
            for activation in [Activation::Relu, Activation::GeluNew, Activation::Silu] {
                gated(isa, activation, &wide, width, &mut out);
            }
        }
        assert!(out.iter().all(|value| value.is_finite()));
    }
}

/// The same memory, as twice as many bf16.
fn as_bf16(values: &[f32]) -> &[bf16] {
    // SAFETY: two bf16 are as large as an f32 and less aligned; any bits are a bf16.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), 2 * values.len()) }
}

#[test]
fn attentions() {
    for (heads, d_kv) in [(1, 1), (1, 64), (3, 8), (2, 33)] {
        for (queries, keys) in [(1, 1), (1, 129), (1, 3), (2, 2), (13, 7), (241, 530)] {
            let inner = heads * d_kv;
            let kv = Guarded::new(2 * keys * inner);
            attention_within(heads, d_kv, (queries, keys), &kv);
            let halves = Guarded::new(keys * inner);
            attention_within(heads, d_kv, (queries, keys), as_bf16(&halves));
        }
    }
}

fn attention_within<T: StoredFloat>(
    heads: usize,
    d_kv: usize,
    (queries, keys): (usize, usize),
    kv: &[T],
) {
    let inner = heads * d_kv;
    let (q, bias) = (Guarded::new(queries * inner), Guarded::new(19 * heads));
    let mut out = Guarded::new(queries * inner);
    let part = |offset| Heads {
        data: kv,
        stride: 2 * inner,
        offset,
    };
    for visibility in [Visibility::All, Visibility::Causal] {
        let attention = Attention {
            q: Heads {
                data: &q,
                stride: inner,
                offset: 0,
            },
            k: part(0),
            v: part(inner),
            heads,
            d_kv,
            bias: Some(Bias {
                by_distance: &bias,
                max_distance: 9,
            }),
            visibility,
            segments: &[Segment {
                queries: 0..queries,
                keys: 0..keys,
                first_position: 0,
            }],
            dropout: None,
            precision: Precision::F32,
        };
        for isa in isas() {
            attend(isa, &attention, &mut out);
            assert!(out.iter().all(|value| value.is_finite()));
        }
    }
}
