//! The choice of residues: the flags, and the decoding strategy that follows from them.

use anyhow::{Context, Result};
use clap::Args;

use crate::args::{UsageError, at_least_one, usage};
use crate::inference::generate::{Allowed, BeamSearch, GenerationSettings, Sampling, Strategy};
use crate::inference::residues::{Residues, STANDARD};
use crate::tokenizer::Tokenizer;

/// Options of decoding, which is greedy without any of them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Decoding")]
pub struct DecodingArgs {
    /// Use beam search with N beams, as Hugging Face's generate does without early stopping.
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    num_beams: Option<usize>,

    /// Exponent of a beam's length: above 0 favours long sequences, below 0 short ones.
    ///
    /// The score of a beam is its log-probability / length^P. The length counts `</s>`, and the
    /// log-probability is over the whole vocabulary.
    #[arg(
        long,
        value_name = "P",
        requires = "num_beams",
        allow_negative_numbers = true,
        default_value_t = 1.0
    )]
    length_penalty: f64,

    /// Sample residues, with logits divided by T; 1 is the model's own distribution.
    #[arg(long, value_name = "T", value_parser = positive)]
    temperature: Option<f64>,

    /// Sample residues from the K most probable ones.
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    top_k: Option<usize>,

    /// Sample residues from the most probable ones that together have probability P (nucleus
    /// sampling), after --temperature and --top-k.
    #[arg(long, value_name = "P", value_parser = share)]
    top_p: Option<f64>,

    /// Completions per record: independent samples, or the best beams.
    #[arg(long, value_name = "N", value_parser = at_least_one, default_value = "1")]
    num_samples: usize,

    /// Seed of the random numbers. They depend on it, the record's id and the sample's number only.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// The residues that may be written.
    #[arg(long, value_name = "LETTERS", default_value_t = String::from_utf8_lossy(STANDARD).into_owned())]
    allow: String,
}

impl DecodingArgs {
    /// The strategy.
    ///
    /// # Errors
    /// Flags that contradict each other.
    pub fn strategy(&self) -> Result<Strategy, UsageError> {
        let samples = self.num_samples;
        let strategy = match (self.num_beams, self.temperature, self.top_k, self.top_p) {
            (None | Some(1), None, None, None) => {
                if samples > 1 {
                    return Err(usage(format_args!(
                        "--num-samples {samples} of a greedy run would all be the same; add --temperature 1 (or --top-k, --top-p) to draw them, or --num-beams {samples}"
                    )));
                }
                Strategy::Greedy
            }
            (Some(num_beams), ..) => {
                if samples > num_beams {
                    return Err(usage(format_args!(
                        "--num-samples {samples} of --num-beams {num_beams}: there are as many sequences as beams; raise --num-beams"
                    )));
                }
                Strategy::Beam(BeamSearch {
                    num_beams,
                    length_penalty: self.length_penalty,
                })
            }
            (None, temperature, top_k, top_p) => Strategy::Sample(Sampling {
                temperature: temperature.unwrap_or(1.0),
                top_k,
                top_p,
            }),
        };
        Ok(strategy)
    }

    /// The residues that may be written.
    ///
    /// # Errors
    /// None, or one that the vocabulary lacks.
    pub fn residues(&self, tokenizer: &Tokenizer) -> Result<Residues> {
        Residues::new(self.allow.as_bytes(), tokenizer).context("--allow")
    }

    /// Everything that is the same for all records.
    ///
    /// # Errors
    /// Flags that contradict each other.
    pub fn settings(
        &self,
        residues: &Residues,
        tokenizer: &Tokenizer,
    ) -> Result<GenerationSettings> {
        let ids = (0..residues.letters().len()).map(|column| residues.token_id(column));
        Ok(GenerationSettings {
            strategy: self.strategy()?,
            num_samples: self.num_samples,
            seed: self.seed,
            allowed: Allowed::new(ids, tokenizer.eos()),
        })
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("a number above 0; omit the flag for greedy decoding".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if 0.0 < number && number <= 1.0 => Ok(number),
        _ => Err("a number above 0, at most 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        decoding: DecodingArgs,
    }

    fn parse(flags: &str) -> Result<GenerationSettings> {
        let flags = std::iter::once("test").chain(flags.split_whitespace());
        let (flags, tokenizer) = (Cli::try_parse_from(flags)?.decoding, Tokenizer::ankh3());
        flags.settings(&flags.residues(&tokenizer)?, &tokenizer)
    }

    #[test]
    fn flags_become_a_strategy() {
        let sample = |temperature, top_k, top_p| {
            Strategy::Sample(Sampling {
                temperature,
                top_k,
                top_p,
            })
        };
        let beam = |num_beams, length_penalty| {
            Strategy::Beam(BeamSearch {
                num_beams,
                length_penalty,
            })
        };
        let table = [
            ("", Strategy::Greedy),
            ("--num-beams 1", Strategy::Greedy),
            ("--num-beams 4 --num-samples 4", beam(4, 1.0)),
            ("--num-beams 2 --length-penalty -0.5", beam(2, -0.5)),
            ("--temperature 0.7", sample(0.7, None, None)),
            ("--top-k 5 --num-samples 9", sample(1.0, Some(5), None)),
            ("--top-p 0.9", sample(1.0, None, Some(0.9))),
        ];
        for (flags, strategy) in table {
            assert_eq!(parse(flags).unwrap().strategy, strategy, "{flags}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let table = [
            ("--num-samples 3", "would all be the same"),
            ("--num-beams 2 --num-samples 3", "raise --num-beams"),
            ("--num-beams 2 --temperature 1", "cannot be used with"),
            ("--length-penalty 2", "--num-beams"),
            ("--temperature 0", "above 0"),
            ("--top-p 1.5", "at most 1"),
            ("--allow ACJ", "--allow: `J`"),
            ("--allow AC*", "--allow: `*`"),
        ];
        for (flags, expected) in table {
            let error = format!("{:#}", parse(flags).unwrap_err());
            assert!(error.contains(expected), "{flags}: {error}");
        }
    }
}
