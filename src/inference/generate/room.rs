//! The memory of a generator: rows for encoded prompts, and rows for sequences that are being
//! written.

use std::ops::Range;

use candle_core::Result;

use super::Prompt;
use crate::inference::workers::{EncoderDecoder, Workers, with_room};
use crate::model::{Decoder, DecoderCache, DecoderSource, Packed};

/// The smallest useful number of rows.
const LEAST: usize = 1024;

/// Both kinds of rows and their numbers.
pub(super) struct Room {
    pub sources: DecoderSource,
    source_rows: usize,
    pub cache: DecoderCache,
    cache_rows: usize,
}

impl Room {
    /// `rows` rows of each kind, or as many as the device has memory for.
    pub(super) fn new(stacks: EncoderDecoder<'_>, rows: usize) -> Result<Self> {
        let decoder = stacks.decoder;
        let reserve = |rows| Ok((decoder.sources(rows)?, decoder.cache_of(rows)?));
        let ((sources, cache), rows) = with_room(stacks.device(), rows, LEAST, reserve)?;
        Ok(Self {
            sources,
            source_rows: rows,
            cache,
            cache_rows: rows,
        })
    }

    /// Makes room for a prompt that needs more than the budget. No sequence may be live, and no
    /// other prompt encoded.
    pub(super) fn enlarge(
        &mut self,
        decoder: &Decoder,
        prompt: &Prompt,
        slots: usize,
    ) -> Result<()> {
        let tokens = prompt.token_ids.len();
        if tokens > self.source_rows {
            self.sources = decoder.sources(tokens)?;
            self.source_rows = tokens;
        }
        let rows = slots * prompt.max_new;
        if rows > self.cache_rows {
            self.cache = decoder.cache_of(rows)?;
            self.cache_rows = rows;
        }
        Ok(())
    }

    /// Opens `count` slots of `capacity` positions each, or none where not all of them fit.
    pub(super) fn open(&mut self, count: usize, capacity: usize) -> Option<Vec<usize>> {
        let mut opened = Vec::new();
        for _ in 0..count {
            let Some(slot) = self.cache.open(capacity) else {
                self.close(&opened);
                return None;
            };
            opened.push(slot);
        }
        Some(opened)
    }

    pub(super) fn close(&mut self, slots: &[usize]) {
        for slot in slots {
            self.cache.close(*slot);
        }
    }

    /// Encodes prompts in packed batches, each into the source that was reserved for it.
    pub(super) fn encode(
        &mut self,
        workers: &Workers<EncoderDecoder<'_>>,
        prompts: &[(usize, &Prompt)],
    ) -> Result<()> {
        let lengths: Vec<usize> = prompts
            .iter()
            .map(|(_, prompt)| prompt.token_ids.len())
            .collect();
        let work = |stacks: &EncoderDecoder<'_>, batch: Range<usize>| {
            let segments = prompts[batch]
                .iter()
                .map(|(_, prompt)| prompt.token_ids.as_slice());
            let packed = Packed::from_segments(segments);
            let encoded = stacks.encoder.forward(&packed)?;
            stacks.decoder.source(&encoded, &packed)
        };
        workers.run(&lengths, work, |batch, encoded| {
            for (index, (source, _)) in prompts[batch].iter().enumerate() {
                self.sources.fill(*source, &encoded, index)?;
            }
            Ok(())
        })
    }
}
