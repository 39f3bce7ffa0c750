//! Keys and values of the positions decoded so far, for sequences that advance together. The memory
//! is preallocated: a step writes its rows in place.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::rows::FreeRows;

/// The rows of one sequence, and how many of them are filled.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// Empty where the slot is closed.
    pub rows: Range<usize>,
    pub length: usize,
}

/// The keys and values of the decoder's self-attention, by slot.
#[derive(Debug)]
pub struct DecoderCache {
    /// One tensor `(rows, 2 heads d_kv)` per layer; the rows of a slot are adjacent.
    pub(super) layers: Vec<Tensor>,
    pub(super) slots: Vec<Slot>,
    pub(super) rows: FreeRows,
}

impl DecoderCache {
    /// Positions decoded so far in a slot.
    pub fn len(&self, slot: usize) -> usize {
        self.slots[slot].length
    }

    /// True before the first step.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.length == 0)
    }

    /// Number of slots, open or closed.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Opens a slot for a sequence of at most `capacity` positions (at least one); `None` where
    /// there is no room now.
    pub fn open(&mut self, capacity: usize) -> Option<usize> {
        let rows = self.rows.take(capacity.max(1))?;
        let opened = Slot { rows, length: 0 };
        let closed = self.slots.iter().position(|slot| slot.rows.is_empty());
        match closed {
            Some(slot) => self.slots[slot] = opened,
            None => self.slots.push(opened),
        }
        Some(closed.unwrap_or(self.slots.len() - 1))
    }

    /// Closes a slot and frees its rows.
    pub fn close(&mut self, slot: usize) {
        let Slot { rows, .. } = std::mem::take(&mut self.slots[slot]);
        self.rows.give(rows);
    }

    /// Empties a slot for another sequence of the same capacity.
    pub fn clear(&mut self, slot: usize) {
        self.slots[slot].length = 0;
    }

    /// Makes slot `i` a copy of slot `parents[i]`, for beams that continue another beam.
    ///
    /// # Errors
    /// A slot that is smaller than the content of its parent, or a device that runs out of memory.
    pub fn reorder(&mut self, parents: &[usize]) -> Result<()> {
        let moved: Vec<usize> = (0..parents.len())
            .filter(|slot| parents[*slot] != *slot && self.slots[parents[*slot]].length > 0)
            .collect();
        for slot in &moved {
            let (room, needed) = (
                self.slots[*slot].rows.len(),
                self.slots[parents[*slot]].length,
            );
            if room < needed {
                candle_core::bail!(
                    "slot {slot} has room for {room} positions, its parent holds {needed}"
                );
            }
        }
        for layer in &self.layers {
            let kept = moved
                .iter()
                .map(|slot| {
                    let parent = &self.slots[parents[*slot]];
                    let rows = layer.narrow(0, parent.rows.start, parent.length)?;
                    // `copy` would copy the whole layer.
                    rows.force_contiguous()
                })
                .collect::<Result<Vec<_>>>()?;
            for (slot, rows) in moved.iter().zip(&kept) {
                layer.slice_set(rows, 0, self.slots[*slot].rows.start)?;
            }
        }
        let lengths: Vec<usize> = parents.iter().map(|parent| self.len(*parent)).collect();
        for (slot, length) in self.slots.iter_mut().zip(lengths) {
            slot.length = length;
        }
        Ok(())
    }

    /// The row of a slot's next position, and the rows of all positions up to and including it.
    pub(super) fn next(&self, slot: usize) -> Result<(usize, Range<usize>)> {
        let Slot { rows, length } = &self.slots[slot];
        if *length == rows.len() {
            candle_core::bail!(
                "slot {slot} of the decoder's cache is full after {length} positions"
            );
        }
        let position = rows.start + length;
        Ok((position, rows.start..position + 1))
    }
}
