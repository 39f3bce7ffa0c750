//! T5's relative position bias: distances fall into buckets, and each bucket has one learned value
//! per head, which is added to the attention scores.
//!
//! Half of the buckets are exact distances, the other half grow logarithmically up to
//! `max_distance`; all larger distances share the last bucket. The encoder splits the buckets
//! between both directions, the decoder uses all of them for the past. Raffel et al. 2020 (arXiv
//! 1910.10683, section 2.1); must equal Hugging Face's `T5Attention._relative_position_bucket`.

use candle_core::{Result, Tensor};

use super::names::Stack;

/// The directions in which distances have buckets of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Past and future: the encoder.
    Both,
    /// The past only; the future shares bucket 0: the decoder.
    Past,
}

impl Direction {
    /// The directions of a stack.
    pub fn of(stack: Stack) -> Self {
        match stack {
            Stack::Encoder => Direction::Both,
            Stack::Decoder => Direction::Past,
        }
    }
}

/// The bucket of `distance = key - query`.
pub fn relative_position_bucket(
    distance: i64,
    direction: Direction,
    num_buckets: usize,
    max_distance: usize,
) -> usize {
    let (first, buckets, steps) = match direction {
        Direction::Both => {
            let half = num_buckets / 2;
            (
                if distance > 0 { half } else { 0 },
                half,
                distance.unsigned_abs(),
            )
        }
        Direction::Past => (0, num_buckets, (-distance).max(0) as u64),
    };
    let exact = buckets / 2;
    if steps < exact as u64 {
        return first + steps as usize;
    }
    // In f32, as PyTorch computes it.
    let logarithm = (steps as f32 / exact as f32).ln();
    let scale = (max_distance as f64 / exact as f64).ln() as f32;
    let large = exact + (logarithm / scale * (buckets - exact) as f32) as usize;
    first + large.min(buckets - 1)
}

/// The bucket of every distance from `-max_distance` to `max_distance`.
pub fn buckets_by_distance(
    direction: Direction,
    num_buckets: usize,
    max_distance: usize,
) -> impl Iterator<Item = usize> {
    let limit = max_distance as i64;
    (-limit..=limit).map(move |distance| {
        relative_position_bucket(distance, direction, num_buckets, max_distance)
    })
}

/// The bias by distance, `(2 max_distance + 1, heads)`, from the learned table
/// `(num_buckets, heads)`: row `d + max_distance` holds the bias of distance `d`; beyond
/// ±`max_distance` the bias no longer changes.
///
/// # Errors
/// A table of another rank.
pub fn bias_by_distance(
    table: &Tensor,
    direction: Direction,
    max_distance: usize,
) -> Result<Tensor> {
    let (num_buckets, _) = table.dims2()?;
    let buckets: Vec<u32> = buckets_by_distance(direction, num_buckets, max_distance)
        .map(|bucket| bucket as u32)
        .collect();
    table.index_select(&Tensor::new(buckets, table.device())?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance, then the bucket among 64 in both directions, 64 of the past, 32 in both
    /// directions; maximum distance 128.
    const BUCKETS_FROM_TRANSFORMERS: [(i64, usize, usize, usize); 41] = [
        (-100_000, 31, 63, 15),
        (-200, 31, 63, 15),
        (-128, 31, 63, 15),
        (-127, 31, 63, 15),
        (-100, 30, 58, 15),
        (-91, 29, 56, 15),
        (-90, 29, 55, 14),
        (-65, 26, 48, 14),
        (-64, 26, 48, 14),
        (-63, 26, 47, 13),
        (-50, 24, 42, 13),
        (-33, 21, 32, 12),
        (-32, 21, 32, 12),
        (-31, 21, 31, 11),
        (-24, 19, 24, 11),
        (-17, 16, 17, 10),
        (-16, 16, 16, 10),
        (-15, 15, 15, 9),
        (-9, 9, 9, 8),
        (-8, 8, 8, 8),
        (-7, 7, 7, 7),
        (-1, 1, 1, 1),
        (0, 0, 0, 0),
        (1, 33, 0, 17),
        (7, 39, 0, 23),
        (8, 40, 0, 24),
        (9, 41, 0, 24),
        (15, 47, 0, 25),
        (16, 48, 0, 26),
        (17, 48, 0, 26),
        (31, 53, 0, 27),
        (32, 53, 0, 28),
        (33, 53, 0, 28),
        (63, 58, 0, 29),
        (64, 58, 0, 30),
        (65, 58, 0, 30),
        (100, 62, 0, 31),
        (127, 63, 0, 31),
        (128, 63, 0, 31),
        (129, 63, 0, 31),
        (500, 63, 0, 31),
    ];

    #[test]
    fn buckets_equal_hugging_face() {
        for (distance, both64, past64, both32) in BUCKETS_FROM_TRANSFORMERS {
            assert_eq!(
                relative_position_bucket(distance, Direction::Both, 64, 128),
                both64,
                "{distance}"
            );
            assert_eq!(
                relative_position_bucket(distance, Direction::Past, 64, 128),
                past64,
                "{distance}"
            );
            assert_eq!(
                relative_position_bucket(distance, Direction::Both, 32, 128),
                both32,
                "{distance}"
            );
        }
    }
}
