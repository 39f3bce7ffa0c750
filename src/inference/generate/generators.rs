//! Generators on several devices: prompts are dealt out to whichever has least to do, and results come in their order.

use std::collections::VecDeque;
use std::panic::resume_unwind;

use candle_core::Result;

use super::{Budget, Generator, Outcome, Prompt, Settings};
use crate::inference::workers::Stacks;

/// Steps that devices take by themselves before new prompts are dealt out.
const STEPS: usize = 8;

/// One generator a device.
pub struct Generators<'a> {
    generators: Vec<Generator<'a>>,
    /// Which of them has each prompt that is not popped yet, in order.
    dealt: VecDeque<usize>,
}

impl<'a> Generators<'a> {
    /// Generators without prompts; each may keep what `budget` says.
    ///
    /// # Errors
    /// Where a device has no memory for the least of budgets.
    pub fn new(stacks: Vec<Stacks<'a>>, settings: &Settings, budget: Budget) -> Result<Self> {
        let generator =
            |(encoder, decoder)| Generator::new(encoder, decoder, settings.clone(), budget);
        Ok(Self {
            generators: stacks.into_iter().map(generator).collect::<Result<_>>()?,
            dealt: VecDeque::new(),
        })
    }

    /// True where another prompt should be pushed before the next step.
    pub fn wants_more(&self) -> bool {
        self.generators.iter().any(Generator::wants_more)
    }

    /// True without anything left to write.
    pub fn is_idle(&self) -> bool {
        self.generators.iter().all(Generator::is_idle)
    }

    /// Takes a prompt in.
    ///
    /// # Panics
    /// Where the prompt is to get no token.
    pub fn push(&mut self, prompt: Prompt) {
        let busy = |generator: &Generator<'_>| (!generator.wants_more(), generator.rows());
        let least = (0..self.generators.len()).min_by_key(|i| busy(&self.generators[*i]));
        let least = least.expect("there is a generator for every device");
        self.generators[least].push(prompt);
        self.dealt.push_back(least);
    }

    /// The next result, in the order of the prompts, if it is there.
    pub fn pop(&mut self) -> Option<Outcome> {
        let outcome = self.generators[*self.dealt.front()?].pop()?;
        self.dealt.pop_front();
        Some(outcome)
    }

    /// Lets in what has room, and writes one token of every live sequence, or on several devices some.
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
