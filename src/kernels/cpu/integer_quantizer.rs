//! Rows of activations to integers, strip by strip, on several threads.
#![expect(
    unsafe_code,
    reason = "instruction sets that a run-time check has found"
)]

use std::cell::Cell;

use rayon::prelude::*;

use super::integer_lanes::{Sums, with_integers};
use super::integer_weight::{Bits, GroupOrder, IntegerRows, Strip, quantize_strip};
use super::isa::IntegerIsa;
use super::layout::STRIP;

thread_local! {
    /// Memory of the last strip, for reuse. It is taken while in use, because a thread that waits
    /// may run a part of another product.
    static BYTES: Cell<Vec<i8>> = Cell::default();
}

/// How rows of activations become integers.
pub(super) struct Quantizer {
    pub isa: IntegerIsa,
    pub bits: Bits,
    /// Values in one row.
    pub k: usize,
    pub order: GroupOrder,
    /// 1 where the rows are too few to share.
    pub threads: usize,
}

impl Quantizer {
    /// Quantises `a (m, k)` into `rows`.
    pub(super) fn quantize(&self, a: &[f32], m: usize, rows: &mut IntegerRows) {
        let Self {
            isa,
            bits,
            k,
            order,
            threads,
        } = *self;
        let groups = order.groups(bits, k);
        rows.resize(m, groups, order);
        if k == 0 {
            return;
        }
        let quantize = |mut strip: Strip<'_>| {
            let mut bytes = BYTES.take();
            // SAFETY: `isa` is available.
            unsafe {
                with_integers!((isa, bits), quantize_in(bits: Bits, k: usize, order: GroupOrder, bytes: &mut Vec<i8>, strip: &mut Strip<'_>)
                    (bits, k, order, &mut bytes, &mut strip));
            }
            BYTES.set(bytes);
        };
        let IntegerRows {
            groups: all,
            scales,
            offsets,
        } = rows;
        let strip = |(((a, groups), scales), offsets)| Strip {
            a,
            groups,
            scales,
            offsets,
        };
        if threads == 1 || scales.len() <= STRIP {
            a.chunks(STRIP * k)
                .zip(all.chunks_mut(STRIP * groups))
                .zip(scales.chunks_mut(STRIP))
                .zip(offsets.chunks_mut(STRIP))
                .map(strip)
                .for_each(quantize);
        } else {
            a.par_chunks(STRIP * k)
                .zip(all.par_chunks_mut(STRIP * groups))
                .zip(scales.par_chunks_mut(STRIP))
                .zip(offsets.par_chunks_mut(STRIP))
                .map(strip)
                .for_each(quantize);
        }
    }
}

#[inline(always)]
unsafe fn quantize_in<V: Sums>(
    bits: Bits,
    k: usize,
    order: GroupOrder,
    bytes: &mut Vec<i8>,
    strip: &mut Strip<'_>,
) {
    quantize_strip(bits, k, order, bytes, strip);
}
