//! Continuous batching: live sequences step together; when one ends, a waiting one takes its memory
//! at once.
//!
//! [`Generator::push`] adds prompts while [`Generator::wants_more`] is true, [`Generator::pop`]
//! returns results in the same order, and [`Generator::advance`] writes one token of every live
//! sequence. [`Budget::rows`] bounds the memory.

use std::collections::{BTreeMap, VecDeque};

use candle_core::{DType, Result};

use super::job::{Advance, PromptJob, Search, slots};
use super::room::Room;
use super::{Budget, GenerationResult, GenerationSettings, NotFinite, Prompt};
use crate::inference::workers::{EncoderDecoder, Workers};
use crate::model::Decoder;
use crate::model::decoder::StepInput;

/// The largest number of prompts between [`Generator::push`] and [`Generator::pop`]; results wait
/// for earlier results.
const WINDOW: u64 = 4096;

/// A model that writes sequences, on one device.
pub struct Generator<'a> {
    workers: Workers<EncoderDecoder<'a>>,
    settings: GenerationSettings,
    budget: Budget,
    room: Room,
    jobs: BTreeMap<u64, PromptJob>,
    /// Rows of all jobs.
    rows: usize,
    /// Jobs with searches that have not started.
    waiting: VecDeque<u64>,
    waiting_rows: usize,
    live: Vec<Search>,
    finished: BTreeMap<u64, GenerationResult>,
    pushed: u64,
    popped: u64,
}

impl<'a> Generator<'a> {
    /// A generator without prompts.
    ///
    /// # Errors
    /// A device without memory for the budget.
    pub fn new(
        stacks: EncoderDecoder<'a>,
        settings: GenerationSettings,
        budget: Budget,
    ) -> Result<Self> {
        Ok(Self {
            workers: Workers::new(stacks.into(), EncoderDecoder::device, budget.batch_tokens),
            settings,
            budget,
            room: Room::new(stacks, budget.rows)?,
            jobs: BTreeMap::new(),
            rows: 0,
            waiting: VecDeque::new(),
            waiting_rows: 0,
            live: Vec::new(),
            finished: BTreeMap::new(),
            pushed: 0,
            popped: 0,
        })
    }

    fn decoder(&self) -> &'a Decoder {
        self.workers.network().decoder
    }

    /// True where another prompt should be pushed before the next step.
    pub fn wants_more(&self) -> bool {
        self.waiting_rows < self.budget.rows && self.pushed - self.popped < WINDOW
    }

    /// True when there is nothing left to write.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Rows of the prompts that are not finished.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a prompt.
    ///
    /// # Panics
    /// A prompt with `max_new` 0.
    pub fn push(&mut self, prompt: Prompt) {
        assert!(prompt.max_new > 0, "a prompt gets at least one token");
        self.rows += prompt.rows();
        self.waiting_rows += prompt.rows();
        self.waiting.push_back(self.pushed);
        self.jobs
            .insert(self.pushed, PromptJob::new(prompt, &self.settings));
        self.pushed += 1;
    }

    /// The next result in the order of the prompts, if it is complete.
    pub fn pop(&mut self) -> Option<GenerationResult> {
        let outcome = self.finished.remove(&self.popped)?;
        self.popped += 1;
        Some(outcome)
    }

    /// All results of `prompts`, in order.
    ///
    /// # Errors
    /// The network's failure.
    pub fn run(
        &mut self,
        prompts: impl IntoIterator<Item = Prompt>,
    ) -> Result<Vec<GenerationResult>> {
        let mut prompts = prompts.into_iter();
        let mut results = Vec::new();
        loop {
            while self.wants_more() {
                let Some(prompt) = prompts.next() else { break };
                self.push(prompt);
            }
            if self.is_idle() {
                return Ok(results);
            }
            self.advance()?;
            results.extend(std::iter::from_fn(|| self.pop()));
        }
    }

    /// Starts the searches that have room, and writes one token of every live sequence.
    ///
    /// # Errors
    /// The network's failure.
    pub fn advance(&mut self) -> Result<()> {
        self.admit()?;
        if self.live.is_empty() {
            return Ok(());
        }
        let logits = self.step()?;
        let vocab = self.decoder().config().vocab_size;
        let mut parents: Vec<usize> = (0..self.room.cache.slots()).collect();
        let mut rest = logits.as_slice();
        for mut search in std::mem::take(&mut self.live) {
            let (mine, others) = rest.split_at(search.rows() * vocab);
            rest = others;
            let prompt = &self.jobs[&search.job].prompt;
            match search.advance(mine, vocab, prompt, &self.settings) {
                Ok(Advance::On(from)) => {
                    for (row, parent) in from.into_iter().enumerate() {
                        parents[search.slots[row]] = search.slots[parent];
                    }
                    self.live.push(search);
                }
                Ok(Advance::Complete) => self.end(search, Ok(())),
                Err(error) => self.end(search, Err(error)),
            }
        }
        self.room.cache.reorder(&parents)?;
        self.drop_failed();
        Ok(())
    }

    /// The logits `(rows, vocab)` of all live rows.
    fn step(&mut self) -> Result<Vec<f32>> {
        let decoder = self.decoder();
        let start = decoder.config().decoder_start_token_id;
        let mut inputs = Vec::new();
        for search in &self.live {
            let source = self.jobs[&search.job].source;
            let source = source.expect("a job with a live search has its source");
            let tokens = search.last_tokens(start).into_iter();
            inputs.extend(tokens.zip(&search.slots).map(|(token_id, slot)| StepInput {
                token_id,
                slot: *slot,
                source,
            }));
        }
        let Room { sources, cache, .. } = &mut self.room;
        let logits = decoder.step(&inputs, cache, sources)?;
        logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
    }

    /// Closes a search; the last search of a job completes the job's result.
    fn end(&mut self, search: Search, result: std::result::Result<(), NotFinite>) {
        self.room.close(&search.slots);
        let (number, place) = (search.job, search.number);
        let job = self.jobs.get_mut(&number).expect("it has a search");
        let written = result.map(|()| search.into_completions(self.settings.num_samples));
        job.ended(place, written);
        if job.is_complete() {
            let job = self.jobs.remove(&number).expect("just found");
            self.rows -= job.prompt.rows();
            if self.waiting.front() == Some(&number) {
                self.waiting.pop_front();
                self.waiting_rows -= job.prompt.rows();
            }
            self.room.sources.remove(job.source.expect("it was read"));
            self.finished.insert(number, job.into_outcome());
        }
    }

    /// Ends the remaining searches of jobs with a failed search.
    fn drop_failed(&mut self) {
        for search in std::mem::take(&mut self.live) {
            if self.jobs[&search.job].failed {
                self.end(search, Err(NotFinite));
            } else {
                self.live.push(search);
            }
        }
    }

    /// Starts searches in order as long as there is room, and encodes their prompts.
    fn admit(&mut self) -> Result<()> {
        let mut new = Vec::new();
        while let Some(&number) = self.waiting.front() {
            let mut job = self.jobs.remove(&number).expect("it waits");
            let all_begun = self.begin(number, &mut job, &mut new)?;
            if all_begun {
                self.waiting.pop_front();
                self.waiting_rows -= job.prompt.rows();
            }
            self.jobs.insert(number, job);
            if !all_begun {
                break;
            }
        }
        let prompt = |number| {
            let job: &PromptJob = &self.jobs[number];
            (job.source.expect("just reserved"), &job.prompt)
        };
        let prompts: Vec<_> = new.iter().map(prompt).collect();
        self.room.encode(&self.workers, &prompts)
    }

    /// Starts the searches of one job that have room. True when all of them have started.
    fn begin(&mut self, number: u64, job: &mut PromptJob, new: &mut Vec<u64>) -> Result<bool> {
        let slots = slots(&self.settings);
        if self.live.is_empty() {
            let decoder = self.decoder();
            self.room.enlarge(decoder, &job.prompt, slots)?;
        }
        if job.source.is_none() {
            job.source = self.room.sources.reserve(job.prompt.token_ids.len());
            if job.source.is_none() {
                return Ok(false);
            }
            new.push(number);
        }
        while !job.all_begun() {
            let Some(slots) = self.room.open(slots, job.prompt.max_new) else {
                return Ok(false);
            };
            self.live.push(job.begin(number, slots, &self.settings));
        }
        Ok(true)
    }
}
