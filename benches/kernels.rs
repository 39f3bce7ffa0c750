//! Speed of the CPU kernels: `cargo bench --bench kernels`. Throughput is in floating-point
//! operations (elements) per second.

use ankh3::kernels::cpu::attend::attend;
use ankh3::kernels::cpu::attention::{Attention, Heads};
use ankh3::kernels::cpu::elementwise::{gated, rms_norm};
use ankh3::kernels::cpu::gemm::matmul;
use ankh3::kernels::cpu::integer_weight::{Bits, IntegerWeight};
use ankh3::kernels::cpu::packed_weight::PackedWeight;
use ankh3::kernels::cpu::{IntegerIsa, Isa, integer_product};
use ankh3::kernels::plan::{Activation, Bias, Precision, Segment, Visibility};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn values(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.5)
        .collect()
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matmul");
    for (m, n, k) in [
        (1, 1536, 512),
        (8, 1536, 512),
        (300, 1536, 512),
        (300, 2560, 512),
        (512, 3840, 1536),
        (2048, 2048, 2048),
    ] {
        let (a, w) = (values(m * k), values(n * k));
        let mut c = vec![0.0; m * n];
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        for precision in [Precision::F32, Precision::Bf16] {
            let weight = PackedWeight::new(n, k, precision, |row, out| {
                out.copy_from_slice(&w[row * k..][..k]);
            });
            group.bench_function(format!("{m}x{n}x{k} {precision:?}"), |bench| {
                bench.iter(|| matmul(Isa::current(), &a, &weight, None, &mut c));
            });
        }
        let weight = IntegerWeight::new(Bits::Eight, n, k, |row, out| {
            out.copy_from_slice(&w[row * k..][..k]);
        });
        let isa = IntegerIsa::of(Isa::current());
        group.bench_function(format!("{m}x{n}x{k} int8"), |bench| {
            bench.iter(|| integer_product::matmul(isa, &a, &weight, None, &mut c));
        });
    }
    group.finish();
}

fn attentions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    for length in [64, 300, 1000, 4000] {
        let (heads, d_kv) = (8, 64);
        let inner = heads * d_kv;
        let qkv = values(length * 3 * inner);
        let bias = values(257 * heads);
        let part = |which: usize| Heads {
            data: &qkv,
            stride: 3 * inner,
            offset: which * inner,
        };
        let attention = Attention {
            q: part(0),
            k: part(1),
            v: part(2),
            heads,
            d_kv,
            bias: Some(Bias {
                by_distance: &bias,
                max_distance: 128,
            }),
            visibility: Visibility::All,
            segments: &[Segment {
                queries: 0..length,
                keys: 0..length,
                first_position: 0,
            }],
            dropout: None,
            precision: Precision::F32,
        };
        let mut out = vec![0.0; length * inner];
        group.throughput(Throughput::Elements(4 * (length * length * inner) as u64));
        group.bench_function(format!("{length} tokens, 8 heads of 64"), |bench| {
            bench.iter(|| attend(Isa::current(), &attention, &mut out));
        });
    }
    group.finish();
}

fn elementwise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("elementwise");
    let (rows, width) = (300, 1280);
    let x = values(rows * 2 * width);
    let weight = values(width);
    let mut out = vec![0.0; rows * width];
    group.throughput(Throughput::Elements((rows * width) as u64));
    group.bench_function("rms_norm 300x1280", |bench| {
        bench.iter(|| rms_norm(Isa::current(), &x[..rows * width], &weight, 1e-6, &mut out));
    });
    group.bench_function("gated silu 300x1280", |bench| {
        bench.iter(|| gated(Isa::current(), Activation::Silu, &x, width, &mut out));
    });
    group.finish();
}

criterion_group!(benches, products, attentions, elementwise);
criterion_main!(benches);
