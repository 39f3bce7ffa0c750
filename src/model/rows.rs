//! The free rows of a preallocated matrix: ranges are taken and given back, first fit.

use std::ops::Range;

/// Free ranges: ascending, never adjacent, never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreeRows {
    free: Vec<Range<usize>>,
}

impl FreeRows {
    /// The rows `0..total`, all free.
    pub fn new(total: usize) -> Self {
        Self {
            free: std::iter::once(0..total)
                .filter(|rows| !rows.is_empty())
                .collect(),
        }
    }

    /// Takes `count` adjacent rows: the first range that fits, so that low rows are reused before
    /// high rows are touched.
    pub fn take(&mut self, count: usize) -> Option<Range<usize>> {
        let place = self.free.iter().position(|rows| rows.len() >= count)?;
        let start = self.free[place].start;
        self.free[place].start += count;
        if self.free[place].is_empty() {
            self.free.remove(place);
        }
        Some(start..start + count)
    }

    /// Gives back rows that [`FreeRows::take`] returned.
    pub fn give(&mut self, rows: Range<usize>) {
        if rows.is_empty() {
            return;
        }
        let place = self.free.partition_point(|free| free.start < rows.start);
        self.free.insert(place, rows);
        if place + 1 < self.free.len() && self.free[place].end == self.free[place + 1].start {
            self.free[place].end = self.free.remove(place + 1).end;
        }
        if place > 0 && self.free[place - 1].end == self.free[place].start {
            self.free[place - 1].end = self.free.remove(place).end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_given_back_join_their_neighbours_in_any_order() {
        let orders = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        for order in orders {
            let mut rows = FreeRows::new(10);
            let taken = [2, 5, 3].map(|count| rows.take(count).unwrap());
            assert_eq!(taken, [0..2, 2..7, 7..10]);
            assert_eq!(rows.take(1), None);
            for i in order {
                rows.give(taken[i].clone());
            }
            assert_eq!(rows, FreeRows::new(10), "{order:?}");
        }
    }

    #[test]
    fn the_first_gap_that_is_long_enough_is_taken() {
        let mut rows = FreeRows::new(10);
        let taken = [2, 2, 3, 3].map(|count| rows.take(count).unwrap());
        rows.give(taken[0].clone());
        rows.give(taken[2].clone());
        assert_eq!(rows.take(3), Some(4..7));
        assert_eq!(rows.take(1), Some(0..1));
        assert_eq!(rows.take(2), None);
        assert_eq!(FreeRows::new(0).take(1), None);
        assert_eq!(rows.take(0), Some(1..1));
    }
}
