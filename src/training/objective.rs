//! The two objectives of Ankh3 as pure functions on token ids.
//!
//! - **Masking**, `[NLU]`: every masked residue is replaced by a sentinel of its own, in order; the
//!   target repeats each sentinel, followed by the residue: `M K A Y` →
//!   `M <extra_id_0> A <extra_id_1>`, target `<extra_id_0> K <extra_id_1> Y </s>`. Longer spans are
//!   an option. T5's own routine never masks the first position and always ends with a masked span;
//!   here every position is masked equally often.
//! - **Completion**, `[S2S]`: the encoder reads the first part of a sequence, the target is the
//!   rest.

use std::ops::Range;

use rand::{Rng, RngExt};

use super::mixture::{Mixture, Objective, Split};
use crate::tokenizer::{TaskPrefix, Tokenizer};

/// The encoder's input and the decoder's expected output.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingExample {
    /// Encoder input: prefix, tokens, `</s>`.
    pub source: Vec<u32>,
    /// Decoder output: tokens, `</s>`. The decoder's input is the start token and the labels
    /// without the last.
    pub labels: Vec<u32>,
    /// The objective.
    pub task: Objective,
}

impl TrainingExample {
    /// Tokens of encoder and decoder together.
    pub fn tokens(&self) -> usize {
        self.source.len() + self.labels.len()
    }
}

/// Makes an example from residue tokens without prefix and `</s>`.
pub fn example(
    residues: &[u32],
    task: Objective,
    mixture: &Mixture,
    tokenizer: &Tokenizer,
    rng: &mut impl Rng,
) -> TrainingExample {
    let (prefix, body, mut labels) = match task {
        Objective::Masking(probability) => {
            let sentinels = tokenizer.num_sentinels();
            let spans = masked_spans(residues.len(), probability, mixture.span, sentinels, rng);
            let (source, labels) = mask(residues, &spans, |k| {
                tokenizer.sentinel(k).unwrap_or(tokenizer.unk())
            });
            (TaskPrefix::Nlu, source, labels)
        }
        Objective::Completion => {
            let cut = cut_at(residues.len(), mixture.split, rng);
            let (first, rest) = residues.split_at(cut);
            (TaskPrefix::S2s, first.to_vec(), rest.to_vec())
        }
    };
    let mut source: Vec<u32> = tokenizer.prefix_id(prefix).into_iter().collect();
    source.extend(body);
    source.push(tokenizer.eos());
    labels.push(tokenizer.eos());
    TrainingExample {
        source,
        labels,
        task,
    }
}

/// The masked spans of a sequence of `length` tokens: ascending, not adjacent where `span > 1`, at
/// least one, at most `max_spans`. Except for these limits each position is masked with the same
/// probability, `probability`.
pub fn masked_spans(
    length: usize,
    probability: f64,
    span: usize,
    max_spans: usize,
    rng: &mut impl Rng,
) -> Vec<Range<usize>> {
    if length == 0 || max_spans == 0 {
        return Vec::new();
    }
    let wanted = probability * length as f64;
    let extra = usize::from(rng.random::<f64>() < wanted.fract());
    let count = (wanted as usize + extra).clamp(1, length);
    if span <= 1 {
        let chosen = choose(count.min(max_spans), length, rng);
        return chosen.into_iter().map(|i| i..i + 1).collect();
    }
    if count == length || max_spans == 1 {
        let first = rng.random_range(0..=length - count);
        return std::iter::once(first..first + count).collect();
    }
    // Masked runs and gaps lie on a ring that is turned by a random angle. A run across the end
    // becomes two spans.
    let runs = (count.div_ceil(span))
        .min(length - count)
        .min(max_spans - 1);
    let (masked, gaps) = (
        compose(count, runs, rng),
        compose(length - count, runs, rng),
    );
    let turn = rng.random_range(0..length);
    let mut is_masked = vec![false; length];
    let mut at = turn;
    for (run, gap) in masked.into_iter().zip(gaps) {
        (at..at + run).for_each(|i| is_masked[i % length] = true);
        at += run + gap;
    }
    runs_of(&is_masked)
}

/// `count` of `0..length` in order, every set equally likely (Knuth's algorithm S).
fn choose(count: usize, length: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(count);
    for i in 0..length {
        if rng.random_range(0..length - i) < count - chosen.len() {
            chosen.push(i);
        }
    }
    chosen
}

/// `total` as a sum of `parts` numbers of at least 1; every sum is equally likely.
fn compose(total: usize, parts: usize, rng: &mut impl Rng) -> Vec<usize> {
    let cuts = choose(parts - 1, total - 1, rng)
        .into_iter()
        .map(|cut| cut + 1);
    let ends = cuts.chain([total]);
    let mut last = 0;
    ends.map(|end| end - std::mem::replace(&mut last, end))
        .collect()
}

fn runs_of(is_masked: &[bool]) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (i, _) in is_masked.iter().enumerate().filter(|(_, masked)| **masked) {
        match spans.last_mut() {
            Some(span) if span.end == i => span.end = i + 1,
            _ => spans.push(i..i + 1),
        }
    }
    spans
}

/// Source and target of a masked sequence: sentinel `k` replaces span `k` in the source and
/// precedes it in the target.
pub fn mask(
    tokens: &[u32],
    spans: &[Range<usize>],
    sentinel: impl Fn(usize) -> u32,
) -> (Vec<u32>, Vec<u32>) {
    let (mut source, mut target, mut from) = (Vec::new(), Vec::new(), 0);
    for (k, span) in spans.iter().enumerate() {
        source.extend_from_slice(&tokens[from..span.start]);
        source.push(sentinel(k));
        target.push(sentinel(k));
        target.extend_from_slice(&tokens[span.clone()]);
        from = span.end;
    }
    source.extend_from_slice(&tokens[from..]);
    (source, target)
}

/// The number of tokens that the encoder reads for completion; of two or more tokens at least one
/// remains on either side.
pub fn cut_at(length: usize, split: Split, rng: &mut impl Rng) -> usize {
    match split {
        Split::Half => length / 2,
        Split::Random => {
            let low = length.div_ceil(5).max(1);
            let high = (length * 4 / 5).min(length.saturating_sub(1)).max(low);
            rng.random_range(low..=high)
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "tables of spans, some of one span"
)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    #[test]
    fn masks_as_in_the_paper() {
        let tokenizer = Tokenizer::ankh3();
        let ids = |text: &str| {
            tokenizer
                .encode(text.as_bytes(), TaskPrefix::None)
                .unwrap()
                .token_ids
        };
        let sentinel = |k| tokenizer.sentinel(k).unwrap();
        let tokens = &ids("MKAYVLINSRGP")[..12];
        let (source, target) = mask(tokens, &[1..2, 4..5, 7..8, 11..12], sentinel);
        let text = |ids: &[u32]| {
            ids.iter()
                .map(|id| tokenizer.piece(*id))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            text(&source),
            "M <extra_id_0> A Y <extra_id_1> L I <extra_id_2> S R G <extra_id_3>"
        );
        assert_eq!(
            text(&target),
            "<extra_id_0> K <extra_id_1> V <extra_id_2> N <extra_id_3> P"
        );
    }

    #[test]
    fn mask_table() {
        type Case<'a> = (&'a [u32], &'a [Range<usize>], &'a [u32], &'a [u32]);
        let table: [Case<'_>; 5] = [
            (&[1, 2, 3], &[], &[1, 2, 3], &[]),
            (&[1], &[0..1], &[100], &[100, 1]),
            (&[1, 2], &[0..1, 1..2], &[100, 101], &[100, 1, 101, 2]),
            (&[1, 2, 3, 4], &[1..3], &[1, 100, 4], &[100, 2, 3]),
            (
                &[1, 2, 3, 4],
                &[0..1, 3..4],
                &[100, 2, 3, 101],
                &[100, 1, 101, 4],
            ),
        ];
        for (tokens, spans, source, target) in table {
            let got = mask(tokens, spans, |k| 100 + k as u32);
            assert_eq!(got, (source.to_vec(), target.to_vec()), "{spans:?}");
        }
    }

    #[test]
    fn every_position_is_masked_equally_often() {
        const RUNS: usize = 20_000;
        for (length, probability, span) in [
            (10, 0.15, 1),
            (37, 0.3, 1),
            (7, 0.5, 1),
            (30, 0.15, 3),
            (20, 0.4, 4),
        ] {
            let (mut rng, mut counts) = (rng(1), vec![0usize; length]);
            for _ in 0..RUNS {
                for spans in masked_spans(length, probability, span, 225, &mut rng) {
                    spans.for_each(|i| counts[i] += 1);
                }
            }
            let deviation = (probability * (1.0 - probability) / RUNS as f64).sqrt();
            for (position, count) in counts.iter().enumerate() {
                let share = *count as f64 / RUNS as f64;
                assert!(
                    (share - probability).abs() < 5.0 * deviation,
                    "{length} {span}: {position} {share}"
                );
            }
        }
    }

    #[test]
    fn spans_keep_their_limits() {
        let mut rng = rng(2);
        for length in 1..120 {
            for probability in [0.0001, 0.15, 0.5, 0.9, 1.0] {
                for (span, limit) in [(1, 225), (1, 7), (3, 225), (3, 2), (5, 1)] {
                    let spans = masked_spans(length, probability, span, limit, &mut rng);
                    assert!(
                        (1..=limit).contains(&spans.len()),
                        "{length} {probability} {span} {limit}"
                    );
                    assert!(
                        spans
                            .iter()
                            .all(|span| !span.is_empty() && span.end <= length)
                    );
                    assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start));
                }
            }
        }
        assert!(masked_spans(0, 0.5, 1, 225, &mut rng).is_empty());
        // A single residue is masked always, and a sure mask leaves nothing.
        assert_eq!(masked_spans(1, 0.15, 1, 225, &mut rng), [0..1]);
        assert_eq!(masked_spans(50, 1.0, 1, 225, &mut rng).len(), 50);
    }

    #[test]
    fn spans_have_the_mean_length_asked_for() {
        let mut rng = rng(3);
        let spans: Vec<_> = (0..2000)
            .flat_map(|_| masked_spans(200, 0.15, 3, 225, &mut rng))
            .collect();
        let mean = spans
            .iter()
            .map(std::iter::ExactSizeIterator::len)
            .sum::<usize>() as f64
            / spans.len() as f64;
        // A little less than 3, by runs cut at the end.
        assert!((2.7..3.0).contains(&mean), "{mean}");
    }

    #[test]
    fn cuts_are_uniform_and_inside() {
        let mut rng = rng(4);
        assert_eq!(
            (2..8)
                .map(|n| cut_at(n, Split::Half, &mut rng))
                .collect::<Vec<_>>(),
            [1, 1, 2, 2, 3, 3]
        );
        for length in 2..200 {
            for _ in 0..20 {
                assert!(
                    (1..length).contains(&cut_at(length, Split::Random, &mut rng)),
                    "{length}"
                );
            }
        }
        let mut counts = [0usize; 100];
        (0..61_000).for_each(|_| counts[cut_at(100, Split::Random, &mut rng)] += 1);
        assert!(
            counts[..20]
                .iter()
                .chain(&counts[81..])
                .all(|count| *count == 0)
        );
        assert!(
            counts[20..=80]
                .iter()
                .all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn examples_carry_prefix_and_end() {
        let tokenizer = Tokenizer::ankh3();
        let tokens = tokenizer
            .encode(b"MKAYVLINSRGP", TaskPrefix::None)
            .unwrap()
            .token_ids;
        let tokens = &tokens[..12];
        let mixture = Mixture {
            split: Split::Half,
            ..Mixture::default()
        };
        let done = example(
            tokens,
            Objective::Completion,
            &mixture,
            &tokenizer,
            &mut rng(6),
        );
        assert_eq!(done.source, [&[5], &tokens[..6], &[1]].concat());
        assert_eq!(done.labels, [&tokens[6..], &[1]].concat());
        let masked = example(
            tokens,
            Objective::Masking(0.5),
            &mixture,
            &tokenizer,
            &mut rng(6),
        );
        assert_eq!((masked.source[0], masked.source.len()), (4, 14));
        assert_eq!(
            (masked.labels.len(), *masked.labels.last().unwrap()),
            (13, 1)
        );
        assert_eq!(masked.labels[0], tokenizer.sentinel(0).unwrap());
    }
}
