//! Launches of `rows.cu`.

use super::launch::{Address, Element, Launch};
use crate::kernels::plan::Pool;

const THREADS: u32 = 128;
/// Rows of the loss in one block, one warp per row.
const WARPS: u32 = 4;

/// `out[i] = table[ids[i]]`, rows of `width`: addresses of table, ids (u32), out.
pub fn gather(element: Element, addresses: [Address; 3], tokens: usize, width: usize) -> Launch {
    Launch::of("gather", element, [tokens, 1], [THREADS, 1])
        .addresses(addresses)
        .ints([width])
}

/// The tokens of each id, as [`gather_backward`] reads them: those of `id` are
/// `tokens[starts[id]..starts[id + 1]]`, ascending.
pub fn tokens_by_id(ids: &[u32], vocab: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0; vocab + 1];
    for id in ids {
        starts[*id as usize + 1] += 1;
    }
    for id in 0..vocab {
        starts[id + 1] += starts[id];
    }
    let mut next = starts.clone();
    let mut tokens = vec![0; ids.len()];
    for (token, id) in ids.iter().enumerate() {
        tokens[next[*id as usize] as usize] = token as u32;
        next[*id as usize] += 1;
    }
    (starts, tokens)
}

/// Gradient of the table: addresses of grad, starts, tokens, `d_table`.
pub fn gather_backward(
    element: Element,
    addresses: [Address; 4],
    vocab: usize,
    width: usize,
) -> Launch {
    let columns = width.div_ceil(THREADS as usize);
    Launch::of("gather_backward", element, [columns, vocab], [THREADS, 1])
        .addresses(addresses)
        .ints([width])
}

/// The number of a pooling in `rows.cu`.
fn number(pool: Pool) -> usize {
    match pool {
        Pool::Mean => 0,
        Pool::Max => 1,
        Pool::Min => 2,
        Pool::Std => 3,
    }
}

/// `out[s]` (f32) of the rows `rows[2 s]..rows[2 s + 1]` of `x`: addresses of x, rows (u32), out.
pub fn pool(
    element: Element,
    pool: Pool,
    addresses: [Address; 3],
    segments: usize,
    width: usize,
) -> Launch {
    Launch::of("pool", element, [segments, width.div_ceil(32)], [32, 8])
        .shared(&[8 * 32 * 4])
        .addresses(addresses)
        .ints([width, number(pool)])
}

/// The loss of each row: addresses of logits, targets (u32), loss (f32).
pub fn cross_entropy(
    element: Element,
    addresses: [Address; 3],
    rows: usize,
    vocab: usize,
    z: f32,
) -> Launch {
    let blocks = rows.div_ceil(WARPS as usize);
    Launch::of("cross_entropy", element, [blocks, 1], [32 * WARPS, 1])
        .addresses(addresses)
        .ints([rows, vocab])
        .float(z)
}

/// Gradient of the logits: addresses of logits, targets (u32), grad (f32), d.
pub fn cross_entropy_backward(
    element: Element,
    addresses: [Address; 4],
    rows: usize,
    vocab: usize,
    z: f32,
) -> Launch {
    let blocks = rows.div_ceil(WARPS as usize);
    Launch::of(
        "cross_entropy_backward",
        element,
        [blocks, 1],
        [32 * WARPS, 1],
    )
    .addresses(addresses)
    .ints([rows, vocab])
    .float(z)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_listed_under_its_id() {
        let (starts, tokens) = tokens_by_id(&[3, 0, 3, 1, 3], 5);
        assert_eq!(starts, [0, 1, 2, 2, 5, 5]);
        assert_eq!(tokens, [1, 3, 0, 2, 4]);
    }
}
