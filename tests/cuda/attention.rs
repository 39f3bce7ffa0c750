//! Packed attention in all its forms, forward and backward, on ragged segments around the tiles (32
//! and 64 rows).

use std::ops::Range;
use std::sync::Arc;

use ankh3::kernels::cuda::attention::{
    AttentionLaunches, Form, GradientAddresses, Operands, TableAddresses, Tables, Use,
};
use ankh3::kernels::cuda::launch::{Address, Element};
use ankh3::kernels::dropout::{Dropout, DropoutParts};
use ankh3::kernels::plan::{AttentionPlan, Precision, Segment, Visibility};

use super::emulator::{Device, Emulator, without_compiler};
use super::reference::{self, random, stored};

/// One test case.
#[derive(Clone)]
struct Case {
    element: Element,
    heads: usize,
    d: usize,
    /// Queries, keys, first position of each segment.
    lengths: Vec<(usize, usize, usize)>,
    visibility: Visibility,
    max_distance: usize,
    dropout: Option<Dropout>,
    form: fn(usize) -> Form,
}

fn cores(d: usize) -> Form {
    Form::TensorCores(d.next_multiple_of(32))
}
fn plain(_: usize) -> Form {
    Form::Plain
}
fn single(_: usize) -> Form {
    Form::Single
}

impl Case {
    fn new(element: Element, form: fn(usize) -> Form, lengths: &[usize]) -> Self {
        Self {
            element,
            heads: 2,
            d: 64,
            lengths: lengths.iter().map(|n| (*n, *n, 0)).collect(),
            visibility: Visibility::All,
            max_distance: 9,
            dropout: None,
            form,
        }
    }

    fn segments(&self) -> Vec<Segment> {
        let (mut q, mut k) = (0, 0);
        let mut next = |(queries, keys, first_position): &(usize, usize, usize)| {
            let segment = Segment {
                queries: q..q + queries,
                keys: k..k + keys,
                first_position: *first_position,
            };
            (q, k) = (q + queries, k + keys);
            segment
        };
        self.lengths.iter().map(&mut next).collect()
    }

    fn name(&self) -> String {
        format!(
            "{:?} {:?} heads {} x {}, {:?}, {:?}, bias {}, dropout {}",
            (self.form)(self.d),
            self.element,
            self.heads,
            self.d,
            self.lengths,
            self.visibility,
            self.max_distance,
            self.dropout.is_some()
        )
    }

    /// Largest error, relative to the largest value.
    fn limit(&self) -> f64 {
        match self.element {
            Element::F32 => 5e-6,
            Element::Bf16 => 1e-2,
        }
    }

    fn file(&self) -> &'static str {
        match (self.form)(self.d) {
            Form::TensorCores(_) => "attention_mma.cu",
            Form::Plain | Form::Single => "attention.cu",
        }
    }
}

/// Values of a case: queries beside keys beside values, as in the fused product, where their
/// lengths are equal.
struct Values {
    q: Vec<f32>,
    kv: Vec<f32>,
    bias: Vec<f32>,
    grad: Vec<f32>,
}

fn columns(x: &[f64], width: usize, range: Range<usize>) -> Vec<f64> {
    x.chunks_exact(width)
        .flat_map(|row| row[range.clone()].to_vec())
        .collect()
}

impl Case {
    fn values(&self) -> Values {
        let inner = self.heads * self.d;
        let rows: usize = self.lengths.iter().map(|l| l.0).sum();
        let keys: usize = self.lengths.iter().map(|l| l.1).sum();
        // Scores of a few units: sharp enough that maxima move, soft enough that many keys count.
        let size = 2.5 / (self.d as f32).powf(0.25);
        Values {
            q: random(1, rows * inner, size),
            kv: random(2, keys * 2 * inner, size),
            bias: random(3, (2 * self.max_distance + 1) * self.heads, 2.0),
            grad: random(4, rows * inner, 1.0),
        }
    }

    /// Runs forward, and backward where `backward`, and compares with f64.
    fn check(&self, backward: bool) {
        let emulator = Emulator::of(self.file());
        self.run(emulator, backward)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name()));
    }

    fn run(&self, emulator: &'static Emulator, backward: bool) -> Result<(), String> {
        let (values, segments, inner) = (self.values(), self.segments(), self.heads * self.d);
        let (rows, keys) = (values.q.len() / inner, values.kv.len() / 2 / inner);
        let plan = AttentionPlan {
            heads: self.heads,
            d_kv: self.d,
            visibility: self.visibility,
            segments: Arc::from(segments.clone()),
            precision: Precision::F32,
        };
        let form = (self.form)(self.d);
        let tables = Tables::new(&segments, form.tile());
        let mut device = Device::new(emulator);
        let has_bias = self.max_distance > 0;
        let kv = device.values("kv", self.element, &values.kv);
        let operands = Operands {
            q: device.values("q", self.element, &values.q),
            k: kv,
            v: kv.plus(inner, self.element),
            q_stride: inner,
            kv_stride: 2 * inner,
            bias: if has_bias {
                device.values("bias", Element::F32, &values.bias)
            } else {
                Address::NULL
            },
            max_distance: self.max_distance,
        };
        let use_ = if backward {
            Use::Training
        } else {
            Use::Inference
        };
        if form != Form::Plain {
            assert_eq!(
                Form::of(self.element, &operands, &plan, use_),
                Some(form),
                "{}",
                self.name()
            );
        }
        let attention = AttentionLaunches {
            element: self.element,
            form,
            plan: &plan,
            dropout: self.dropout.map(Dropout::parts).unwrap_or_default(),
            operands,
            tables: &tables,
            placed: TableAddresses {
                segments: device.ids("segments", &tables.segments),
                query_tiles: device.ids("query tiles", &tables.query_tiles),
                key_tiles: device.ids("key tiles", &tables.key_tiles),
            },
        };
        let out = device.room("out", self.element, rows * inner);
        let lse = if backward {
            device.room("lse", Element::F32, rows * self.heads)
        } else {
            Address::NULL
        };
        device.launch(&attention.forward(out, lse))?;
        let [q, kv, bias] = [
            (&values.q, self.element),
            (&values.kv, self.element),
            (&values.bias, Element::F32),
        ]
        .map(|(v, e)| stored(v, e));
        let (k, v) = (
            columns(&kv, 2 * inner, 0..inner),
            columns(&kv, 2 * inner, inner..2 * inner),
        );
        let exact = reference::Attention {
            q: &q,
            k: &k,
            v: &v,
            bias: has_bias.then_some(&bias),
            heads: self.heads,
            d: self.d,
            visibility: self.visibility,
            segments: &segments,
            dropout: self.dropout,
        };
        near(
            self,
            "out",
            &device.try_read(out, self.element)?,
            &exact.forward(),
            None,
        )?;
        if !backward {
            return Ok(());
        }
        let count = (2 * self.max_distance + 1) * self.heads;
        let d_kv = device.room("d_kv", self.element, keys * 2 * inner);
        let gradients = GradientAddresses {
            out,
            grad: device.values("grad", self.element, &values.grad),
            lse,
            delta: device.room("delta", Element::F32, rows * self.heads),
            dq: device.room("dq", self.element, rows * inner),
            dk: d_kv,
            dv: d_kv.plus(inner, self.element),
            dq_stride: inner,
            dkv_stride: 2 * inner,
            bias: if has_bias {
                [
                    device.room("parts", Element::F32, attention.bias_parts()),
                    device.room("d_bias", Element::F32, count),
                ]
            } else {
                [Address::NULL; 2]
            },
        };
        for launch in attention.backward(&gradients, rows) {
            device.launch(&launch)?;
        }
        let exact = exact.backward(&stored(&values.grad, self.element));
        let got = device.try_read(d_kv, self.element)?;
        let wide: Vec<f64> = got.iter().map(|x| f64::from(*x)).collect();
        let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect::<Vec<_>>();
        near(
            self,
            "dq",
            &device.try_read(gradients.dq, self.element)?,
            &exact.dq,
            None,
        )?;
        near(
            self,
            "dk",
            &narrow(columns(&wide, 2 * inner, 0..inner)),
            &exact.dk,
            None,
        )?;
        near(
            self,
            "dv",
            &narrow(columns(&wide, 2 * inner, inner..2 * inner)),
            &exact.dv,
            None,
        )?;
        if has_bias {
            // The slopes of a row sum to zero, so this gradient is a sum of terms that cancel; its
            // error is relative to the terms.
            let terms = exact.terms.iter().copied().fold(0.0, f64::max);
            near(
                self,
                "d_bias",
                &device.try_read(gradients.bias[1], Element::F32)?,
                &exact.d_bias,
                Some(terms),
            )?;
        }
        Ok(())
    }
}

/// Within the limit of the case, relative to `size`, or to the largest magnitude expected.
fn near(
    case: &Case,
    what: &str,
    got: &[f32],
    expected: &[f64],
    size: Option<f64>,
) -> Result<(), String> {
    let largest = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    let error = reference::error(got, expected) * size.map_or(1.0, |size| largest / size);
    if error <= case.limit() {
        Ok(())
    } else {
        Err(format!(
            "{what} is off by {error:.2e}, limit {:.0e}",
            case.limit()
        ))
    }
}

const RAGGED: [usize; 8] = [1, 63, 64, 65, 2, 3, 130, 5];

#[test]
fn forward_of_every_form_and_width() {
    if without_compiler() {
        return;
    }
    for (element, form, widths) in [
        (
            Element::Bf16,
            cores as fn(usize) -> Form,
            &[64, 32, 40, 96, 128, 8][..],
        ),
        (Element::Bf16, plain, &[64, 20]),
        (Element::F32, plain, &[64, 32, 33, 128, 1]),
    ] {
        for d in widths {
            for visibility in [Visibility::All, Visibility::Causal] {
                Case {
                    d: *d,
                    visibility,
                    ..Case::new(element, form, &RAGGED)
                }
                .check(false);
            }
        }
    }
}

#[test]
fn long_segments() {
    if without_compiler() {
        return;
    }
    for (element, form) in [
        (Element::Bf16, cores as fn(usize) -> Form),
        (Element::F32, plain),
    ] {
        let case = Case {
            heads: 1,
            max_distance: 128,
            ..Case::new(element, form, &[1100, 33])
        };
        case.check(false);
        Case {
            visibility: Visibility::Causal,
            ..case
        }
        .check(false);
    }
}

#[test]
fn a_target_attends_to_its_source() {
    if without_compiler() {
        return;
    }
    // Cross-attention: no bias, other lengths than one's own, and a source without a token.
    for (element, form) in [
        (Element::Bf16, cores as fn(usize) -> Form),
        (Element::F32, plain),
    ] {
        let lengths = vec![(1, 70, 0), (65, 1, 0), (33, 64, 0), (7, 129, 0)];
        let case = Case {
            lengths,
            max_distance: 0,
            ..Case::new(element, form, &[])
        };
        case.check(false);
        case.check(true);
        let lengths = vec![(3, 0, 0), (5, 2, 0)];
        Case { lengths, ..case }.check(false);
    }
}

#[test]
fn decoding_one_query_at_a_time() {
    if without_compiler() {
        return;
    }
    for element in [Element::F32, Element::Bf16] {
        for d in [64, 32, 20, 128] {
            let lengths = vec![
                (1, 1, 0),
                (1, 31, 30),
                (1, 32, 31),
                (1, 33, 32),
                (1, 129, 128),
                (1, 300, 299),
            ];
            let case = Case {
                d,
                lengths,
                visibility: Visibility::Causal,
                ..Case::new(element, single, &[])
            };
            case.check(false);
            // A source: all keys, no bias; and none at all.
            let lengths = vec![(1, 1, 0), (1, 257, 0), (1, 0, 0)];
            Case {
                lengths,
                visibility: Visibility::All,
                max_distance: 0,
                ..case
            }
            .check(false);
        }
    }
}

#[test]
fn gradients_of_every_form_and_width() {
    if without_compiler() {
        return;
    }
    for (element, form, widths) in [
        (
            Element::Bf16,
            cores as fn(usize) -> Form,
            &[64, 32, 96, 128, 24][..],
        ),
        (Element::Bf16, plain, &[20]),
        (Element::F32, plain, &[64, 33, 128]),
    ] {
        for d in widths {
            for visibility in [Visibility::All, Visibility::Causal] {
                Case {
                    d: *d,
                    visibility,
                    ..Case::new(element, form, &[1, 63, 64, 65, 2, 130])
                }
                .check(true);
            }
        }
    }
}

#[test]
fn dropout_drops_what_the_cpu_drops() {
    if without_compiler() {
        return;
    }
    for (element, form) in [
        (Element::Bf16, cores as fn(usize) -> Form),
        (Element::F32, plain),
    ] {
        let dropout = Some(Dropout::new(0.25, 77));
        Case {
            dropout,
            ..Case::new(element, form, &[1, 65, 40])
        }
        .check(true);
    }
}

#[test]
fn a_segment_does_not_depend_on_its_neighbours() {
    if without_compiler() {
        return;
    }
    for (element, form) in [
        (Element::Bf16, cores as fn(usize) -> Form),
        (Element::F32, plain),
    ] {
        let alone = Case::new(element, form, &[90]);
        let values = alone.values();
        let together = Case::new(element, form, &[17, 90, 64]);
        let mut batch = together.values();
        let inner = alone.heads * alone.d;
        batch.q[17 * inner..107 * inner].copy_from_slice(&values.q);
        batch.kv[17 * 2 * inner..107 * 2 * inner].copy_from_slice(&values.kv);
        batch.bias.copy_from_slice(&values.bias);
        let results =
            [(&alone, &values), (&together, &batch)].map(|(case, values)| case.forward(values));
        assert_eq!(
            results[0],
            results[1][17 * inner..107 * inner],
            "{element:?}"
        );
    }
}

impl Case {
    fn forward(&self, values: &Values) -> Vec<f32> {
        let (segments, inner) = (self.segments(), self.heads * self.d);
        let plan = AttentionPlan {
            heads: self.heads,
            d_kv: self.d,
            visibility: self.visibility,
            segments: Arc::from(segments.clone()),
            precision: Precision::F32,
        };
        let form = (self.form)(self.d);
        let tables = Tables::new(&segments, form.tile());
        let mut device = Device::new(Emulator::of(self.file()));
        let kv = device.values("kv", self.element, &values.kv);
        let attention = AttentionLaunches {
            element: self.element,
            form,
            plan: &plan,
            dropout: DropoutParts::default(),
            operands: Operands {
                q: device.values("q", self.element, &values.q),
                k: kv,
                v: kv.plus(inner, self.element),
                q_stride: inner,
                kv_stride: 2 * inner,
                bias: device.values("bias", Element::F32, &values.bias),
                max_distance: self.max_distance,
            },
            tables: &tables,
            placed: TableAddresses {
                segments: device.ids("segments", &tables.segments),
                query_tiles: device.ids("query tiles", &tables.query_tiles),
                key_tiles: device.ids("key tiles", &tables.key_tiles),
            },
        };
        let out = device.room("out", self.element, values.q.len());
        device.run([&attention.forward(out, Address::NULL)]);
        device.read(out, self.element)
    }
}

/// For `faults`: what a small case finds in a broken kernel.
pub fn first_fault(emulator: &'static Emulator, backward: bool) -> Option<String> {
    // With a bias and without: its gradient has barriers of its own.
    for (visibility, max_distance) in [(Visibility::All, 9), (Visibility::Causal, 0)] {
        let case = Case {
            heads: 1,
            visibility,
            max_distance,
            ..Case::new(Element::Bf16, cores, &[1, 150])
        };
        if let Err(fault) = case.run(emulator, backward) {
            return Some(fault);
        }
    }
    None
}
