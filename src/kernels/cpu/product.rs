//! Which arithmetic multiplies a linear layer on a CPU, and what the files that multiply share.
//!
//! [`Arithmetic::of`] is the one table that chooses, when a weight is loaded (docs/precision.md has
//! the same table for users); `FloatProduct::unit` chooses the instructions for a weight in
//! [`PackedWeight`], product by product.

use super::isa::Isa;
use super::layout::STRIP;
use super::output::{DepthProgress, ProductOutput};
use super::packed_weight::PackedWeight;
use crate::kernels::plan::{Precision, Role, WeightForm};

/// The arithmetic of a linear layer's products on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Weights and activations in f32.
    F32,
    /// Weights in bf16. Activations are rounded to bf16 where the CPU multiplies bf16
    /// ([`Isa::rounds_activations`]), and stay f32 elsewhere.
    Bf16,
    /// Weights and activations in 16-bit integers.
    Int16,
    /// Weights and activations in 8-bit integers.
    Int8,
}

impl Arithmetic {
    /// The arithmetic of a layer, given the number type of the products (`--dtype`), the form of
    /// the weights (`--weights`), the layer's role and the CPU's instruction set.
    pub fn of(precision: Precision, form: WeightForm, role: Role, isa: Isa) -> Self {
        match (precision, form, role) {
            (_, WeightForm::Int8, Role::Ordinary | Role::QueryKeyValue) => Self::Int8,
            (Precision::F32, WeightForm::Int8, Role::Head)
            | (Precision::F32, WeightForm::Full, _) => Self::F32,
            (Precision::Bf16, WeightForm::Int8, Role::Head)
            | (Precision::Bf16, WeightForm::Full, Role::Ordinary | Role::Head) => Self::Bf16,
            // Where activations would be rounded to bf16, AVX-512-VNNI multiplies 16-bit integers,
            // which are finer, as fast. CPUs with matrix tiles (AMX), which have no 16-bit
            // integers, use it too.
            (Precision::Bf16, WeightForm::Full, Role::QueryKeyValue) => {
                if isa.rounds_activations() {
                    Self::Int16
                } else {
                    Self::Bf16
                }
            }
        }
    }
}

/// The instructions that multiply a product of a [`PackedWeight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Multiply-adds of f32 lanes; bf16 weights are widened in registers.
    Lanes,
    /// Dot products of bf16 pairs (AVX512-BF16).
    Pairs,
    /// Matrix tiles of bf16 pairs (AMX).
    Tiles,
}

/// Rows of A in one task.
pub(super) const ROW_BLOCK: usize = 10 * STRIP;

/// The left operand `A (m, k)` as it lies in memory.
#[derive(Clone, Copy)]
pub enum Left<'a> {
    /// Row by row.
    Rows(&'a [f32]),
    /// Column by column: the transpose `(k, m)`, row-major.
    Columns(&'a [f32]),
}

/// One product `C = A · Wᵀ (+ R)` of a [`PackedWeight`].
pub(super) struct FloatProduct<'a> {
    pub(super) a: Left<'a>,
    pub(super) weight: &'a PackedWeight,
    pub(super) residual: Option<&'a [f32]>,
    /// Whether the results are added to the values of C.
    pub(super) adds: bool,
    pub(super) output: ProductOutput,
    /// Rows of A and of C.
    pub(super) m: usize,
}

impl FloatProduct<'_> {
    /// The instructions that multiply this product.
    pub(super) fn unit(&self, isa: Isa) -> Unit {
        let has_pairs = isa.rounds_activations() && !self.weight.is_halved();
        match (self.weight.precision(), self.a) {
            (Precision::Bf16, Left::Rows(_)) if has_pairs && isa == Isa::Amx => Unit::Tiles,
            (Precision::Bf16, _) if has_pairs => Unit::Pairs,
            (Precision::Bf16 | Precision::F32, _) => Unit::Lanes,
        }
    }

    /// The place of the columns `start..start + depth` of k among all of them.
    #[inline(always)]
    pub(super) fn progress(&self, start: usize, depth: usize) -> DepthProgress {
        DepthProgress {
            is_first: start == 0,
            is_last: start + depth == self.weight.k(),
        }
    }
}

/// Some columns of a block of k that fill one strip.
pub(super) struct DepthSlice {
    /// Its first column, counted from the block's first.
    pub first: usize,
    /// Its number of columns.
    pub depth: usize,
    /// Its first strip in the copy of A.
    pub strip: usize,
}

/// The slices of up to `most` columns of a block of `depth` columns.
#[inline(always)]
pub(super) fn depth_slices(depth: usize, most: usize) -> impl Iterator<Item = DepthSlice> {
    let firsts = (0..depth).step_by(most).enumerate();
    firsts.map(move |(strip, first)| DepthSlice {
        first,
        depth: most.min(depth - first),
        strip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/precision.md.
    #[test]
    fn every_layer_has_its_arithmetic() {
        use Arithmetic::{Bf16, F32, Int8, Int16};
        use Role::{Head, Ordinary, QueryKeyValue};
        use WeightForm::{Full, Int8 as InInt8};
        for isa in Isa::ALL {
            for (precision, form, role, expected) in [
                (Precision::F32, Full, Ordinary, F32),
                (Precision::F32, Full, QueryKeyValue, F32),
                (Precision::F32, Full, Head, F32),
                (Precision::F32, InInt8, Ordinary, Int8),
                (Precision::F32, InInt8, QueryKeyValue, Int8),
                (Precision::F32, InInt8, Head, F32),
                (Precision::Bf16, Full, Ordinary, Bf16),
                (Precision::Bf16, Full, Head, Bf16),
                (Precision::Bf16, InInt8, Ordinary, Int8),
                (Precision::Bf16, InInt8, QueryKeyValue, Int8),
                (Precision::Bf16, InInt8, Head, Bf16),
            ] {
                let chosen = Arithmetic::of(precision, form, role, isa);
                assert_eq!(chosen, expected, "{precision:?} {form:?} {role:?} {isa:?}");
            }
            let chosen = Arithmetic::of(Precision::Bf16, Full, QueryKeyValue, isa);
            let expected = match isa {
                Isa::Avx512Bf16 | Isa::Amx => Int16,
                Isa::Portable | Isa::Avx2 | Isa::Avx512 => Bf16,
            };
            assert_eq!(chosen, expected, "{isa:?}");
        }
    }
}
