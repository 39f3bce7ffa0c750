//! Where a product's results go.
//!
//! Most go to C as they are. Those of a gated feed-forward block meet before: its weights lie panel by panel, gates and what they are multiplied with by turns
//! ([`interleaved`]), so that both of a result are made one after the other, wait in the thread's first cache, and only `activation(gate) · up` goes to C.
#![expect(
    unsafe_code,
    reason = "results through pointers; each block says why they are in bounds"
)]

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::{Activation, gate_panels};
use super::packed_weight::PANEL;
use super::{Isa, SharedMut};

/// What gates do, and how.
#[derive(Clone, Copy)]
pub(super) struct Gate {
    pub activation: Activation,
    pub isa: Isa,
}

/// The matrix C.
#[derive(Clone, Copy)]
pub(super) struct Output {
    c: SharedMut,
    /// Columns of C: with a gate about half as many as the product has.
    width: usize,
    gate: Option<Gate>,
}

/// The results that one thread makes at a time.
pub(super) struct Task {
    pub rows: Range<usize>,
    /// Of weights; pairs of them where there is a gate.
    pub panels: Range<usize>,
    /// Where results wait for their gate.
    room: *mut f32,
}

#[cfg(test)]
impl Task {
    /// A task without a gate.
    pub(super) fn plain(rows: Range<usize>, panels: Range<usize>) -> Self {
        Self {
            rows,
            panels,
            room: std::ptr::null_mut(),
        }
    }
}

/// Which block of k is multiplied.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    pub is_first: bool,
    pub is_last: bool,
}

impl Progress {
    /// All of k at once.
    pub(super) const WHOLE: Self = Self {
        is_first: true,
        is_last: true,
    };
}

/// Rows of results from a task's first one on.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// Of the task's first row and the first column of `panel`.
    place: *mut f32,
    panel: usize,
    /// Floats from row to row.
    pub stride: usize,
    /// Columns from `place` on.
    columns: usize,
}

impl Target {
    /// Where the results of a task's row and a panel begin.
    #[inline(always)]
    pub(super) fn at(&self, row: usize, panel: usize) -> *mut f32 {
        let column = (panel - self.panel) * PANEL;
        self.place.wrapping_add(row * self.stride + column)
    }

    /// How many columns there are from a panel's first on.
    #[inline(always)]
    pub(super) fn columns(&self, panel: usize) -> usize {
        self.columns - (panel - self.panel) * PANEL
    }
}

/// Some panels, and where their results go.
pub(super) struct Pass {
    pub panels: Range<usize>,
    pub target: Target,
    gated: Option<Gated>,
}

/// Results that wait for their gate.
struct Gated {
    gate: Gate,
    rows: usize,
    columns: usize,
    c: *mut f32,
    stride: usize,
}

thread_local! {
    /// Taken while in use.
    static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A new C of `len` results, all of which `write` writes: zeros written first would cost a twentieth of `embed`.
///
/// # Safety
/// It does.
pub(super) unsafe fn written(len: usize, write: impl FnOnce(SharedMut)) -> Vec<f32> {
    let mut c = Vec::with_capacity(len);
    write(SharedMut(c.as_mut_ptr()));
    // SAFETY: the caller's promise; the capacity is there.
    unsafe { c.set_len(len) };
    c
}

impl Output {
    /// C as wide as the product.
    pub(super) fn plain(c: SharedMut, width: usize) -> Self {
        Self {
            c,
            width,
            gate: None,
        }
    }

    /// C as wide as a gated block, of which the product has `n` columns.
    ///
    /// # Panics
    /// If these are not those of [`interleaved_width`].
    pub(super) fn gated(c: SharedMut, d_ff: usize, n: usize, gate: Gate) -> Self {
        assert_eq!(n, interleaved_width(d_ff), "both halves, in whole panels");
        Self {
            c,
            width: d_ff,
            gate: Some(gate),
        }
    }

    /// Runs a product of `m` rows in tasks of up to so many rows and about `groups(blocks of rows)` groups of panels, on several threads if there are several
    /// tasks.
    pub(super) fn for_each_task(
        &self,
        (m, rows_of_task): (usize, usize),
        panels: usize,
        groups: impl FnOnce(usize) -> usize,
        run: impl Fn(&Task) + Sync,
    ) {
        // A gate needs both of a pair.
        let unit = if self.gate.is_some() { 2 } else { 1 };
        let (row_blocks, units) = (m.div_ceil(rows_of_task), panels / unit);
        let groups = groups(row_blocks).clamp(1, panels.div_ceil(4));
        let task = |task: usize| {
            let (block, group) = (task / groups, task % groups);
            let rows = block * rows_of_task..((block + 1) * rows_of_task).min(m);
            let panels = unit * (group * units / groups)..unit * ((group + 1) * units / groups);
            let mut room = ROOM.take();
            if self.gate.is_some() {
                // What no task touches takes no memory.
                room.reserve(rows.len() * panels.len() * PANEL);
            }
            run(&Task {
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

    /// The passes of a task over its panels, and over each panel once, for one block of k.
    pub(super) fn passes(&self, task: &Task, progress: Progress) -> impl Iterator<Item = Pass> {
        let Self { c, width, gate } = *self;
        let (rows, panels, room) = (task.rows.clone(), task.panels.clone(), task.room);
        let is_whole = progress.is_first && progress.is_last;
        // Gates are applied to one pair of panels at a time; to two where rows are so few that four panels are multiplied at once.
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
                let target = Target {
                    place: c,
                    panel: 0,
                    stride: width,
                    columns: width,
                };
                return Pass {
                    panels: first..last,
                    target,
                    gated: None,
                };
            };
            // With blocks of k to come, the results of every panel wait; else the room is used again and again.
            let waiting = if is_whole {
                first..last
            } else {
                panels.clone()
            };
            let column = first / 2 * PANEL;
            let gated = progress.is_last.then(|| Gated {
                gate,
                rows: rows.len(),
                columns: ((last - first) / 2 * PANEL).min(width - column),
                c: c.wrapping_add(column),
                stride: width,
            });
            Pass {
                panels: first..last,
                target: Target {
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

impl Pass {
    /// Takes the pass's results, now that they are there, through their gate.
    ///
    /// # Safety
    /// They are; these columns of C are the task's alone.
    pub(super) unsafe fn finish(&self) {
        let Some(gated) = &self.gated else {
            return;
        };
        let from = self.target.at(0, self.panels.start).cast_const();
        let from = (from, self.target.stride);
        let (shape, to) = ((gated.rows, gated.columns), (gated.c, gated.stride));
        // SAFETY: passed on from the caller; the room holds whole panels of every row.
        unsafe { gate_panels(gated.gate.isa, gated.gate.activation, from, shape, to) };
    }
}

/// Columns of the product of a gated block of `d_ff`: whole panels of either kind.
pub fn interleaved_width(d_ff: usize) -> usize {
    2 * d_ff.next_multiple_of(PANEL)
}

/// Which of the two matrices, the gates' or the other, and which of its rows is row `row` of the packed weight. There are rows beyond the last: zeros.
pub fn interleaved(row: usize) -> (usize, usize) {
    let (panel, column) = (row / PANEL, row % PANEL);
    (panel % 2, panel / 2 * PANEL + column)
}
