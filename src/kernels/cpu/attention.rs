//! The inputs of packed attention on the CPU, which [`super::attend`] and
//! [`super::attention_backward`] read.

use crate::kernels::dropout::Dropout;
use crate::kernels::plan::{Bias, Precision, Segment, Visibility};

/// Width of the widest head that the kernels take.
pub const MAX_HEAD: usize = 256;

/// Rows of heads inside a wider matrix: row `r`, head `h` starts at `data[r * stride + offset + h *
/// d_kv]`.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a, T = f32> {
    /// Values of the whole matrix.
    pub data: &'a [T],
    /// Values from one row to the next.
    pub stride: usize,
    /// Column of the first head.
    pub offset: usize,
}

impl<T> Heads<'_, T> {
    pub(super) fn at(&self, row: usize, head: usize, d_kv: usize) -> &[T] {
        &self.data[row * self.stride + self.offset + head * d_kv..][..d_kv]
    }
}

/// Everything that the kernel reads. Keys and values lie in memory as `T`.
#[derive(Debug)]
pub struct Attention<'a, T = f32> {
    /// Queries.
    pub q: Heads<'a>,
    /// Keys.
    pub k: Heads<'a, T>,
    /// Values.
    pub v: Heads<'a, T>,
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub d_kv: usize,
    /// Bias by distance, in stacks that have one.
    pub bias: Option<Bias<'a>>,
    /// The keys that a query may see.
    pub visibility: Visibility,
    /// The segments; their query rows must not overlap.
    pub segments: &'a [Segment],
    /// Dropout of attention's weights, in training.
    pub dropout: Option<Dropout>,
    /// Number type of the product of weights and values for several queries. Bf16 takes effect only
    /// where the CPU multiplies it ([`Isa::rounds_activations`](super::Isa::rounds_activations)).
    pub precision: Precision,
}

impl<T> Attention<'_, T> {
    /// Whether a segment is computed by `single_query`.
    pub(super) fn is_single(&self, segment: &Segment) -> bool {
        segment.queries.len() == 1 && self.dropout.is_none()
    }

    /// Number of keys of a segment, from the first one, that any of its first `queries` queries
    /// sees.
    pub(super) fn seen(&self, segment: &Segment, queries: usize) -> usize {
        let keys = segment.keys.len();
        match self.visibility {
            Visibility::All => keys,
            Visibility::Causal => keys.min(segment.first_position + queries),
        }
    }
}
