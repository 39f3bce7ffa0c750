//! Encoded sequences as the decoder's cross-attention reads them: keys and values of every layer, computed once a sequence.
//!
//! A [`Source`] made by `Decoder::source` is complete as it is. One made by `Decoder::sources` is a room of a fixed number of rows in which sequences
//! come and go while others are being decoded: [`Source::reserve`], [`Source::fill`], [`Source::remove`].

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::rows::Rows;

/// Encoded sequences, by number.
#[derive(Debug)]
pub struct Source {
    /// One `(rows, 2 heads d_kv)` a layer.
    pub(super) keys_values: Vec<Tensor>,
    /// Rows of each sequence; empty under a number that is free.
    pub(super) segments: Vec<Range<usize>>,
    pub(super) rows: Rows,
}

impl Source {
    /// Number of encoded sequences (and of numbers that are free again).
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Finds room for a sequence of `tokens` tokens and gives it a number; `None` where there is none now.
    pub fn reserve(&mut self, tokens: usize) -> Option<usize> {
        let rows = self.rows.take(tokens)?;
        let free = self.segments.iter().position(Range::is_empty);
        let number = free.unwrap_or(self.segments.len());
        if number == self.segments.len() {
            self.segments.push(rows);
        } else {
            self.segments[number] = rows;
        }
        Some(number)
    }

    /// Puts sequence `index` of `encoded` in the room of `number`.
    ///
    /// # Errors
    /// Where the two are not of the same length.
    pub fn fill(&mut self, number: usize, encoded: &Source, index: usize) -> Result<()> {
        let (from, to) = (&encoded.segments[index], &self.segments[number]);
        if from.len() != to.len() {
            candle_core::bail!("{} rows for a source of {}", to.len(), from.len());
        }
        for (ours, theirs) in self.keys_values.iter().zip(&encoded.keys_values) {
            let rows = theirs.narrow(0, from.start, from.len())?.contiguous()?;
            let rows = rows.to_dtype(ours.dtype())?;
            ours.slice_set(&rows, 0, to.start)?;
        }
        Ok(())
    }

    /// Frees the room of `number`.
    pub fn remove(&mut self, number: usize) {
        let rows = std::mem::take(&mut self.segments[number]);
        self.rows.give(rows);
    }
}
