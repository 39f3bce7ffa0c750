//! Attention of ragged segments.

use ankh3::kernels::cpu::Isa;
use ankh3::kernels::cpu::attend::attend;
use ankh3::kernels::cpu::attention::{Attention, Heads};
use ankh3::kernels::cpu::simd::StoredFloat;
use ankh3::kernels::plan::{Bias, Precision, Segment, Visibility};
use half::bf16;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{error, isas, random};

struct Case {
    heads: usize,
    d_kv: usize,
    queries: Vec<usize>,
    keys: Vec<usize>,
    visibility: Visibility,
    first_position: usize,
    bias: bool,
}

fn segments(case: &Case) -> Vec<Segment> {
    let (mut q, mut k) = (0, 0);
    let mut segments = Vec::new();
    for (&queries, &keys) in case.queries.iter().zip(&case.keys) {
        segments.push(Segment {
            queries: q..q + queries,
            keys: k..k + keys,
            first_position: case.first_position,
        });
        (q, k) = (q + queries, k + keys);
    }
    segments
}

const MAX_DISTANCE: usize = 9;

/// The expected result, by definition, in f64.
fn reference(case: &Case, q: &[f32], kv: &[f32], bias: &[f32]) -> Vec<f64> {
    let (heads, d) = (case.heads, case.d_kv);
    let inner = heads * d;
    let mut out = vec![0.0; q.len()];
    for segment in segments(case) {
        for (i, query) in segment.queries.clone().enumerate() {
            let position = i + segment.first_position;
            for h in 0..heads {
                let scores: Vec<f64> = segment
                    .keys
                    .clone()
                    .enumerate()
                    .map(|(j, key)| {
                        if case.visibility == Visibility::Causal && j > position {
                            return f64::NEG_INFINITY;
                        }
                        let dot: f64 = (0..d)
                            .map(|x| {
                                f64::from(q[query * inner + h * d + x])
                                    * f64::from(kv[key * 2 * inner + h * d + x])
                            })
                            .sum();
                        let limit = MAX_DISTANCE as isize;
                        let distance =
                            (j as isize - position as isize).clamp(-limit, limit) + limit;
                        dot + if case.bias {
                            f64::from(bias[distance as usize * heads + h])
                        } else {
                            0.0
                        }
                    })
                    .collect();
                let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - maximum).exp()).collect();
                let total: f64 = weights.iter().sum();
                for x in 0..d {
                    out[query * inner + h * d + x] = segment
                        .keys
                        .clone()
                        .zip(&weights)
                        .map(|(key, w)| {
                            w / total * f64::from(kv[key * 2 * inner + inner + h * d + x])
                        })
                        .sum();
                }
            }
        }
    }
    out
}

fn run<T: StoredFloat>(isa: Isa, case: &Case, q: &[f32], kv: &[T], bias: &[f32]) -> Vec<f32> {
    let inner = case.heads * case.d_kv;
    let attention = Attention {
        q: Heads {
            data: q,
            stride: inner,
            offset: 0,
        },
        k: Heads {
            data: kv,
            stride: 2 * inner,
            offset: 0,
        },
        v: Heads {
            data: kv,
            stride: 2 * inner,
            offset: inner,
        },
        heads: case.heads,
        d_kv: case.d_kv,
        bias: case.bias.then_some(Bias {
            by_distance: bias,
            max_distance: MAX_DISTANCE,
        }),
        visibility: case.visibility,
        segments: &segments(case),
        dropout: None,
        precision: Precision::F32,
    };
    let mut out = vec![f32::NAN; q.len()];
    attend(isa, &attention, &mut out);
    out
}

#[test]
fn attention_equals_f64_on_ragged_segments() {
    let ragged = vec![1, 2, 11, 12, 13, 16, 33, 241];
    let case =
        |heads, d_kv, queries: &[usize], keys: &[usize], visibility, first_position, bias| Case {
            heads,
            d_kv,
            queries: queries.to_vec(),
            keys: keys.to_vec(),
            visibility,
            first_position,
            bias,
        };
    let cases = [
        case(2, 64, &ragged, &ragged, Visibility::All, 0, true),
        case(2, 16, &ragged, &ragged, Visibility::Causal, 0, true),
        case(1, 33, &[1100], &[1100], Visibility::All, 0, true),
        case(1, 64, &[1100], &[1100], Visibility::Causal, 0, true),
        case(3, 8, &[5, 1, 30], &[700, 9, 513], Visibility::All, 0, false),
        case(2, 64, &[1, 1], &[31, 31], Visibility::Causal, 30, true),
        // One query alone, over several blocks of keys, of heads that fill no vector, or several
        // and a rest.
        case(2, 64, &[1, 1], &[1500, 3], Visibility::All, 0, false),
        case(3, 8, &[1], &[1100], Visibility::Causal, 1099, true),
        case(2, 83, &[1, 2, 1], &[520, 9, 20], Visibility::All, 0, true),
        case(1, 128, &[1], &[700], Visibility::Causal, 5, true),
        case(2, 64, &[3, 3], &[600, 600], Visibility::Causal, 597, true),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for (number, case) in cases.iter().enumerate() {
        let inner = case.heads * case.d_kv;
        let q: Vec<f32> = random(&mut rng, case.queries.iter().sum::<usize>() * inner)
            .iter()
            .map(|v| v * 2.0)
            .collect();
        let kv = random(&mut rng, case.keys.iter().sum::<usize>() * 2 * inner);
        let bias = random(&mut rng, (2 * MAX_DISTANCE + 1) * case.heads);
        let expected = reference(case, &q, &kv, &bias);
        let rounded: Vec<bf16> = kv.iter().copied().map(bf16::from_f32).collect();
        let widened: Vec<f32> = rounded.iter().map(|value| value.to_f32()).collect();
        for isa in isas() {
            let stored = run(isa, case, &q, &rounded, &bias);
            assert_eq!(
                stored,
                run(isa, case, &q, &widened, &bias),
                "{isa:?} case {number}: keys and values in bf16 are those numbers"
            );
            let got = run(isa, case, &q, &kv, &bias);
            assert!(
                error(&got, &expected) < 5e-6,
                "{isa:?} case {number}: {}",
                error(&got, &expected)
            );
        }
    }
}

/// Values of one sign, whose running sum grows with the length, show the rounding errors of a sum.
#[test]
fn rounding_errors_do_not_grow_with_the_length_of_a_segment() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let keys = 20_000;
    for queries in [1, 33] {
        let case = Case {
            heads: 1,
            d_kv: 16,
            queries: vec![queries],
            keys: vec![keys],
            visibility: Visibility::All,
            first_position: 0,
            bias: true,
        };
        let q = random(&mut rng, queries * 16);
        let kv: Vec<f32> = random(&mut rng, keys * 32)
            .iter()
            .map(|value| value.abs())
            .collect();
        let bias = random(&mut rng, 2 * MAX_DISTANCE + 1);
        let expected = reference(&case, &q, &kv, &bias);
        for isa in isas() {
            let got = run(isa, &case, &q, &kv, &bias);
            assert!(
                error(&got, &expected) < 1e-6,
                "{isa:?}, {queries} queries: {}",
                error(&got, &expected)
            );
        }
    }
}

#[test]
fn a_segment_attends_the_same_alone_and_in_company() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let lengths = [700, 3, 41, 250];
    let case = |lengths: &[usize]| Case {
        heads: 2,
        d_kv: 64,
        queries: lengths.to_vec(),
        keys: lengths.to_vec(),
        visibility: Visibility::All,
        first_position: 0,
        bias: true,
    };
    let total: usize = lengths.iter().sum();
    let (q, kv) = (random(&mut rng, total * 128), random(&mut rng, total * 256));
    let bias = random(&mut rng, (2 * MAX_DISTANCE + 1) * 2);
    for isa in isas() {
        let together = run(isa, &case(&lengths), &q, &kv, &bias);
        let mut first = 0;
        for length in lengths {
            let alone = run(
                isa,
                &case(&[length]),
                &q[first * 128..(first + length) * 128],
                &kv[first * 256..(first + length) * 256],
                &bias,
            );
            assert!(
                alone
                    .iter()
                    .zip(&together[first * 128..])
                    .all(|(a, b)| a.to_bits() == b.to_bits()),
                "{isa:?} {length}"
            );
            first += length;
        }
    }
}
