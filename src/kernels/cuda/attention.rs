//! Launches of `attention.cu` and `attention_mma.cu`: the choice of the form of an attention, and
//! the tables of segments and tiles that its blocks read.

use super::launch::{Address, Argument, Element, Launch};
use super::norm::sum_parts;
use crate::kernels::dropout::DropoutParts;
use crate::kernels::plan::{AttentionPlan, Segment, Visibility};

/// Width of the widest head that the kernels take.
pub const MAX_HEAD: usize = 128;
/// Bytes of shared memory that a block may use on every GPU from `sm_80` on.
pub const MAX_SHARED: usize = 99 * 1024;

/// The form of an attention: the kernels that compute it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// bf16 in tensor cores; the width of heads is rounded up to 32, 64, 96 or 128.
    TensorCores(usize),
    /// Arithmetic in f32.
    Plain,
    /// One query per segment, without gradients: decoding.
    Single,
}

impl Form {
    /// The form that fits; `None` for heads wider than [`MAX_HEAD`], or a table of biases that does
    /// not fit into the memory of a block.
    pub fn of(
        element: Element,
        operands: &Operands,
        plan: &AttentionPlan,
        use_: Use,
    ) -> Option<Self> {
        let single = plan.segments.iter().all(|s| s.queries.len() == 1);
        let aligned = plan.d_kv.is_multiple_of(8)
            && operands.q_stride.is_multiple_of(8)
            && operands.kv_stride.is_multiple_of(8)
            && [operands.q, operands.k, operands.v]
                .iter()
                .all(|a| a.0.is_multiple_of(16));
        let form = match element {
            _ if single && use_ == Use::Inference => Form::Single,
            Element::Bf16 if aligned => Form::TensorCores(plan.d_kv.next_multiple_of(32)),
            _ => Form::Plain,
        };
        let fits = plan.d_kv <= MAX_HEAD
            && form.shared(plan.d_kv, operands.max_distance, use_) <= MAX_SHARED;
        fits.then_some(form)
    }

    /// Rows of queries, or of keys, in one block.
    pub fn tile(self) -> usize {
        match self {
            Form::TensorCores(_) => 64,
            Form::Plain => 32,
            Form::Single => 1,
        }
    }

    fn threads(self) -> u32 {
        match self {
            Form::TensorCores(_) | Form::Single => 128,
            Form::Plain => 256,
        }
    }

    fn arrays(self, step: Step, d_kv: usize, max_distance: usize) -> Vec<usize> {
        let bias = 4 * (2 * max_distance + 1);
        match self {
            Form::TensorCores(width) => {
                let tile = 64 * (width + 8) * 2;
                match step {
                    Step::Forward => vec![tile, 2 * tile, 2 * tile, bias],
                    Step::Queries => {
                        vec![tile, tile, tile, tile, bias, bias, 64 * 65 * 4, 128 * 4]
                    }
                    Step::Keys => vec![tile, tile, tile, tile, bias, 64 * 4, 64 * 4],
                }
            }
            Form::Plain => {
                let tile = 32 * (d_kv + 1) * 4;
                match step {
                    Step::Forward => vec![tile, tile, tile, bias],
                    Step::Queries => vec![tile, tile, tile, tile, 32 * 33 * 4, 64 * 4, bias, bias],
                    Step::Keys => vec![tile, tile, tile, tile, bias],
                }
            }
            Form::Single => vec![4 * d_kv, 4 * 4 * d_kv, 4 * 4, 4 * 4, bias],
        }
    }

    fn shared(self, d_kv: usize, max_distance: usize, use_: Use) -> usize {
        let steps: &[Step] = match use_ {
            Use::Inference => &[Step::Forward],
            Use::Training => &[Step::Forward, Step::Queries, Step::Keys],
        };
        let sum =
            |step: &Step| -> usize { self.arrays(*step, d_kv, max_distance).iter().sum::<usize>() };
        steps.iter().map(sum).max().unwrap_or(0) + 8 * 16
    }

    fn kernel(self, step: Step, element: Element) -> String {
        let suffix = element.suffix();
        match (self, step) {
            (Form::TensorCores(width), Step::Forward) => format!("attend_mma_{width}"),
            (Form::TensorCores(width), Step::Queries) => format!("attention_mma_queries_{width}"),
            (Form::TensorCores(width), Step::Keys) => format!("attention_mma_keys_{width}"),
            (Form::Single, _) => format!("attend_single_{suffix}"),
            (Form::Plain, Step::Forward) => format!("attend_plain_{suffix}"),
            (Form::Plain, Step::Queries) => format!("attention_queries_{suffix}"),
            (Form::Plain, Step::Keys) => format!("attention_keys_{suffix}"),
        }
    }
}

/// Whether gradients may be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// No gradients.
    Inference,
    /// Gradients follow.
    Training,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Forward,
    Queries,
    Keys,
}

/// The operands of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// Queries: head `h` of row `r` at `r · q_stride + h · d_kv`.
    pub q: Address,
    /// Keys, in rows of `kv_stride`.
    pub k: Address,
    /// Values, in rows of `kv_stride`.
    pub v: Address,
    /// Values between rows of `q`.
    pub q_stride: usize,
    /// Values between rows of `k` and `v`.
    pub kv_stride: usize,
    /// `(2 max_distance + 1, heads)` f32, or null.
    pub bias: Address,
    /// Largest distance of the bias; 0 without a bias.
    pub max_distance: usize,
}

/// Segments and tiles as integers. The device holds a copy of each table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Five integers per segment: first query, number of queries, first key, number of keys, first
    /// position.
    pub segments: Vec<i32>,
    /// Two integers per tile of queries: segment, first query.
    pub query_tiles: Vec<i32>,
    /// Two integers per tile of keys: segment, first key.
    pub key_tiles: Vec<i32>,
}

impl Tables {
    /// Tables of these segments, in tiles of `tile` rows. Segments with most keys come first, so
    /// that the longest work does not start last.
    pub fn new(segments: &[Segment], tile: usize) -> Self {
        let mut order: Vec<usize> = (0..segments.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(segments[*i].keys.len()));
        let int = |value: usize| i32::try_from(value).expect("a batch has fewer than 2^31 rows");
        let tiles = |rows: &dyn Fn(&Segment) -> usize| {
            order
                .iter()
                .flat_map(|i| {
                    (0..rows(&segments[*i]))
                        .step_by(tile)
                        .flat_map(move |first| [int(*i), int(first)])
                })
                .collect()
        };
        let numbers = |s: &Segment| {
            [
                s.queries.start,
                s.queries.len(),
                s.keys.start,
                s.keys.len(),
                s.first_position,
            ]
            .map(int)
        };
        Self {
            segments: segments.iter().flat_map(numbers).collect(),
            query_tiles: tiles(&|segment| segment.queries.len()),
            key_tiles: tiles(&|segment| segment.keys.len()),
        }
    }

    /// Number of tiles of queries.
    pub fn queries(&self) -> usize {
        self.query_tiles.len() / 2
    }

    /// Number of tiles of keys.
    pub fn keys(&self) -> usize {
        self.key_tiles.len() / 2
    }
}

/// Addresses of [`Tables`] on the device.
#[derive(Clone, Copy, Debug)]
pub struct TableAddresses {
    /// See [`Tables::segments`].
    pub segments: Address,
    /// See [`Tables::query_tiles`].
    pub query_tiles: Address,
    /// See [`Tables::key_tiles`].
    pub key_tiles: Address,
}

/// One attention, which makes its launches.
#[derive(Clone, Copy, Debug)]
pub struct AttentionLaunches<'a> {
    /// Type of queries, keys, values and results.
    pub element: Element,
    /// The kernels to launch.
    pub form: Form,
    /// The heads, the visibility and the segments.
    pub plan: &'a AttentionPlan,
    /// Dropout of the weights; all zeros without dropout.
    pub dropout: DropoutParts,
    /// The matrices to read.
    pub operands: Operands,
    /// The tables on the host.
    pub tables: &'a Tables,
    /// The tables on the device.
    pub placed: TableAddresses,
}

/// Addresses that the backward pass reads and writes, beside the operands.
#[derive(Clone, Copy, Debug)]
pub struct GradientAddresses {
    /// The result of the forward pass, rows contiguous.
    pub out: Address,
    /// Gradient of the result, rows contiguous.
    pub grad: Address,
    /// Log-sums `(rows, heads)` f32, from the forward pass.
    pub lse: Address,
    /// Working memory of `(rows, heads)` f32.
    pub delta: Address,
    /// Gradient of the queries.
    pub dq: Address,
    /// Gradient of the keys.
    pub dk: Address,
    /// Gradient of the values.
    pub dv: Address,
    /// Values between rows of `dq`.
    pub dq_stride: usize,
    /// Values between rows of `dk` and `dv`.
    pub dkv_stride: usize,
    /// Working memory of `bias_parts()` f32, and the gradient of the bias; both null without a
    /// bias.
    pub bias: [Address; 2],
}

impl AttentionLaunches<'_> {
    /// Writes `out (rows, heads d_kv)`, and, for the backward pass, the log-sums `lse (rows,
    /// heads)`, null in inference.
    pub fn forward(&self, out: Address, lse: Address) -> Launch {
        self.launch(Step::Forward, self.tables.queries())
            .with(self.structure(out, lse, self.placed.query_tiles))
    }

    /// Number of f32 in the partial sums of the gradient of the bias.
    pub fn bias_parts(&self) -> usize {
        self.tables.queries() * self.distances() * self.plan.heads
    }

    fn distances(&self) -> usize {
        2 * self.operands.max_distance + 1
    }

    /// The launches of all gradients, for `rows` rows of queries.
    pub fn backward(&self, g: &GradientAddresses, rows: usize) -> Vec<Launch> {
        let heads = self.plan.heads;
        let delta = Launch::of(
            "attention_delta",
            self.element,
            [(rows * heads).div_ceil(4), 1],
            [128, 1],
        );
        let mut launches = vec![
            delta
                .addresses([g.out, g.grad, g.delta])
                .ints([rows * heads, self.plan.d_kv]),
        ];
        let steps = [
            (
                Step::Queries,
                self.tables.queries(),
                self.placed.query_tiles,
            ),
            (Step::Keys, self.tables.keys(), self.placed.key_tiles),
        ];
        for (step, tiles, table) in steps {
            launches.push(
                self.launch(step, tiles)
                    .with(self.structure(g.out, g.lse, table))
                    .with(gradients(g)),
            );
        }
        if g.bias[0] != Address::NULL {
            let count = self.distances() * heads;
            launches.push(sum_parts(
                g.bias[0],
                g.bias[1],
                count,
                self.tables.queries(),
            ));
        }
        launches
    }

    fn launch(&self, step: Step, tiles: usize) -> Launch {
        let AttentionPlan { heads, d_kv, .. } = *self.plan;
        let kernel = self.form.kernel(step, self.element);
        let arrays = self.form.arrays(step, d_kv, self.operands.max_distance);
        Launch::new(&kernel, [tiles, heads], [self.form.threads(), 1]).shared(&arrays)
    }

    /// `struct Attention` of attention.cuh.
    fn structure(&self, out: Address, lse: Address, tiles: Address) -> Argument {
        let (o, dropout) = (&self.operands, self.dropout);
        [o.q, o.k, o.v, out, lse, o.bias, self.placed.segments, tiles]
            .into_iter()
            .fold(Argument::structure(), Argument::address)
            .word(dropout.key)
            .int(o.q_stride)
            .int(o.kv_stride)
            .int(self.plan.heads)
            .int(self.plan.d_kv)
            .int(o.max_distance)
            .int(usize::from(self.plan.visibility == Visibility::Causal))
            .half(dropout.threshold)
            .float(dropout.scale)
    }
}

/// `struct Gradients` of attention.cuh.
fn gradients(g: &GradientAddresses) -> Argument {
    [g.grad, g.lse, g.delta, g.dq, g.dk, g.dv, g.bias[0]]
        .into_iter()
        .fold(Argument::structure(), Argument::address)
        .int(g.dq_stride)
        .int(g.dkv_stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_row_longest_first() {
        let segment = |queries: std::ops::Range<usize>, keys| Segment {
            queries,
            keys,
            first_position: 0,
        };
        let tables = Tables::new(&[segment(0..1, 0..3), segment(1..131, 3..70)], 64);
        assert_eq!(tables.query_tiles, [1, 0, 1, 64, 1, 128, 0, 0]);
        assert_eq!(tables.key_tiles, [1, 0, 1, 64, 0, 0]);
        assert_eq!(tables.segments, [0, 1, 0, 3, 0, 1, 130, 3, 67, 0]);
    }

    #[test]
    fn every_width_fits_a_block() {
        for width in [32, 64, 96, 128] {
            for form in [Form::TensorCores(width), Form::Plain, Form::Single] {
                assert!(
                    form.shared(width, 128, Use::Training) <= MAX_SHARED,
                    "{form:?} {width}"
                );
            }
        }
    }
}
