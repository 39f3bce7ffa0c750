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
use serde::{Deserialize, Serialize};

use crate::tokenizer::{TaskPrefix, Tokenizer};

/// The position where a sequence is cut for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// In the middle.
    Half,
    /// Between 20 % and 80 % of the sequence, each position equally likely.
    Random,
}

/// The objectives of a run and their weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mixture {
    /// Weight of masking.
    pub masking: f64,
    /// Weight of completion.
    pub completion: f64,
    /// Masking probabilities, each used equally often.
    pub probabilities: Vec<f64>,
    /// Mean number of adjacent residues per sentinel; 1 in the paper.
    pub span: usize,
    /// The position where sequences are cut for completion.
    pub split: Split,
}

impl Default for Mixture {
    fn default() -> Self {
        Self {
            masking: 1.0,
            completion: 1.0,
            probabilities: vec![0.15, 0.2, 0.3],
            span: 1,
            split: Split::Random,
        }
    }
}

/// The objective of one training example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Masking with this probability.
    Masking(f64),
    /// Completion.
    Completion,
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Objective::Masking(probability) => write!(f, "masking {probability}"),
            Objective::Completion => f.write_str("completion"),
        }
    }
}

impl Mixture {
    /// Every objective with a weight above 0.
    pub fn tasks(&self) -> Vec<Objective> {
        let occurs = |task: &Objective| match task {
            Objective::Masking(_) => self.masking > 0.0,
            Objective::Completion => self.completion > 0.0,
        };
        self.all_tasks().into_iter().filter(occurs).collect()
    }

    /// Every objective, including those of weight 0.
    pub fn all_tasks(&self) -> Vec<Objective> {
        let masking = self.probabilities.iter().map(|p| Objective::Masking(*p));
        masking.chain([Objective::Completion]).collect()
    }

    /// Draws the objective of one sequence. A single residue cannot be cut and is masked.
    pub fn pick(&self, length: usize, rng: &mut impl Rng) -> Objective {
        let share = self.masking / (self.masking + self.completion);
        // Both numbers are always drawn, so that a weight of 0 changes no other draw.
        let (which, probability) = (
            rng.random::<f64>(),
            rng.random_range(0..self.probabilities.len()),
        );
        if length < 2 || which < share {
            Objective::Masking(self.probabilities[probability])
        } else {
            Objective::Completion
        }
    }
}

/// What masking loses where the vocabulary has fewer sentinels than residues to mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskingShortfall {
    /// The longest sequence that is masked with the full probability.
    pub longest: usize,
    /// Number of sequences that are not longer.
    pub fitting: usize,
    /// The share of all residues that are masked.
    pub share: f64,
}

impl Mixture {
    /// The shortfall of masking sequences of these lengths with `probability`; `None` if all have
    /// enough sentinels. Spans of more than one residue are never too many: they become longer.
    pub fn shortfall(
        &self,
        probability: f64,
        sentinels: usize,
        lengths: impl Iterator<Item = usize>,
    ) -> Option<MaskingShortfall> {
        let longest = (sentinels as f64 / probability) as usize;
        let (mut fitting, mut longer, mut residues, mut masked) = (0, 0, 0.0, 0.0);
        for length in lengths {
            *(if length <= longest {
                &mut fitting
            } else {
                &mut longer
            }) += 1;
            residues += length as f64;
            masked += (probability * length as f64).min(sentinels as f64);
        }
        (longer > 0 && self.span <= 1).then(|| MaskingShortfall {
            longest,
            fitting,
            share: masked / residues,
        })
    }
}

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
    fn too_few_sentinels_mask_a_smaller_share() {
        let mixture = Mixture::default();
        let shortfall = |lengths: &[usize]| mixture.shortfall(0.3, 225, lengths.iter().copied());
        assert_eq!(shortfall(&[10, 512, 750]), None);
        assert_eq!(shortfall(&[]), None);
        let expected = MaskingShortfall {
            longest: 750,
            fitting: 0,
            share: 0.1875,
        };
        assert_eq!(shortfall(&[1200, 1200]), Some(expected));
        let mixed = shortfall(&[1000, 100]).unwrap();
        assert_eq!(mixed.fitting, 1);
        assert!((mixed.share - (225.0 + 30.0) / 1100.0).abs() < 1e-12);
        // The share is that of the masks that are drawn.
        for (length, share) in [(1200, 0.1875), (700, 0.3)] {
            let mut random = rng(7);
            let draws: Vec<usize> = (0..200)
                .map(|_| masked_spans(length, 0.3, 1, 225, &mut random).len())
                .collect();
            let drawn = draws.iter().sum::<usize>() as f64 / (200 * length) as f64;
            assert!((drawn - share).abs() < 2e-3, "{length}: {drawn}");
        }
        let spans = Mixture { span: 3, ..mixture };
        assert_eq!(spans.shortfall(0.3, 225, [1200].into_iter()), None);
        let mut random = rng(7);
        let masked: usize = masked_spans(3000, 0.3, 3, 225, &mut random)
            .iter()
            .map(ExactSizeIterator::len)
            .sum();
        assert_eq!(masked, 900);
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
    fn the_mixture_draws_what_it_says() {
        let mixture = Mixture {
            masking: 3.0,
            completion: 1.0,
            ..Mixture::default()
        };
        let mut rng = rng(5);
        let tasks: Vec<Objective> = (0..40_000).map(|_| mixture.pick(100, &mut rng)).collect();
        let share = |wanted: Objective| {
            tasks.iter().filter(|task| **task == wanted).count() as f64 / 40_000.0
        };
        assert!((share(Objective::Completion) - 0.25).abs() < 0.01);
        for probability in [0.15, 0.2, 0.3] {
            assert!(
                (share(Objective::Masking(probability)) - 0.25).abs() < 0.01,
                "{probability}"
            );
        }
        assert_eq!(mixture.tasks().len(), 4);
        assert!(matches!(mixture.pick(1, &mut rng), Objective::Masking(_)));
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
