//! Batches of consecutive sequences up to a budget of tokens. Without padding there is no reason to
//! sort sequences by length, and results keep the order of the input.
//!
//! ```
//! use ankh3::packing::by_token_budget;
//!
//! // A batch holds at most ten tokens.
//! assert_eq!(by_token_budget(&[3, 7, 1], 10), [0..2, 2..3]);
//! ```

use std::ops::Range;

/// Splits segments with `lengths` tokens each into consecutive batches of at most
/// `max_batch_tokens` tokens; a longer segment is a batch of its own.
pub fn by_token_budget(lengths: &[usize], max_batch_tokens: usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut first, mut tokens) = (0, 0);
    for (i, &length) in lengths.iter().enumerate() {
        if i > first && tokens + length > max_batch_tokens {
            batches.push(first..i);
            (first, tokens) = (i, 0);
        }
        tokens += length;
    }
    if first < lengths.len() {
        batches.push(first..lengths.len());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::type_complexity,
        clippy::single_range_in_vec_init,
        reason = "a table of lengths, budget and batches, some of which are one"
    )]
    fn batches_are_consecutive_within_the_budget() {
        let table: [(&[usize], usize, &[Range<usize>]); 6] = [
            (&[], 10, &[]),
            (&[3], 10, &[0..1]),
            (&[3, 7, 1], 10, &[0..2, 2..3]),
            (&[11, 1], 10, &[0..1, 1..2]),
            (&[1, 11, 1], 10, &[0..1, 1..2, 2..3]),
            (&[5, 5, 5, 5], 10, &[0..2, 2..4]),
        ];
        for (lengths, budget, expected) in table {
            assert_eq!(by_token_budget(lengths, budget), expected, "{lengths:?}");
        }
    }
}
