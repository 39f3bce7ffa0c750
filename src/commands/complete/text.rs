//! A record's completions as FASTA.

use std::fmt::Write;

use super::OutputPart;
use crate::inference::generate::{End, GeneratedSequence, GenerationSettings, Strategy};
use crate::output::write_fasta::write_record;
use crate::sequence::Sequence;
use crate::tokenizer::Tokenizer;

/// FASTA of all `completions` of `sequence`, of which the first `prompt` residues were the prompt.
pub fn fasta(
    sequence: &Sequence,
    prompt: usize,
    completions: &[GeneratedSequence],
    settings: &GenerationSettings,
    tokenizer: &Tokenizer,
    part: OutputPart,
) -> Vec<u8> {
    let mut text = Vec::new();
    for (sample, completion) in completions.iter().enumerate() {
        let mut residues = match part {
            OutputPart::Full => sequence.residues[..prompt].to_vec(),
            OutputPart::Completion => Vec::new(),
        };
        let letter = |id: &u32| tokenizer.residue(*id);
        residues.extend(completion.token_ids.iter().filter_map(letter));
        let id = format!("{}/{}", sequence.id, sample + 1);
        let description = description(sequence, prompt, completion, settings);
        write_record(&mut text, &id, &description, &residues).expect("a vector takes everything");
    }
    text
}

fn description(
    sequence: &Sequence,
    prompt: usize,
    completion: &GeneratedSequence,
    settings: &GenerationSettings,
) -> String {
    let mut fields = format!(
        "log_likelihood={:.4} perplexity={:.4} prompt={prompt} new={} end={}",
        completion.log_likelihood(),
        completion.perplexity(),
        completion.token_ids.len(),
        match completion.end() {
            End::Eos => "eos",
            End::Length => "length",
        },
    );
    let mut put = |name: &str, value: &dyn std::fmt::Display| {
        write!(fields, " {name}={value}").expect("a string takes everything");
    };
    match settings.strategy {
        Strategy::Greedy => put("decoding", &"greedy"),
        Strategy::Sample(sampling) => {
            put("decoding", &"sample");
            put("seed", &settings.seed);
            put("temperature", &sampling.temperature);
            if let Some(top_k) = sampling.top_k {
                put("top_k", &top_k);
            }
            if let Some(top_p) = sampling.top_p {
                put("top_p", &top_p);
            }
        }
        Strategy::Beam(search) => {
            put("decoding", &"beam");
            put("num_beams", &search.num_beams);
            put("length_penalty", &search.length_penalty);
            if let Some(score) = completion.score {
                put("score", &format_args!("{score:.4}"));
            }
        }
    }
    if !sequence.description.is_empty() {
        fields.push(' ');
        fields.push_str(&sequence.description);
    }
    fields
}
