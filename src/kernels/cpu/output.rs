//! The destination of a product's results.
//!
//! Most products write their results to C. The product of a gated feed-forward block, whose panels
//! are interleaved ([`super::layout`]), keeps the results of a gate and of its factor in the
//! thread's first-level cache, and writes only `activation(gate) · up` to C.
#![expect(
    unsafe_code,
    reason = "results through pointers; each block says why they are in bounds"
)]

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::{GatePanels, gate_panels};
use super::isa::Isa;
use super::layout::{PANEL, Strided, interleaved_width};
use super::shared::SharedMut;
use crate::kernels::plan::Activation;

/// The activation of the gates, and the instruction set that computes it.
#[derive(Clone, Copy)]
pub(super) struct OutputGate {
    pub activation: Activation,
    pub isa: Isa,
}

/// The matrix C, or the gate in front of it.
#[derive(Clone, Copy)]
pub(super) struct ProductOutput {
    c: SharedMut,
    /// Columns of C: with a gate, about half the columns of the product.
    width: usize,
    gate: Option<OutputGate>,
}

/// The results that one thread computes at a time.
pub(super) struct ProductTask {
    pub rows: Range<usize>,
    /// Panels of the weight; whole pairs of panels where there is a gate.
    pub panels: Range<usize>,
    /// Memory of the results that wait for their gate.
    room: *mut f32,
}

#[cfg(test)]
impl ProductTask {
    /// A task without a gate.
    pub(super) fn plain(rows: Range<usize>, panels: Range<usize>) -> Self {
        Self {
            rows,
            panels,
            room: std::ptr::null_mut(),
        }
    }
}

/// How a product is cut into tasks.
pub(super) struct TaskGrid {
    /// Rows of the product.
    pub rows: usize,
    /// Rows of one task, at most.
    pub rows_per_task: usize,
    /// Panels of the weight.
    pub panels: usize,
}

/// The place of a block of k among all blocks.
#[derive(Clone, Copy)]
pub(super) struct DepthProgress {
    pub is_first: bool,
    pub is_last: bool,
}

impl DepthProgress {
    /// All of k at once.
    pub(super) const WHOLE: Self = Self {
        is_first: true,
        is_last: true,
    };
}

/// Rows of results, from the first row of a task on.
#[derive(Clone, Copy)]
pub(super) struct TargetRows {
    /// Address of the task's first row and the first column of `panel`.
    place: *mut f32,
    panel: usize,
    /// Floats from one row to the next.
    pub stride: usize,
    /// Number of columns from `place` on.
    columns: usize,
}

impl TargetRows {
    /// Address of the first result of a row of the task and a panel.
    #[inline(always)]
    pub(super) fn at(&self, row: usize, panel: usize) -> *mut f32 {
        let column = (panel - self.panel) * PANEL;
        self.place.wrapping_add(row * self.stride + column)
    }

    /// Number of columns from the first column of a panel on.
    #[inline(always)]
    pub(super) fn columns(&self, panel: usize) -> usize {
        self.columns - (panel - self.panel) * PANEL
    }
}

/// Some panels, and the destination of their results.
pub(super) struct PanelPass {
    pub panels: Range<usize>,
    pub target: TargetRows,
    gated: Option<GatedResults>,
}

/// Results that wait for their gate.
struct GatedResults {
    gate: OutputGate,
    rows: usize,
    columns: usize,
    to: Strided<*mut f32>,
}

thread_local! {
    /// Memory of the results that wait for their gate; taken while in use.
    static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A new C of `len` results. It is not filled with zeros first, which would cost a twentieth of the
/// time of `embed`.
///
/// # Safety
/// `write` writes all `len` results.
pub(super) unsafe fn written(len: usize, write: impl FnOnce(SharedMut)) -> Vec<f32> {
    let mut c = Vec::with_capacity(len);
    write(SharedMut(c.as_mut_ptr()));
    // SAFETY: the caller's promise; the capacity is there.
    unsafe { c.set_len(len) };
    c
}

impl ProductOutput {
    /// A destination as wide as the product.
    pub(super) fn plain(c: SharedMut, width: usize) -> Self {
        Self {
            c,
            width,
            gate: None,
        }
    }

    /// The destination of a gated block: `d_ff` columns of a product of `n` columns.
    ///
    /// # Panics
    /// If `n` is not [`interleaved_width`] of `d_ff`.
    pub(super) fn gated(c: SharedMut, d_ff: usize, n: usize, gate: OutputGate) -> Self {
        assert_eq!(n, interleaved_width(d_ff), "both halves, in whole panels");
        Self {
            c,
            width: d_ff,
            gate: Some(gate),
        }
    }

    /// Runs a product in tasks: blocks of rows × about `groups(number of blocks)` groups of panels.
    /// Several tasks run on several threads.
    pub(super) fn for_each_task(
        &self,
        grid: &TaskGrid,
        groups: impl FnOnce(usize) -> usize,
        run: impl Fn(&ProductTask) + Sync,
    ) {
        let TaskGrid {
            rows: m,
            rows_per_task,
            panels,
        } = *grid;
        // A gate needs both panels of a pair.
        let unit = if self.gate.is_some() { 2 } else { 1 };
        let (row_blocks, units) = (m.div_ceil(rows_per_task), panels / unit);
        let groups = groups(row_blocks).clamp(1, panels.div_ceil(4));
        let task = |task: usize| {
            let (block, group) = (task / groups, task % groups);
            let rows = block * rows_per_task..((block + 1) * rows_per_task).min(m);
            let panels = unit * (group * units / groups)..unit * ((group + 1) * units / groups);
            let mut room = ROOM.take();
            if self.gate.is_some() {
                // Reserved pages that no task touches take no memory.
                room.reserve(rows.len() * panels.len() * PANEL);
            }
            run(&ProductTask {
                rows,
                panels,
                room: room.as_mut_ptr(),
            });
            ROOM.set(room);
        };
        if row_blocks * groups == 1 {
            task(0);
        } else if rayon::current_num_threads() == 1 {
            (0..row_blocks * groups).for_each(task);
        } else {
            (0..row_blocks * groups).into_par_iter().for_each(task);
        }
    }

    /// The passes of a task over its panels for one block of k. Every panel is in one pass.
    pub(super) fn passes(
        &self,
        task: &ProductTask,
        progress: DepthProgress,
    ) -> impl Iterator<Item = PanelPass> {
        let Self { c, width, gate } = *self;
        let (rows, panels, room) = (task.rows.clone(), task.panels.clone(), task.room);
        let is_whole = progress.is_first && progress.is_last;
        // Gates are applied to one pair of panels at a time, or to two pairs where rows are so few
        // that four panels are multiplied at once.
        let step = match gate {
            Some(_) if progress.is_last && rows.len() <= 3 => 4,
            Some(_) if progress.is_last => 2,
            _ => panels.len(),
        };
        let end = panels.end;
        let pass = move |first: usize| {
            let last = (first + step).min(end);
            let c = c.get().wrapping_add(rows.start * width);
            let Some(gate) = gate else {
                let target = TargetRows {
                    place: c,
                    panel: 0,
                    stride: width,
                    columns: width,
                };
                return PanelPass {
                    panels: first..last,
                    target,
                    gated: None,
                };
            };
            // While blocks of k are to come, the results of all panels wait; otherwise every pass
            // reuses the same memory.
            let waiting = if is_whole {
                first..last
            } else {
                panels.clone()
            };
            let column = first / 2 * PANEL;
            let gated = progress.is_last.then(|| GatedResults {
                gate,
                rows: rows.len(),
                columns: ((last - first) / 2 * PANEL).min(width - column),
                to: Strided {
                    start: c.wrapping_add(column),
                    stride: width,
                },
            });
            PanelPass {
                panels: first..last,
                target: TargetRows {
                    place: room,
                    panel: waiting.start,
                    stride: waiting.len() * PANEL,
                    columns: waiting.len() * PANEL,
                },
                gated,
            }
        };
        task.panels.clone().step_by(step.max(1)).map(pass)
    }
}

impl PanelPass {
    /// Applies the gate to the results of the pass, if there is one.
    ///
    /// # Safety
    /// The results of the pass are complete; no other task writes these columns of C.
    pub(super) unsafe fn finish(&self) {
        let Some(gated) = &self.gated else {
            return;
        };
        let from = Strided {
            start: self.target.at(0, self.panels.start).cast_const(),
            stride: self.target.stride,
        };
        let panels = GatePanels {
            from,
            to: gated.to,
            rows: gated.rows,
            columns: gated.columns,
        };
        // SAFETY: passed on from the caller; the room holds whole panels of every row.
        unsafe { gate_panels(gated.gate.isa, gated.gate.activation, &panels) };
    }
}
