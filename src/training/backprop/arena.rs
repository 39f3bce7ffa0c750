//! Memory for big intermediate values, reused from layer to layer and from step to step, so that
//! after the first step nothing is allocated by the operating system.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The free buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Arena(Arc<Mutex<Vec<Vec<f32>>>>);

/// Values whose memory returns to the arena on drop.
#[derive(Debug)]
pub(super) struct Buffer {
    values: Vec<f32>,
    home: Arena,
}

impl Arena {
    /// `len` arbitrary values, to be written before the first read.
    pub fn buffer(&self, len: usize) -> Buffer {
        let mut values = self.room(len);
        values.resize(len, 0.0);
        Buffer {
            values,
            home: self.clone(),
        }
    }

    /// `len` zeros.
    pub fn zeros(&self, len: usize) -> Buffer {
        let mut buffer = self.buffer(len);
        buffer.fill(0.0);
        buffer
    }

    /// The smallest free memory that holds `len` values and is not far too large. If there is none,
    /// new memory in place of the largest that is too small; a little more than `len`, because the
    /// next batch may have a few more tokens.
    fn room(&self, len: usize) -> Vec<f32> {
        let mut free = self.free();
        let sizes = free.iter().map(Vec::capacity).enumerate();
        let fitting = sizes
            .clone()
            .filter(|(_, size)| (len..=8 * len.max(1 << 12)).contains(size));
        if let Some((place, _)) = fitting.min_by_key(|(_, size)| *size) {
            return free.swap_remove(place);
        }
        let small = sizes.filter(|(_, size)| *size < len);
        if let Some((place, _)) = small.max_by_key(|(_, size)| *size) {
            free.swap_remove(place);
        }
        Vec::with_capacity(len + len / 8)
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<f32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.home.free().push(values);
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_memory_is_reused() {
        let arena = Arena::default();
        let first = arena.buffer(10_000);
        let place = first.as_ptr();
        let other = arena.buffer(20_000);
        drop((first, other));
        // A few values more or fewer take the same memory.
        assert_eq!(arena.buffer(10_500).as_ptr(), place);
        assert_eq!(arena.buffer(9_000).as_ptr(), place);
        assert_eq!(arena.free().len(), 2);
        // Values that fit nowhere take the place of the largest memory.
        drop(arena.buffer(1_000_000));
        assert_eq!(arena.free().len(), 2);
        assert!(arena.zeros(1_000_000).iter().all(|value| *value == 0.0));
    }
}
