//! The memory of a generator: rows for encoded prompts, and rows for what is being written.

use candle_core::Result;

use super::{Budget, Prompt};
use crate::model::{Decoder, DecoderCache, Encoder, Packed, Source};
use crate::packing::by_token_budget;

/// Both kinds of rows, and how many there are.
pub(super) struct Room {
    pub sources: Source,
    source_rows: usize,
    pub cache: DecoderCache,
    cache_rows: usize,
}

impl Room {
    pub(super) fn new(decoder: &Decoder, budget: Budget) -> Result<Self> {
        Ok(Self {
            sources: decoder.sources(budget.rows)?,
            source_rows: budget.rows,
            cache: decoder.cache_of(budget.rows)?,
            cache_rows: budget.rows,
        })
    }

    /// Makes room for a prompt that needs more than the budget. Nothing may be live, nor any other prompt have its source.
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

    /// `count` slots of `capacity` positions, or none of them.
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

    /// Encodes prompts, packed in batches, each into the source that was reserved for it.
    pub(super) fn encode(
        &mut self,
        encoder: &Encoder,
        decoder: &Decoder,
        prompts: &[(usize, &Prompt)],
        batch_tokens: usize,
    ) -> Result<()> {
        let lengths: Vec<usize> = prompts
            .iter()
            .map(|(_, prompt)| prompt.token_ids.len())
            .collect();
        for batch in by_token_budget(&lengths, batch_tokens) {
            let prompts = &prompts[batch];
            let segments = prompts
                .iter()
                .map(|(_, prompt)| prompt.token_ids.as_slice());
            let packed = Packed::from_segments(segments);
            let encoded = decoder.source(&encoder.forward(&packed)?, &packed)?;
            for (index, (source, _)) in prompts.iter().enumerate() {
                self.sources.fill(*source, &encoded, index)?;
            }
        }
        Ok(())
    }
}
