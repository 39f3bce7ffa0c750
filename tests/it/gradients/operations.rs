//! The gradient of every operation of our own against candle's autograd over plain operations.

use ankh3::kernels::attention::{attention, self_attention};
use ankh3::kernels::dropout::Dropout;
use ankh3::kernels::elementwise::{activate, gated, rms_norm};
use ankh3::kernels::linear::Weight;
use ankh3::kernels::plain;
use ankh3::kernels::plan::{Activation, AttentionPlan, Precision, Segment, Visibility};
use candle_core::{Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{assert_near, values};

fn random(rng: &mut ChaCha8Rng, shape: &[usize]) -> Var {
    let values = (0..shape.iter().product::<usize>()).map(|_| rng.random_range(-1.0f32..1.0));
    Var::from_vec(values.collect(), shape, &Device::Cpu).unwrap()
}

/// Results and gradients of two forms of one function must agree, for a random gradient from above.
fn agree(
    what: &str,
    inputs: &[&Var],
    ours: impl Fn() -> Result<Tensor>,
    theirs: impl Fn() -> Result<Tensor>,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    let (a, b) = (ours().unwrap(), theirs().unwrap());
    assert_near(&values(&a), &values(&b), 1e-5, what);
    let above = random(&mut rng, a.dims()).as_tensor().detach();
    let gradients = |y: &Tensor| (y * &above).unwrap().sum_all().unwrap().backward().unwrap();
    let (a, b) = (gradients(&a), gradients(&b));
    for (i, input) in inputs.iter().enumerate() {
        assert_near(
            &values(a.get(input).unwrap()),
            &values(b.get(input).unwrap()),
            2e-5,
            &format!("{what}, input {i}"),
        );
    }
}

#[test]
fn linear_layers_have_the_gradients_of_plain_products() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (rows, n, k) in [(1, 1, 1), (5, 33, 17), (130, 70, 96), (600, 40, 48)] {
        let (x, w, r) = (
            random(&mut rng, &[rows, k]),
            random(&mut rng, &[n, k]),
            random(&mut rng, &[rows, n]),
        );
        let weight = Weight::Trained(w.as_tensor().clone(), Precision::F32);
        let plain = Weight::Dense(w.as_tensor().clone());
        let what = format!("{rows} x {n} x {k}");
        agree(
            &what,
            &[&x, &w],
            || weight.forward(&x),
            || plain.forward(&x),
        );
        agree(
            &what,
            &[&x, &w, &r],
            || weight.forward_add(&x, &r),
            || plain.forward_add(&x, &r),
        );
    }
}

#[test]
fn norms_and_activations_have_the_gradients_of_plain_operations() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for (rows, width) in [(1, 1), (3, 15), (7, 16), (200, 100), (3000, 33)] {
        let (x, w) = (random(&mut rng, &[rows, width]), random(&mut rng, &[width]));
        let what = format!("norm {rows} x {width}");
        agree(
            &what,
            &[&x, &w],
            || rms_norm(&x, &w, 1e-3),
            || plain::rms_norm(&x, &w, 1e-3),
        );
        let wide = random(&mut rng, &[rows, 2 * width]);
        for activation in [Activation::Relu, Activation::GeluNew, Activation::Silu] {
            let what = format!("{activation:?} {rows} x {width}");
            agree(
                &what,
                &[&x],
                || activate(activation, &x),
                || plain::activate(activation, &x),
            );
            agree(
                &what,
                &[&wide],
                || gated(activation, &wide),
                || plain::gated(activation, &wide),
            );
        }
    }
}

fn plan(
    lengths: &[(usize, usize)],
    heads: usize,
    d_kv: usize,
    visibility: Visibility,
) -> AttentionPlan {
    let (mut query, mut key) = (0, 0);
    let segments = lengths.iter().map(|(queries, keys)| {
        let segment = Segment {
            queries: query..query + queries,
            keys: key..key + keys,
            first_position: 0,
        };
        (query, key) = (query + queries, key + keys);
        segment
    });
    AttentionPlan {
        heads,
        d_kv,
        visibility,
        segments: segments.collect(),
        precision: Precision::F32,
    }
}

#[test]
fn attention_has_the_gradients_of_plain_attention() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let lengths = [(1, 1), (2, 2), (17, 17), (96, 96), (97, 97), (230, 230)];
    for (heads, d_kv) in [(1, 8), (3, 20), (2, 64)] {
        let inner = heads * d_kv;
        for visibility in [Visibility::All, Visibility::Causal] {
            for dropout in [None, Some(Dropout::new(0.2, 7))] {
                let plan = plan(&lengths, heads, d_kv, visibility);
                let rows = lengths.iter().map(|(queries, _)| queries).sum::<usize>();
                let (qkv, bias) = (
                    random(&mut rng, &[rows, 3 * inner]),
                    random(&mut rng, &[41, heads]),
                );
                let what = format!("{heads} x {d_kv} {visibility:?} {dropout:?}");
                let parts = || {
                    Ok::<_, candle_core::Error>((
                        qkv.narrow(1, 0, inner)?,
                        qkv.narrow(1, inner, 2 * inner)?,
                    ))
                };
                let theirs = || {
                    let (q, kv) = parts()?;
                    plain::attention(&q, &kv, Some(&bias), &plan, dropout)
                };
                agree(
                    &what,
                    &[&qkv, &bias],
                    || self_attention(&qkv, &bias, &plan, dropout),
                    theirs,
                );
                let ours = || {
                    let (q, kv) = parts()?;
                    attention(&q, &kv, Some(&bias), &plan, dropout)
                };
                agree(&what, &[&qkv, &bias], ours, theirs);
            }
        }
    }
}

#[test]
fn attention_over_more_keys_than_a_block_and_to_sources() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (heads, d_kv) = (2, 16);
    let lengths = [(3, 530), (140, 1), (100, 600), (1, 1030)];
    let plan = plan(&lengths, heads, d_kv, Visibility::All);
    let (queries, keys) = lengths.iter().fold((0, 0), |(q, k), (a, b)| (q + a, k + b));
    let (q, kv) = (
        random(&mut rng, &[queries, 32]),
        random(&mut rng, &[keys, 64]),
    );
    agree(
        "cross",
        &[&q, &kv],
        || attention(&q, &kv, None, &plan, None),
        || plain::attention(&q, &kv, None, &plan, None),
    );
    let causal = self::plan(&[(700, 700), (520, 520)], heads, d_kv, Visibility::Causal);
    let (qkv, bias) = (random(&mut rng, &[1220, 96]), random(&mut rng, &[257, 2]));
    let theirs = || {
        plain::attention(
            &qkv.narrow(1, 0, 32)?,
            &qkv.narrow(1, 32, 64)?,
            Some(&bias),
            &causal,
            None,
        )
    };
    agree(
        "causal",
        &[&qkv, &bias],
        || self_attention(&qkv, &bias, &causal, None),
        theirs,
    );
}
