//! A prompt on its way through the generator, and the searches that are run for it.

use super::beam::Beams;
use super::sampling::RandomStream;
use super::single::Single;
use super::{GeneratedSequence, GenerationResult, GenerationSettings, NotFinite, Prompt, Strategy};

/// A prompt with what was written for it so far.
#[derive(Debug)]
pub(super) struct PromptJob {
    pub prompt: Prompt,
    /// Where its encoding lies.
    pub source: Option<usize>,
    /// Searches in all: each sample by itself, beams all in one.
    searches: usize,
    begun: usize,
    ended: usize,
    /// What each search has written.
    written: Vec<Vec<GeneratedSequence>>,
    /// One search has failed, so all have.
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

    /// Begins the next search, as job `number`.
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

    /// Search `number` has written `completions`, or failed.
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

/// Slots that one search needs.
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
    /// Its number among the job's searches.
    pub number: usize,
    /// One for each beam; the first [`Search::rows`] are in use.
    pub slots: Vec<usize>,
    state: State,
}

#[derive(Debug)]
enum State {
    Single(Box<Single>),
    Beams(Beams),
}

/// How a search stands after a step.
pub(super) enum Advance {
    /// It goes on; row `i` continues what row `parents[i]` was.
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

    /// Sequences that it follows now.
    pub(super) fn rows(&self) -> usize {
        match &self.state {
            State::Single(_) => 1,
            State::Beams(beams) => beams.running().len(),
        }
    }

    /// The token that each row has written last; `start` where it has none.
    pub(super) fn last_tokens(&self, start: u32) -> Vec<u32> {
        let last = |written: &[u32]| written.last().copied().unwrap_or(start);
        match &self.state {
            State::Single(single) => vec![last(single.token_ids())],
            State::Beams(beams) => beams.running().map(last).collect(),
        }
    }

    /// Goes on by the logits of its rows, `(rows, vocab)`.
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

    /// What it has written, best first, at most `num_samples`.
    pub(super) fn into_completions(self, num_samples: usize) -> Vec<GeneratedSequence> {
        match self.state {
            State::Single(single) => vec![single.into_completion()],
            State::Beams(beams) => beams.into_completions().take(num_samples).collect(),
        }
    }
}
