//! Encoded sequences as the decoder's cross-attention reads them: keys and values of every layer,
//! computed once per sequence.
//!
//! `Decoder::source` makes a complete [`DecoderSource`]. `Decoder::sources` makes an empty one with
//! a fixed number of rows, where sequences are added and removed while others are being decoded:
//! [`DecoderSource::reserve`], [`DecoderSource::fill`], [`DecoderSource::remove`].

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::rows::FreeRows;

/// Encoded sequences, by number.
#[derive(Debug)]
pub struct DecoderSource {
    /// One tensor `(rows, 2 heads d_kv)` per layer.
    pub(super) keys_values: Vec<Tensor>,
    /// Rows of each sequence; an empty range where the number is free.
    pub(super) segments: Vec<Range<usize>>,
    pub(super) rows: FreeRows,
}

impl DecoderSource {
    /// Number of encoded sequences, including numbers that are free again.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// True without any encoded sequence.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Finds room for a sequence of `tokens` tokens and returns its number; `None` where there is
    /// no room now.
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

    /// Copies sequence `index` of `encoded` into the rows of `number`.
    ///
    /// # Errors
    /// Sequences of different lengths.
    pub fn fill(&mut self, number: usize, encoded: &DecoderSource, index: usize) -> Result<()> {
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

    /// Frees the rows of `number`.
    pub fn remove(&mut self, number: usize) {
        let rows = std::mem::take(&mut self.segments[number]);
        self.rows.give(rows);
    }
}
