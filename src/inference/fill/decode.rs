//! Greedy decoding with forced sentinels: many masked proteins advance together, with two decoder
//! steps per site.

use std::ops::Range;

use candle_core::DType;

use crate::inference::masked::{Answer, MaskedError, MaskedModel, source};
use crate::inference::residues::most_probable;
use crate::inference::workers::EncoderDecoder;
use crate::model::decoder::StepInput;

/// The encoder's input for one protein, and the positions of its sentinels.
pub(super) struct MaskedCopy {
    pub(super) token_ids: Vec<u32>,
    pub(super) sites: Vec<usize>,
}

/// Log-probabilities of the allowed residues at each site, each given the most probable residues at
/// the sites before it.
pub(super) fn greedy(
    model: &MaskedModel<'_>,
    copies: &[&MaskedCopy],
) -> Result<Vec<Answer>, MaskedError> {
    let sizes: Vec<(usize, usize)> = copies
        .iter()
        .map(|copy| (copy.token_ids.len(), 2 * copy.sites.len()))
        .collect();
    let tokens: Vec<usize> = sizes
        .iter()
        .map(|(source, target)| source + target)
        .collect();
    let batches = by_cache_budget(&sizes, model.workers.max_batch_tokens());
    let mut answers = Vec::with_capacity(copies.len());
    let work = |stacks: &EncoderDecoder<'_>, batch| greedy_batch(model, *stacks, &copies[batch]);
    let take = |_, batch: Vec<Answer>| {
        answers.extend(batch);
        Ok::<(), MaskedError>(())
    };
    model.workers.run_batches(&batches, &tokens, work, take)?;
    Ok(answers)
}

/// Splits copies with the given (encoder, decoder) tokens into consecutive batches. Every slot of
/// the decoder's cache is as long as the longest decoder sequence of the batch, and counts with
/// that length.
fn by_cache_budget(sizes: &[(usize, usize)], max_batch_tokens: usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut first, mut source, mut longest) = (0, 0, 0);
    for (i, &(encoder, decoder)) in sizes.iter().enumerate() {
        let cache = (i + 1 - first) * decoder.max(longest);
        if i > first && source + encoder + cache > max_batch_tokens {
            batches.push(first..i);
            (first, source, longest) = (i, 0, 0);
        }
        source += encoder;
        longest = longest.max(decoder);
    }
    if first < sizes.len() {
        batches.push(first..sizes.len());
    }
    batches
}

fn greedy_batch(
    model: &MaskedModel<'_>,
    stacks: EncoderDecoder<'_>,
    copies: &[&MaskedCopy],
) -> candle_core::Result<Vec<Answer>> {
    let source = source(stacks, copies.iter().map(|copy| copy.token_ids.as_slice()))?;
    let decoder = stacks.decoder;
    let most = copies.iter().map(|copy| copy.sites.len()).max();
    let most = most.unwrap_or(0);
    let mut cache = decoder.cache(copies.len(), 2 * most)?;
    let mut answers: Vec<Answer> = vec![Some(Vec::new()); copies.len()];
    let mut last = vec![model.start(); copies.len()];
    for k in 0..most {
        // A copy whose result is not finite ends; the other copies continue.
        let alive: Vec<usize> = (0..copies.len())
            .filter(|slot| copies[*slot].sites.len() > k && answers[*slot].is_some())
            .collect();
        if alive.is_empty() {
            break;
        }
        let inputs = |token_id: &dyn Fn(usize) -> u32| -> Vec<StepInput> {
            let input = |&slot: &usize| StepInput {
                token_id: token_id(slot),
                slot,
                source: slot,
            };
            alive.iter().map(input).collect()
        };
        decoder.step(&inputs(&|slot| last[slot]), &mut cache, &source)?;
        let sentinel = model.sentinel(k);
        let logits = decoder.step(&inputs(&|_| sentinel), &mut cache, &source)?;
        let logits: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
        for (&slot, logits) in alive.iter().zip(&logits) {
            match model.residues().log_probs(logits) {
                Some(log_probs) => {
                    last[slot] = model.residues().token_id(most_probable(&log_probs));
                    answers[slot].get_or_insert_default().push(log_probs);
                }
                None => answers[slot] = None,
            }
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_count_the_whole_cache() {
        type Case<'a> = (&'a [(usize, usize)], usize, &'a [(usize, usize)]);
        let table: [Case<'_>; 5] = [
            (&[], 10, &[]),
            (&[(50, 9)], 10, &[(0, 1)]),
            (&[(3, 2), (3, 2)], 10, &[(0, 2)]),
            (&[(3, 2), (3, 4)], 10, &[(0, 1), (1, 2)]),
            (&[(1, 4), (1, 0), (1, 0)], 10, &[(0, 2), (2, 3)]),
        ];
        for (sizes, budget, expected) in table {
            let batches = by_cache_budget(sizes, budget).into_iter();
            let ends: Vec<_> = batches.map(|batch| (batch.start, batch.end)).collect();
            assert_eq!(ends, expected, "{sizes:?}");
        }
    }
}
