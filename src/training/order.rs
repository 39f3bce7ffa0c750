//! The order of sequences in training, and the random stream of each. Both depend on the seed, the
//! epoch and the number of the sequence alone, so a run can resume at any position.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The numbers `0..count` in the order of one epoch.
pub fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut rng = stream(seed, epoch, Purpose::Order);
    for i in (1..count).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    order
}

/// The purpose of a random stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The order of one epoch.
    Order,
    /// Cropping and corrupting a sequence.
    Sequence(u32),
    /// Dropout of a micro-batch.
    Dropout(u32),
}

/// The random stream of a purpose in an epoch, or for dropout in a step.
pub fn stream(seed: u64, epoch: u64, purpose: Purpose) -> ChaCha8Rng {
    let (kind, number) = match purpose {
        Purpose::Order => (0u32, 0),
        Purpose::Sequence(number) => (1, number),
        Purpose::Dropout(number) => (2, number),
    };
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..20].copy_from_slice(&kind.to_le_bytes());
    key[20..24].copy_from_slice(&number.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// The position of a run in its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Completed passes over the data.
    pub epoch: u64,
    /// Sequences seen in the current pass.
    pub seen: usize,
}

/// The endless order of sequences.
#[derive(Clone, Debug)]
pub struct SequenceOrder {
    seed: u64,
    position: Position,
    numbers: Vec<u32>,
}

impl SequenceOrder {
    /// The order of `count` sequences from `position` on. `count` must not be 0.
    pub fn new(count: usize, seed: u64, position: Position) -> Self {
        SequenceOrder {
            seed,
            position,
            numbers: shuffled(count, seed, position.epoch),
        }
    }

    /// The position before the sequence that [`SequenceOrder::peek`] returns.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next sequence and its random stream.
    pub fn peek(&self) -> (usize, ChaCha8Rng) {
        let number = self.numbers[self.position.seen];
        let purpose = Purpose::Sequence(number);
        (
            number as usize,
            stream(self.seed, self.position.epoch, purpose),
        )
    }

    /// Moves past the sequence that [`SequenceOrder::peek`] returns.
    pub fn advance(&mut self) {
        self.position.seen += 1;
        if self.position.seen == self.numbers.len() {
            self.position = Position {
                epoch: self.position.epoch + 1,
                seen: 0,
            };
            self.numbers = shuffled(self.numbers.len(), self.seed, self.position.epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_a_permutation_of_its_own() {
        let (a, b) = (shuffled(1000, 1, 0), shuffled(1000, 1, 1));
        let sorted = |order: &[u32]| {
            let mut order = order.to_vec();
            order.sort_unstable();
            order
        };
        assert_eq!(sorted(&a), (0..1000).collect::<Vec<_>>());
        assert_eq!(sorted(&b), sorted(&a));
        assert_ne!(a, b);
        assert_ne!(a, shuffled(1000, 2, 0));
        assert_eq!(a, shuffled(1000, 1, 0));
        assert_eq!(shuffled(1, 1, 0), [0]);
    }

    #[test]
    fn it_goes_on_where_it_stopped() {
        let mut order = SequenceOrder::new(7, 3, Position::default());
        let mut all = Vec::new();
        let mut positions = Vec::new();
        for _ in 0..20 {
            positions.push(order.position());
            let (number, mut rng) = order.peek();
            all.push((number, rng.random::<u64>()));
            order.advance();
        }
        for (i, position) in positions.into_iter().enumerate() {
            let mut order = SequenceOrder::new(7, 3, position);
            let again: Vec<_> = (i..20)
                .map(|_| {
                    let (number, mut rng) = order.peek();
                    order.advance();
                    (number, rng.random::<u64>())
                })
                .collect();
            assert_eq!(again, all[i..], "{position:?}");
        }
        // The same sequence has another stream in another epoch.
        assert!(
            all.iter()
                .all(|(_, first)| all.iter().filter(|(_, other)| other == first).count() == 1)
        );
    }
}
