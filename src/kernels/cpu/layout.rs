//! How the operands of products lie in memory. The files that multiply refer to the drawings here.
//!
//! **Panels of weights.** A weight `W (n, k)` is cut into panels of [`PANEL`] outputs. Inside a
//! panel, the values of one k lie side by side, so that the inner loop reads memory straight
//! through. One line is 64 bytes: [`LANES`] slots of four bytes.
//!
//! ```text
//! f32, panel p                     outputs 32p..32p+16     outputs 32p+16..32p+32
//!              k = 0             [ line  w w w .. w     ] [ line  w w w .. w     ]
//!              k = 1             [ line                 ] [ line                 ]
//!              ..                  left half              right half
//!
//! bf16, panel p: the same, one row per pair of k; each slot holds a pair
//!              k = 0, 1          [ (w0,w1) (w0,w1) ..   ] [ (w0,w1) (w0,w1) ..   ]
//!              k = 2, 3          [ (w2,w3) (w2,w3) ..   ] [ ..                   ]
//!              An odd last k is paired with zero. The even k is the low half of the slot.
//!
//! halved, where a tile of results is one vector wide (AVX2, portable):
//!              the left halves of all rows, then the right halves of all rows
//!
//! integers, panel p: one row per group; each slot holds a group of one output
//!         8 bits   k = 0, 1, 2, 3 [ (q0 q1 q2 q3) (q0 q1 q2 q3) .. ] [ right half ]
//!         16 bits  k = 0, 1       [ (q0 q1)       (q0 q1)       .. ] [ right half ]
//! ```
//!
//! **Interleaved panels.** Both input layers of a gated feed-forward block are one weight, whose
//! panels alternate between rows of the gate's layer (gates) and rows of the other layer (up
//! projections), so that both operands of a gate are computed one after the other:
//!
//! ```text
//! panel   0              1                       2                3
//! holds   gates 0..32    up projections 0..32    gates 32..64     up projections 32..64   ..
//! ```
//!
//! **Strips of A.** The left operand `A (m, k)` is copied in blocks of some columns of k, in strips
//! of 12 rows (`STRIP`). The step from one row, and from one k (or pair of k), to the next is a
//! constant of the inner loop:
//!
//! ```text
//! A lies in rows:      row 0:  a a a ..        next row at a fixed distance, next k at 1
//!                      row 1:  a a a ..
//! A lies in columns:   k = 0:  a a .. a (12)   next row at 1, next k at 12
//!                      k = 1:  a a .. a
//! ```
//!
//! **Tiles of results.** One tile stays in registers while k is summed up: up to 12 rows × 2
//! vectors on AVX-512, 6 × 1 on AVX2 (vectors of 16 lanes). The matrix tiles of AMX hold 32 × 32
//! sums in four registers of 16 rows × 64 bytes:
//!
//! ```text
//!                 B: 16 rows of groups (one step)
//!                 [ tmm6  16 x 16 ] [ tmm7  16 x 16 ]
//! A: 16 groups
//! [ tmm4 rows 0..16  ]   [ tmm0    ] [ tmm1    ]
//! [ tmm5 rows 16..32 ]   [ tmm2    ] [ tmm3    ]   sums
//! ```
//!
//! **Attention** keeps queries and keys in the same panels: `[query / 32][d][query % 32]`, where
//! `d < d_kv` is a column of one head, and scores as `[key][query % 32]`.

/// Lanes of one vector of the kernels: 16 × f32 or 16 groups of four bytes.
pub const LANES: usize = 16;
/// Outputs in one panel of packed weights: two vectors.
pub const PANEL: usize = 2 * LANES;
/// Rows of A in one strip, whose values (or groups) of one k lie side by side: a multiple of the
/// height of every tile.
pub(super) const STRIP: usize = 12;

/// Rows in memory: where the first row begins, and the distance from one row to the next.
#[derive(Clone, Copy)]
pub(super) struct Strided<P> {
    pub start: P,
    /// In floats, or in bytes where the calling code says so.
    pub stride: usize,
}

/// How the rows of a panel lie, in slots of four bytes: from one row to the next, and from the left
/// half of a row to its right half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spacing {
    pub row: usize,
    pub half: usize,
}

impl Spacing {
    /// Whole rows, `stride` slots apart.
    pub(super) fn rows(stride: usize) -> Self {
        Self {
            row: stride,
            half: LANES,
        }
    }

    /// `rows` left halves, then as many right halves.
    pub(super) fn halves(rows: usize) -> Self {
        Self {
            row: LANES,
            half: rows * LANES,
        }
    }
}

/// Outputs of the one weight that holds both input layers of a gated block of `d_ff`: whole panels
/// of either layer.
pub fn interleaved_width(d_ff: usize) -> usize {
    2 * d_ff.next_multiple_of(PANEL)
}

/// The layer (0 = gates, 1 = up projections) and the row of that layer that row `row` of an
/// interleaved weight holds. Rows of the layer from `d_ff` on are padding: zeros.
pub fn interleaved(row: usize) -> (usize, usize) {
    let (panel, column) = (row / PANEL, row % PANEL);
    (panel % 2, panel / 2 * PANEL + column)
}
