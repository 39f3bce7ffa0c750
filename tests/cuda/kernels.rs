//! Norm, gated activation, dropout, gather, pooling and loss, forward and backward, at widths
//! around their tiles.

use ankh3::inference::pooling::Pooling;
use ankh3::kernels::cuda::launch::{Address, Element};
use ankh3::kernels::cuda::{elementwise, norm, rows};
use ankh3::kernels::dropout::Dropout;
use ankh3::kernels::plan::{Activation, Pool};

use super::emulator::{Device, Emulator, without_compiler};
use super::reference::{assert_close, random, stored};

const ELEMENTS: [(Element, f64); 2] = [(Element::F32, 2e-6), (Element::Bf16, 8e-3)];
/// Around the vector (8), a block's stride (256, 2048), and rows that no vector divides.
const WIDTHS: [usize; 9] = [1, 7, 8, 31, 255, 256, 257, 1536, 2049];
const EPSILON: f32 = 1e-6;

#[test]
fn rms_norm_and_the_residual_before_it() {
    if without_compiler() {
        return;
    }
    let emulator = Emulator::of("norm.cu");
    for (element, limit) in ELEMENTS {
        for (width, count) in WIDTHS.into_iter().zip([5, 1, 3, 2, 1, 4, 2, 3, 1]) {
            let (x, branch) = (random(1, count * width, 3.0), random(2, count * width, 2.0));
            let weight = random(3, width, 1.5);
            let mut device = Device::new(emulator);
            let [a, b] =
                [("x", &x), ("branch", &branch)].map(|(n, v)| device.values(n, element, v));
            let w = device.values("weight", Element::F32, &weight);
            let [y, sum, z] = ["y", "sum", "z"].map(|n| device.room(n, element, count * width));
            device.run([
                &norm::rms_norm(element, [a, w, y], count, width, EPSILON),
                &norm::add_rms_norm(element, [a, b, w, sum, z], count, width, EPSILON),
            ]);
            let what = format!("norm {element:?} {count} x {width}");
            let expected = plain_norm(&stored(&x, element), &stored(&weight, element));
            assert_close(&what, &device.read(y, element), &expected, limit);
            let added: Vec<f64> = stored(&x, element)
                .iter()
                .zip(stored(&branch, element))
                .map(|(a, b)| a + b)
                .collect();
            let got = device.read(sum, element);
            assert_close(&format!("{what}, residual"), &got, &added, limit / 2.0);
            let expected = plain_norm(&stored(&got, element), &stored(&weight, element));
            assert_close(
                &format!("{what}, fused"),
                &device.read(z, element),
                &expected,
                limit,
            );
        }
    }
}

fn plain_norm(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let row = |x: &[f64]| {
        let root = inverse_root(x);
        x.iter()
            .zip(weight)
            .map(move |(x, w)| x * root * w)
            .collect::<Vec<_>>()
    };
    x.chunks_exact(weight.len()).flat_map(row).collect()
}

fn inverse_root(x: &[f64]) -> f64 {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    (mean + f64::from(EPSILON)).powf(-0.5)
}

#[test]
fn gradients_of_rms_norm() {
    if without_compiler() {
        return;
    }
    let emulator = Emulator::of("norm.cu");
    for (element, limit) in ELEMENTS {
        // 1, a few rows, and more rows than one partial sum takes (256).
        for (count, width) in [(1, 5), (3, 33), (2, 257), (300, 40), (513, 8)] {
            let (x, grad) = (random(4, count * width, 2.0), random(5, count * width, 1.0));
            let weight = random(6, width, 1.5);
            let mut device = Device::new(emulator);
            let b = norm::NormGradients {
                x: device.values("x", element, &x),
                weight: device.values("weight", Element::F32, &weight),
                grad: device.values("grad", element, &grad),
                dx: device.room("dx", element, count * width),
                roots: device.room("roots", Element::F32, count),
                partial: device.room("partial", Element::F32, norm::chunks(count) * width),
                dw: device.room("dw", Element::F32, width),
            };
            device.run(&norm::backward(element, &b, count, width, EPSILON));
            let (x, grad, weight) = (
                stored(&x, element),
                stored(&grad, element),
                stored(&weight, Element::F32),
            );
            let mut dx = Vec::new();
            let mut dw = vec![0.0; width];
            for (x, g) in x.chunks_exact(width).zip(grad.chunks_exact(width)) {
                let r = inverse_root(x);
                let dot: f64 = (0..width).map(|i| weight[i] * g[i] * x[i]).sum();
                let factor = dot * r.powi(3) / width as f64;
                dx.extend((0..width).map(|i| r * weight[i] * g[i] - factor * x[i]));
                (0..width).for_each(|i| dw[i] += g[i] * x[i] * r);
            }
            let what = format!("norm backward {element:?} {count} x {width}");
            assert_close(&what, &device.read(b.dx, element), &dx, limit);
            assert_close(&what, &device.read(b.dw, Element::F32), &dw, 2e-6);
        }
    }
}

fn activation(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluNew => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + u.tanh())
        }
    }
}

/// Its derivative, by differences: independent of any formula.
fn slope(kind: Activation, x: f64) -> f64 {
    let h = 1e-5;
    (activation(kind, x + h) - activation(kind, x - h)) / (2.0 * h)
}

#[test]
fn gated_activations_and_their_gradients() {
    if without_compiler() {
        return;
    }
    let emulator = Emulator::of("elementwise.cu");
    for (element, limit) in ELEMENTS {
        for kind in [Activation::Silu, Activation::GeluNew, Activation::Relu] {
            for (count, d_ff) in [(9, 1), (3, 9), (2, 64), (1, 511), (2, 1025), (5, 24)] {
                let (x, grad) = (
                    random(7, count * 2 * d_ff, 6.0),
                    random(8, count * d_ff, 1.0),
                );
                let mut device = Device::new(emulator);
                let a = device.values("x", element, &x);
                let g = device.values("grad", element, &grad);
                let y = device.room("out", element, count * d_ff);
                let dx = device.room("dx", element, count * 2 * d_ff);
                device.run([
                    &elementwise::gated(element, kind, [a, y], count, d_ff),
                    &elementwise::gated_backward(element, kind, [a, g, dx], count, d_ff),
                ]);
                let (x, grad) = (stored(&x, element), stored(&grad, element));
                let (mut expected, mut d) = (Vec::new(), Vec::new());
                for (x, g) in x.chunks_exact(2 * d_ff).zip(grad.chunks_exact(d_ff)) {
                    let (gate, up) = x.split_at(d_ff);
                    expected.extend((0..d_ff).map(|i| activation(kind, gate[i]) * up[i]));
                    d.extend((0..d_ff).map(|i| g[i] * up[i] * slope(kind, gate[i])));
                    d.extend((0..d_ff).map(|i| g[i] * activation(kind, gate[i])));
                }
                let what = format!("gated {kind:?} {element:?} {count} x {d_ff}");
                assert_close(&what, &device.read(y, element), &expected, limit);
                assert_close(&what, &device.read(dx, element), &d, limit);
            }
        }
    }
}

#[test]
fn dropout_has_the_mask_of_the_cpu() {
    if without_compiler() {
        return;
    }
    let emulator = Emulator::of("elementwise.cu");
    let dropout = Dropout::new(0.3, 0x1234_5678_9abc).at(5);
    for count in [1, 255, 256, 1000] {
        let (x, residual) = (random(9, count, 1.0), random(10, count, 1.0));
        let mut device = Device::new(emulator);
        let a = device.values("x", Element::F32, &x);
        let r = device.values("residual", Element::F32, &residual);
        let [y, z] = ["y", "z"].map(|name| device.room(name, Element::F32, count));
        device.run([
            &elementwise::dropout(Element::F32, dropout, [a, Address::NULL, y], count),
            &elementwise::dropout(Element::F32, dropout, [a, r, z], count),
        ]);
        let expected: Vec<f32> = (0..count)
            .map(|i| x[i] * dropout.factor_at(i as u32))
            .collect();
        assert_eq!(device.read(y, Element::F32), expected);
        let expected: Vec<f32> = expected.iter().zip(&residual).map(|(x, r)| x + r).collect();
        assert_eq!(device.read(z, Element::F32), expected);
    }
}

#[test]
fn gather_and_its_gradient() {
    if without_compiler() {
        return;
    }
    let emulator = Emulator::of("rows.cu");
    for (element, limit) in ELEMENTS {
        for (tokens, vocab, width) in [(1, 1, 1), (50, 7, 8), (9, 30, 130), (200, 3, 257)] {
            let table = random(11, vocab * width, 1.0);
            let grad = random(12, tokens * width, 1.0);
            let ids: Vec<u32> = (0..tokens).map(|i| ((i * i + 1) % vocab) as u32).collect();
            let (starts, sorted) = rows::tokens_by_id(&ids, vocab);
            let mut device = Device::new(emulator);
            let t = device.values("table", element, &table);
            let g = device.values("grad", element, &grad);
            let [i, s, o] = [("ids", &ids), ("starts", &starts), ("tokens", &sorted)]
                .map(|(n, v)| device.ids(n, v));
            let out = device.room("out", element, tokens * width);
            let d_table = device.room("d_table", element, vocab * width);
            device.run([
                &rows::gather(element, [t, i, out], tokens, width),
                &rows::gather_backward(element, [g, s, o, d_table], vocab, width),
            ]);
            let (table, grad) = (stored(&table, element), stored(&grad, element));
            let mut expected = Vec::new();
            let mut d = vec![0.0; vocab * width];
            for (token, id) in ids.iter().enumerate() {
                let first = *id as usize * width;
                expected.extend_from_slice(&table[first..first + width]);
                (0..width).for_each(|c| d[first + c] += grad[token * width + c]);
            }
            let what = format!("gather {element:?} {tokens} of {vocab} x {width}");
            assert_close(&what, &device.read(out, element), &expected, 0.0);
            assert_close(&what, &device.read(d_table, element), &d, limit);
        }
    }
}

#[test]
fn pooling_of_ragged_segments() {
    if without_compiler() {
        return;
    }
    let emulator = Emulator::of("rows.cu");
    let kinds = [
        (Pool::Mean, Pooling::Mean),
        (Pool::Max, Pooling::Max),
        (Pool::Min, Pooling::Min),
        (Pool::Std, Pooling::Std),
    ];
    // Residues of proteins between a prefix and an end: rows that count for nobody.
    let segments: [(u32, u32); 6] = [
        (1, 2),
        (4, 11),
        (13, 21),
        (23, 32),
        (34, 1050),
        (1051, 1068),
    ];
    for (element, _) in ELEMENTS {
        for width in [1, 32, 33, 70] {
            let x: Vec<f32> = random(13, 1070 * width, 1.0)
                .iter()
                .map(|v| v + 100.0)
                .collect();
            let stored = stored(&x, element);
            for (kind, pooling) in kinds {
                let mut device = Device::new(emulator);
                let a = device.values("x", element, &x);
                let ranges: Vec<u32> = segments.iter().flat_map(|(a, b)| [*a, *b]).collect();
                let r = device.ids("rows", &ranges);
                let out = device.room("out", Element::F32, segments.len() * width);
                device.run([&rows::pool(
                    element,
                    kind,
                    [a, r, out],
                    segments.len(),
                    width,
                )]);
                let expected: Vec<f64> = segments
                    .iter()
                    .flat_map(|(first, end)| {
                        let values = &stored[*first as usize * width..*end as usize * width];
                        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
                        pooling.apply(&values, width).into_iter().map(f64::from)
                    })
                    .collect();
                let what = format!("{kind:?} {element:?} {width}");
                // Std differs where the mean, rounded to f32, does: 100 ± 6e-8 · 100 against a
                // spread of 0.6.
                let limit = if kind == Pool::Std { 1e-5 } else { 2e-7 };
                assert_close(&what, &device.read(out, Element::F32), &expected, limit);
            }
        }
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    if without_compiler() {
        return;
    }
    let emulator = Emulator::of("rows.cu");
    for (element, limit) in ELEMENTS {
        for (count, vocab) in [(1, 1), (3, 31), (4, 32), (5, 33), (9, 256)] {
            for z in [0.0, 1e-2] {
                let logits = random(14, count * vocab, 8.0);
                let grad = random(15, count, 1.0);
                let targets: Vec<u32> = (0..count).map(|i| (i * 7 % vocab) as u32).collect();
                let mut device = Device::new(emulator);
                let l = device.values("logits", element, &logits);
                let g = device.values("grad", Element::F32, &grad);
                let t = device.ids("targets", &targets);
                let loss = device.room("loss", Element::F32, count);
                let d = device.room("d", element, count * vocab);
                device.run([
                    &rows::cross_entropy(element, [l, t, loss], count, vocab, z),
                    &rows::cross_entropy_backward(element, [l, t, g, d], count, vocab, z),
                ]);
                let (mut losses, mut slopes) = (Vec::new(), Vec::new());
                let (logits, z) = (stored(&logits, element), f64::from(z));
                for (row, values) in logits.chunks_exact(vocab).enumerate() {
                    let log_sum = values.iter().map(|x| x.exp()).sum::<f64>().ln();
                    let target = targets[row] as usize;
                    losses.push(log_sum - values[target] + z * log_sum * log_sum);
                    slopes.extend((0..vocab).map(|i| {
                        let own = if i == target { 1.0 } else { 0.0 };
                        let p = (values[i] - log_sum).exp();
                        f64::from(grad[row]) * (p * (1.0 + 2.0 * z * log_sum) - own)
                    }));
                }
                if vocab == 1 && z == 0.0 {
                    continue; // all zeros by definition
                }
                let what = format!("loss {element:?} {count} x {vocab}, z {z}");
                assert_close(&what, &device.read(loss, Element::F32), &losses, 2e-6);
                assert_close(&what, &device.read(d, element), &slopes, limit);
            }
        }
    }
}
