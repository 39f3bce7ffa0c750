//! One test case of attention: its values, its launches, and what they must give.

use std::ops::Range;
use std::sync::Arc;

use ankh3::kernels::cuda::attention::{
    AttentionLaunches, Form, GradientAddresses, Operands, TableAddresses, Tables, Use,
};
use ankh3::kernels::cuda::launch::{Address, Element};
use ankh3::kernels::dropout::{Dropout, DropoutParts};
use ankh3::kernels::plan::{AttentionPlan, Precision, Segment, Visibility};

use crate::emulator::{Device, Emulator};
use crate::reference::{self, random, stored};

/// One test case.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) element: Element,
    pub(super) heads: usize,
    pub(super) d: usize,
    /// Queries, keys, first position of each segment.
    pub(super) lengths: Vec<(usize, usize, usize)>,
    pub(super) visibility: Visibility,
    pub(super) max_distance: usize,
    pub(super) dropout: Option<Dropout>,
    pub(super) form: fn(usize) -> Form,
}

pub(super) fn cores(d: usize) -> Form {
    Form::TensorCores(d.next_multiple_of(32))
}
pub(super) fn plain(_: usize) -> Form {
    Form::Plain
}
pub(super) fn single(_: usize) -> Form {
    Form::Single
}

impl Case {
    pub(super) fn new(element: Element, form: fn(usize) -> Form, lengths: &[usize]) -> Self {
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

    pub(super) fn segments(&self) -> Vec<Segment> {
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

    pub(super) fn name(&self) -> String {
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
    pub(super) fn limit(&self) -> f64 {
        match self.element {
            Element::F32 => 5e-6,
            Element::Bf16 => 1e-2,
        }
    }

    pub(super) fn file(&self) -> &'static str {
        match (self.form)(self.d) {
            Form::TensorCores(_) => "attention_mma.cu",
            Form::Plain | Form::Single => "attention.cu",
        }
    }
}

/// Values of a case: queries beside keys beside values, as in the fused product, where their
/// lengths are equal.
pub(super) struct Values {
    pub(super) q: Vec<f32>,
    pub(super) kv: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) grad: Vec<f32>,
}

pub(super) fn columns(x: &[f64], width: usize, range: Range<usize>) -> Vec<f64> {
    x.chunks_exact(width)
        .flat_map(|row| row[range.clone()].to_vec())
        .collect()
}

impl Case {
    pub(super) fn values(&self) -> Values {
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

    fn plan(&self, segments: &[Segment]) -> AttentionPlan {
        AttentionPlan {
            heads: self.heads,
            d_kv: self.d,
            visibility: self.visibility,
            segments: Arc::from(segments),
            precision: Precision::F32,
        }
    }

    /// Runs forward, and backward where `backward`, and compares with f64.
    pub(super) fn check(&self, backward: bool) {
        let emulator = Emulator::of(self.file());
        self.run(emulator, backward)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name()));
    }

    pub(super) fn run(&self, emulator: &'static Emulator, backward: bool) -> Result<(), String> {
        let (values, segments, inner) = (self.values(), self.segments(), self.heads * self.d);
        let (rows, keys) = (values.q.len() / inner, values.kv.len() / 2 / inner);
        let plan = self.plan(&segments);
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
pub(super) fn near(
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

impl Case {
    pub(super) fn forward(&self, values: &Values) -> Vec<f32> {
        let (segments, inner) = (self.segments(), self.heads * self.d);
        let plan = self.plan(&segments);
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
