//! Small types that the network and several kernels share: which rows attend to which, what becomes
//! of the values between two products, and the number type, form and role of a weight.

use std::ops::Range;
use std::sync::Arc;

/// Shape and segments of one attention.
#[derive(Clone, Debug)]
pub struct AttentionPlan {
    /// Number of heads.
    pub heads: usize,
    /// Width of one head.
    pub d_kv: usize,
    /// The keys that a query may see.
    pub visibility: Visibility,
    /// The rows that belong together. Query rows ascend without a gap.
    pub segments: Arc<[Segment]>,
    /// Number type in which attention probabilities multiply the values on a CPU that has bf16
    /// products. Gradients are always those of f32.
    pub precision: Precision,
}

/// One sequence of a packed batch: its rows of queries, and the rows of keys and values that they
/// attend to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Rows of Q and of the result.
    pub queries: Range<usize>,
    /// Rows of K and V.
    pub keys: Range<usize>,
    /// Position of the first query among the keys: 0, except in decoding with a cache.
    pub first_position: usize,
}

/// The keys that a query may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// All keys of its segment.
    All,
    /// Keys at its own position and before.
    Causal,
}

/// T5's position bias: `by_distance[(d + max_distance) * heads + h]` is added to the score of head
/// `h` for `d = key - query`, clamped to ±`max_distance`.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// Shape `(2 max_distance + 1, heads)`.
    pub by_distance: &'a [f32],
    /// The distance from which the bias is constant.
    pub max_distance: usize,
}

impl Bias<'_> {
    /// The row of `by_distance` for keys at `distance` from a query: the bias of `head` is
    /// `by_distance[row * heads + head]`.
    #[inline]
    pub(crate) fn row(&self, distance: isize) -> usize {
        let limit = self.max_distance as isize;
        (distance.clamp(-limit, limit) + limit) as usize
    }
}

/// The activation between the two products of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// Gelu in its tanh approximation (Hugging Face's `gelu_new`):
    /// `x · σ(2 √(2/π) (x + 0.044715 x³))`.
    GeluNew,
    /// `x · σ(x)`.
    Silu,
}

/// How the rows of a segment become one row, column by column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Arithmetic mean.
    Mean,
    /// Maximum.
    Max,
    /// Minimum.
    Min,
    /// Standard deviation of the population.
    Std,
}

/// Number type of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision throughout.
    F32,
    /// Weights rounded to bf16; the other operand, products and sums in f32.
    Bf16,
}

/// The number format in which linear layers keep their weights (`--weights`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum WeightForm {
    /// The number type of the matrix products
    #[default]
    Full,
    /// 8-bit integers with one scale per output; activations are rounded to 8 bits before each
    /// product. CPU only
    Int8,
}

/// The role of a linear layer, which decides how exact its products must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Output projections of attention, and feed-forward blocks.
    Ordinary,
    /// Queries, keys and values. T5 does not scale its scores, so the softmax magnifies every error
    /// in queries and keys.
    QueryKeyValue,
    /// The output layer, which makes logits: small, and never in integers.
    Head,
}
