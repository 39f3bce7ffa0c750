//! RMS norm (`x / √(mean(x²) + ε) · weight`), activations and gates on the CPU, row by row.
#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers; each block says why it is in bounds"
)]

use rayon::prelude::*;

use super::isa::{Isa, with_isa};
use super::layout::{LANES, PANEL, Strided};
use super::simd::{Lanes, exp};
use crate::kernels::plan::Activation;

/// `2 √(2/π)` of the tanh approximation of gelu.
pub(super) const GELU: f32 = 1.595_769;
/// Values that one thread takes at a time.
pub(super) const CHUNK: usize = 1 << 14;

pub(super) fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// `out = x / √(mean(x²) + ε) · weight` for each row of `x (rows, width)`; the sum of squares in
/// f32.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = weight.len();
    let chunk = rows_per_chunk(width) * width;
    x.par_chunks(chunk).zip(out.par_chunks_mut(chunk)).for_each(|(x, out)| {
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            // SAFETY: `isa` is available; x, weight and out hold `width` values each.
            unsafe {
                with_isa!(isa, rms_norm_row(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32])(x, weight, epsilon, out));
            }
        }
    });
}

#[inline(always)]
unsafe fn rms_norm_row<V: Lanes>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = x.len();
    let whole = width - width % LANES;
    // SAFETY: vector reads and writes end at `whole`; the three slices are equally long.
    unsafe {
        let mut squares = V::splat(0.0);
        for i in (0..whole).step_by(LANES) {
            let value = V::load(x.as_ptr().add(i));
            squares = value.mul_add(value, squares);
        }
        let sum = squares.sum() + x[whole..].iter().map(|v| v * v).sum::<f32>();
        let scale = 1.0 / (sum / width as f32 + epsilon).sqrt();
        for i in (0..whole).step_by(LANES) {
            let value = V::load(x.as_ptr().add(i)).mul(V::splat(scale));
            value
                .mul(V::load(weight.as_ptr().add(i)))
                .store(out.as_mut_ptr().add(i));
        }
        for i in whole..width {
            out[i] = x[i] * scale * weight[i];
        }
    }
}

/// `out (rows, d_ff) = activation(gate) · up` where `x (rows, 2 d_ff)` holds `gate` beside `up`.
pub fn gated(isa: Isa, activation: Activation, x: &[f32], d_ff: usize, out: &mut [f32]) {
    let rows = rows_per_chunk(2 * d_ff);
    x.par_chunks(rows * 2 * d_ff)
        .zip(out.par_chunks_mut(rows * d_ff))
        .for_each(|(x, out)| {
            for (x, out) in x.chunks_exact(2 * d_ff).zip(out.chunks_exact_mut(d_ff)) {
                let (gate, up) = x.split_at(d_ff);
                run(isa, activation, gate, Some(up), out);
            }
        });
}

/// Rows of interleaved results (see [`super::layout`]), and the rows of C that they become.
pub(super) struct GatePanels {
    /// Panels of gates and of ups, alternating.
    pub from: Strided<*const f32>,
    /// Rows of C.
    pub to: Strided<*mut f32>,
    pub rows: usize,
    /// Results in one row.
    pub columns: usize,
}

/// Writes `activation(gate) · up` of interleaved panels.
///
/// # Safety
/// `isa` is available; every row of `from` has whole panels of either kind, and every row of `to`
/// room for `columns` floats.
pub(super) unsafe fn gate_panels(isa: Isa, activation: Activation, panels: &GatePanels) {
    // SAFETY: passed on from the caller.
    unsafe {
        with_isa!(isa, gate_rows(activation: Activation, panels: &GatePanels)(activation, panels));
    }
}

#[inline(always)]
unsafe fn gate_rows<V: Lanes>(activation: Activation, panels: &GatePanels) {
    // SAFETY: passed on from the caller.
    unsafe {
        match activation {
            Activation::Relu => gate_rows_by::<V, Relu>(panels),
            Activation::GeluNew => gate_rows_by::<V, GeluNew>(panels),
            Activation::Silu => gate_rows_by::<V, Silu>(panels),
        }
    }
}

#[inline(always)]
unsafe fn gate_rows_by<V: Lanes, F: Function>(panels: &GatePanels) {
    let GatePanels {
        from,
        to,
        rows,
        columns,
    } = *panels;
    for row in 0..rows {
        for column in (0..columns).step_by(LANES) {
            // SAFETY: panels are whole; of the last sixteen results, only the existing ones are
            // written.
            unsafe {
                let gate = from
                    .start
                    .add(row * from.stride + column / PANEL * 2 * PANEL + column % PANEL);
                let value = F::apply(V::load(gate)).mul(V::load(gate.add(PANEL)));
                let to = to.start.add(row * to.stride + column);
                if columns - column >= LANES {
                    value.store(to);
                } else {
                    let values = value.to_array();
                    std::ptr::copy_nonoverlapping(values.as_ptr(), to, columns - column);
                }
            }
        }
    }
}

/// `out = activation(x)`, value by value.
pub fn activate(isa: Isa, activation: Activation, x: &[f32], out: &mut [f32]) {
    x.par_chunks(CHUNK)
        .zip(out.par_chunks_mut(CHUNK))
        .for_each(|(x, out)| run(isa, activation, x, None, out));
}

fn run(isa: Isa, activation: Activation, gate: &[f32], up: Option<&[f32]>, out: &mut [f32]) {
    // SAFETY: `isa` is available; the slices are equally long.
    unsafe {
        with_isa!(isa, activate_slice(activation: Activation, gate: &[f32], up: Option<&[f32]>, out: &mut [f32])(activation, gate, up, out));
    }
}

/// One activation of sixteen lanes. This is a trait because a closure would be compiled without the
/// vector instructions, and its intrinsics would be calls.
trait Function {
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn apply<V: Lanes>(x: V) -> V;
}

struct Relu;
struct GeluNew;
struct Silu;

impl Function for Relu {
    #[inline(always)]
    unsafe fn apply<V: Lanes>(x: V) -> V {
        // SAFETY: passed on from the caller. Operands in this order keep a NaN a NaN.
        unsafe { V::splat(0.0).max(x) }
    }
}

impl Function for GeluNew {
    #[inline(always)]
    unsafe fn apply<V: Lanes>(x: V) -> V {
        // SAFETY: passed on from the caller.
        unsafe {
            // 2 √(2/π) (x + 0.044715 x³)
            let cubic = x.mul(x).mul_add(V::splat(0.044_715 * GELU), V::splat(GELU));
            over_sigmoid(x, x.mul(cubic))
        }
    }
}

impl Function for Silu {
    #[inline(always)]
    unsafe fn apply<V: Lanes>(x: V) -> V {
        // SAFETY: passed on from the caller.
        unsafe { over_sigmoid(x, x) }
    }
}

#[inline(always)]
unsafe fn activate_slice<V: Lanes>(
    activation: Activation,
    gate: &[f32],
    up: Option<&[f32]>,
    out: &mut [f32],
) {
    // SAFETY: passed on from `run`.
    unsafe {
        match activation {
            Activation::Relu => map_slices::<V, Relu>(gate, up, out),
            Activation::GeluNew => map_slices::<V, GeluNew>(gate, up, out),
            Activation::Silu => map_slices::<V, Silu>(gate, up, out),
        }
    }
}

/// `x / (1 + e^-y)`.
#[inline(always)]
pub(super) unsafe fn over_sigmoid<V: Lanes>(x: V, y: V) -> V {
    // SAFETY: passed on from the caller.
    unsafe { x.div(V::splat(1.0).add(exp(V::splat(0.0).sub(y)))) }
}

#[inline(always)]
unsafe fn map_slices<V: Lanes, F: Function>(gate: &[f32], up: Option<&[f32]>, out: &mut [f32]) {
    let whole = gate.len() - gate.len() % LANES;
    // SAFETY: vectors end at `whole`; the tail goes through a padded buffer.
    unsafe {
        for i in (0..whole).step_by(LANES) {
            let mut value = F::apply(V::load(gate.as_ptr().add(i)));
            if let Some(up) = up {
                value = value.mul(V::load(up.as_ptr().add(i)));
            }
            value.store(out.as_mut_ptr().add(i));
        }
        if whole < gate.len() {
            let mut padded = [0.0; LANES];
            padded[..gate.len() - whole].copy_from_slice(&gate[whole..]);
            let values = F::apply(V::load(padded.as_ptr())).to_array();
            for (i, value) in (whole..gate.len()).zip(values) {
                out[i] = up.map_or(value, |up| value * up[i]);
            }
        }
    }
}
