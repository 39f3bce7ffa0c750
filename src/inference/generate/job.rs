//! A prompt in the generator, and the searches that run for it.

use super::beam::Beams;
use super::sampling::RandomStream;
use super::single::Single;
use super::{GeneratedSequence, GenerationResult, GenerationSettings, NotFinite, Prompt, Strategy};

/// A prompt and the sequences written for it so far.
#[derive(Debug)]
pub(super) struct PromptJob {
    pub prompt: Prompt,
    /// The number of the encoded prompt.
    pub source: Option<usize>,
    /// Number of searches: one per sample, or one beam search.
    searches: usize,
    begun: usize,
    ended: usize,
    /// The sequences of each search.
    written: Vec<Vec<GeneratedSequence>>,
    /// True once one search has failed, which makes the whole job fail.
    pub failed: bool,
}

impl PromptJob {
    pub(super) fn new(prompt: Prompt, settings: &GenerationSettings) -> Self {
        let searches = match settings.strategy {
            Strategy::Beam(_) => 1,
            Strategy::Greedy | Strategy::Sample(_) => settings.num_samples,
        };
        Self {
            prompt,
            source: None,
            searches,
            begun: 0,
            ended: 0,
            written: vec![Vec::new(); searches],
            failed: false,
        }
    }

    pub(super) fn all_begun(&self) -> bool {
        self.begun == self.searches || self.failed
    }

    /// Starts the next search, where `number` is the number of this job.
    pub(super) fn begin(
        &mut self,
        number: u64,
        slots: Vec<usize>,
        settings: &GenerationSettings,
    ) -> Search {
        let search = Search::new(number, self.begun, slots, &self.prompt.id, settings);
        self.begun += 1;
        search
    }

    /// Stores the sequences of search `number`, or its failure.
    pub(super) fn ended(
        &mut self,
        number: usize,
        completions: Result<Vec<GeneratedSequence>, NotFinite>,
    ) {
        self.ended += 1;
        match completions {
            Ok(completions) => self.written[number] = completions,
            Err(NotFinite) => self.failed = true,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.all_begun() && self.ended == self.begun
    }

    pub(super) fn into_outcome(self) -> GenerationResult {
        if self.failed {
            return Err(NotFinite);
        }
        Ok(self.written.into_iter().flatten().collect())
    }
}

/// The number of slots per search.
pub(super) fn slots(settings: &GenerationSettings) -> usize {
    match settings.strategy {
        Strategy::Beam(search) => search.num_beams,
        Strategy::Greedy | Strategy::Sample(_) => 1,
    }
}

/// A search in progress.
#[derive(Debug)]
pub(super) struct Search {
    pub job: u64,
    /// The number of the search in its job.
    pub number: usize,
    /// One slot per beam; the first [`Search::rows`] are in use.
    pub slots: Vec<usize>,
    state: State,
}

#[derive(Debug)]
enum State {
    Single(Box<Single>),
    Beams(Beams),
}

/// The state of a search after a step.
pub(super) enum Advance {
    /// The search continues: row `i` continues the former row `parents[i]`.
    On(Vec<usize>),
    Complete,
}

impl Search {
    fn new(
        job: u64,
        number: usize,
        slots: Vec<usize>,
        id: &str,
        settings: &GenerationSettings,
    ) -> Self {
        let state = match settings.strategy {
            Strategy::Greedy => State::Single(Box::new(Single::new(None))),
            Strategy::Sample(sampling) => {
                let stream = RandomStream::new(settings.seed, id, number as u64);
                State::Single(Box::new(Single::new(Some((sampling, stream)))))
            }
            Strategy::Beam(search) => State::Beams(Beams::new(search)),
        };
        Self {
            job,
            number,
            slots,
            state,
        }
    }

    /// The number of sequences that the search continues now.
    pub(super) fn rows(&self) -> usize {
        match &self.state {
            State::Single(_) => 1,
            State::Beams(beams) => beams.running().len(),
        }
    }

    /// The last token of each row; `start` for an empty row.
    pub(super) fn last_tokens(&self, start: u32) -> Vec<u32> {
        let last = |written: &[u32]| written.last().copied().unwrap_or(start);
        match &self.state {
            State::Single(single) => vec![last(single.token_ids())],
            State::Beams(beams) => beams.running().map(last).collect(),
        }
    }

    /// Continues the search by one token per row; `logits (rows, vocab)`.
    pub(super) fn advance(
        &mut self,
        logits: &[f32],
        vocab: usize,
        prompt: &Prompt,
        settings: &GenerationSettings,
    ) -> Result<Advance, NotFinite> {
        let (allowed, min, max) = (&settings.allowed, prompt.min_new, prompt.max_new);
        let parents = match &mut self.state {
            State::Single(single) => {
                let complete = single.advance(logits, allowed, min, max)?;
                if complete { Vec::new() } else { vec![0] }
            }
            State::Beams(beams) => beams.advance(logits.chunks_exact(vocab), allowed, min, max)?,
        };
        Ok(if parents.is_empty() {
            Advance::Complete
        } else {
            Advance::On(parents)
        })
    }

    /// The written sequences, best first, at most `num_samples`.
    pub(super) fn into_completions(self, num_samples: usize) -> Vec<GeneratedSequence> {
        match self.state {
            State::Single(single) => vec![single.into_completion()],
            State::Beams(beams) => beams.into_completions().take(num_samples).collect(),
        }
    }
}
