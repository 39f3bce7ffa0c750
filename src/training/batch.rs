//! From sequences to packed batches: cropping, corrupting, packing up to a budget of tokens,
//! without padding.

use rand::{Rng, RngExt};

use super::mixture::{Mixture, Objective};
use super::objective::{TrainingExample, example};
use super::order::SequenceOrder;
use crate::model::{Config, Packed};
use crate::tokenizer::Tokenizer;

/// Packed training examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Encoder input.
    pub source: Packed,
    /// Decoder input: labels shifted right behind the start token.
    pub target: Packed,
    /// The expected output at each position of the target.
    pub labels: Vec<u32>,
    /// The objective of each segment.
    pub tasks: Vec<Objective>,
}

impl Batch {
    /// Packs examples.
    pub fn new(examples: &[TrainingExample], config: &Config) -> Self {
        let shifted: Vec<Vec<u32>> = examples
            .iter()
            .map(|example| {
                let inputs = &example.labels[..example.labels.len() - 1];
                [&[config.decoder_start_token_id], inputs].concat()
            })
            .collect();
        Batch {
            source: Packed::from_segments(examples.iter().map(|example| &example.source[..])),
            target: Packed::from_segments(shifted.iter().map(Vec::as_slice)),
            labels: examples
                .iter()
                .flat_map(|example| example.labels.iter().copied())
                .collect(),
            tasks: examples.iter().map(|example| example.task).collect(),
        }
    }

    /// Tokens of encoder and decoder together.
    pub fn tokens(&self) -> usize {
        self.source.token_ids.len() + self.labels.len()
    }
}

/// Makes training examples from sequences.
#[derive(Clone, Debug)]
pub struct ExampleMaker<'a> {
    /// The objectives.
    pub mixture: &'a Mixture,
    /// The vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// Longer sequences are cropped to this many residues.
    pub max_residues: usize,
}

impl ExampleMaker<'_> {
    /// The example from one sequence of residue tokens.
    pub fn example(&self, residues: &[u32], rng: &mut impl Rng) -> TrainingExample {
        let residues = crop(residues, self.max_residues, rng);
        let task = self.mixture.pick(residues.len(), rng);
        example(residues, task, self.mixture, self.tokenizer, rng)
    }

    /// The examples of the next batch: as many as fit into `max_tokens` of encoder and decoder
    /// together, at least one. `residues` reads the tokens of a sequence.
    ///
    /// # Errors
    /// The errors of `residues`.
    pub fn next<E>(
        &self,
        order: &mut SequenceOrder,
        max_tokens: usize,
        mut residues: impl FnMut(usize) -> Result<Vec<u32>, E>,
    ) -> Result<Vec<TrainingExample>, E> {
        let (mut examples, mut tokens) = (Vec::new(), 0);
        loop {
            let (number, mut rng) = order.peek();
            let example = self.example(&residues(number)?, &mut rng);
            tokens += example.tokens();
            if !examples.is_empty() && tokens > max_tokens {
                return Ok(examples);
            }
            examples.push(example);
            order.advance();
        }
    }
}

/// A window of at most `limit` tokens; every window is equally likely.
fn crop<'a>(residues: &'a [u32], limit: usize, rng: &mut impl Rng) -> &'a [u32] {
    let spare = residues.len().saturating_sub(limit);
    let first = rng.random_range(0..=spare);
    &residues[first..residues.len() - (spare - first)]
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::FeedForward;
    use crate::training::order::Position;

    #[test]
    fn crops_are_windows_of_every_place() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let residues: Vec<u32> = (0..10).collect();
        let mut firsts = [0; 10];
        for _ in 0..4000 {
            let window = crop(&residues, 7, &mut rng);
            assert_eq!(window, &residues[window[0] as usize..][..7]);
            firsts[window[0] as usize] += 1;
        }
        assert!(
            firsts[..4].iter().all(|count| (850..1150).contains(count)),
            "{firsts:?}"
        );
        assert_eq!(crop(&residues, 10, &mut rng), residues);
        assert_eq!(crop(&residues, 99, &mut rng), residues);
    }

    #[test]
    fn batches_fill_the_budget_and_lose_nothing() {
        let (tokenizer, mixture) = (Tokenizer::ankh3(), Mixture::default());
        let maker = ExampleMaker {
            mixture: &mixture,
            tokenizer: &tokenizer,
            max_residues: 50,
        };
        let lengths = [5, 50, 200, 1, 2, 30, 12];
        let mut order = SequenceOrder::new(lengths.len(), 1, Position::default());
        let mut examples = 0;
        for _ in 0..50 {
            let batch = maker
                .next(&mut order, 120, |i| {
                    Ok::<_, Infallible>(vec![7; lengths[i]])
                })
                .unwrap();
            let tokens: usize = batch.iter().map(TrainingExample::tokens).sum();
            assert!(tokens <= 120 && tokens > 20, "{tokens}");
            examples += batch.len();
        }
        let position = order.position();
        assert_eq!(
            position.epoch as usize * lengths.len() + position.seen,
            examples
        );
        // A budget below the length of any example still advances.
        assert_eq!(
            maker
                .next(&mut order, 1, |_| Ok::<_, Infallible>(vec![7; 9]))
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn the_decoder_reads_what_it_must_write_one_later() {
        let config = Config {
            feed_forward_proj: FeedForward::GatedSilu,
            ..serde_json::from_str(
                r#"{"vocab_size":9,"d_model":4,"d_kv":2,"d_ff":4,"num_layers":1,"num_heads":2}"#,
            )
            .unwrap()
        };
        let examples = [
            TrainingExample {
                source: vec![4, 8, 1],
                labels: vec![5, 6, 1],
                task: Objective::Completion,
            },
            TrainingExample {
                source: vec![4, 1],
                labels: vec![7, 1],
                task: Objective::Masking(0.2),
            },
        ];
        let batch = Batch::new(&examples, &config);
        assert_eq!(batch.target.token_ids, [0, 5, 6, 0, 7]);
        assert_eq!(batch.labels, [5, 6, 1, 7, 1]);
        assert_eq!(batch.target.offsets, [0, 3, 5]);
        assert_eq!((batch.source.offsets.len(), batch.tokens()), (3, 10));
    }
}
