//! Generators on several devices: each prompt goes to the least busy generator, and results come in
//! the order of the prompts.

use std::collections::VecDeque;
use std::panic::resume_unwind;

use candle_core::Result;

use super::{Budget, GenerationResult, GenerationSettings, Generator, Prompt};
use crate::inference::workers::{EncoderDecoder, Replicas};

/// Steps that every device takes before new prompts are assigned.
const STEPS: usize = 8;

/// One generator per device.
pub struct Generators<'a> {
    generators: Vec<Generator<'a>>,
    /// The generator of each prompt that is not popped yet, in the order of the prompts.
    dealt: VecDeque<usize>,
}

impl<'a> Generators<'a> {
    /// Generators without prompts; `budget` applies to each.
    ///
    /// # Errors
    /// A device without memory for the smallest budget.
    pub fn new(
        replicas: impl Into<Replicas<EncoderDecoder<'a>>>,
        settings: &GenerationSettings,
        budget: Budget,
    ) -> Result<Self> {
        let replicas = replicas.into();
        let generators = replicas
            .iter()
            .map(|stacks| Generator::new(*stacks, settings.clone(), budget));
        Ok(Self {
            generators: generators.collect::<Result<_>>()?,
            dealt: VecDeque::new(),
        })
    }

    /// True where another prompt should be pushed before the next step.
    pub fn wants_more(&self) -> bool {
        self.generators.iter().any(Generator::wants_more)
    }

    /// True when there is nothing left to write.
    pub fn is_idle(&self) -> bool {
        self.generators.iter().all(Generator::is_idle)
    }

    /// Adds a prompt.
    ///
    /// # Panics
    /// A prompt with `max_new` 0.
    pub fn push(&mut self, prompt: Prompt) {
        let busy = |generator: &Generator<'_>| (!generator.wants_more(), generator.rows());
        let least = (0..self.generators.len()).min_by_key(|i| busy(&self.generators[*i]));
        let least = least.expect("there is a generator for every device");
        self.generators[least].push(prompt);
        self.dealt.push_back(least);
    }

    /// The next result in the order of the prompts, if it is complete.
    pub fn pop(&mut self) -> Option<GenerationResult> {
        let outcome = self.generators[*self.dealt.front()?].pop()?;
        self.dealt.pop_front();
        Some(outcome)
    }

    /// Starts the searches that have room, and writes one token of every live sequence (several
    /// tokens on several devices).
    ///
    /// # Errors
    /// The network's failure.
    pub fn advance(&mut self) -> Result<()> {
        if let [generator] = &mut self.generators[..] {
            return generator.advance();
        }
        let busy = self.generators.iter_mut().filter(|g| !g.is_idle());
        std::thread::scope(|scope| {
            let threads: Vec<_> = busy
                .map(|generator| {
                    scope.spawn(move || (0..STEPS).try_for_each(|_| generator.advance()))
                })
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }
}
