//! `ankh3 complete`: the model completes the beginnings of sequences.

mod decoding;
mod plan;
mod text;
mod work;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::decoding::DecodingArgs;
use self::plan::{PromptPart, PromptRule, TargetLength};
use self::work::{Completing, CompletionTally};
use super::Outcome;
use super::conveyor::{RunPlan, TextRows};
use super::opened::Opened;
use crate::args::{
    InputArgs, InputSettings, ModelArgs, RuntimeArgs, ScaleArgs, UsageError, at_least_one, hidden,
    usage, whole_sequences,
};
use crate::checkpoint::Checkpoint;
use crate::inference::EncoderDecoder;
use crate::inference::generate::{Budget, GenerationSettings, Generators, Strategy};
use crate::inference::residues::Residues;
use crate::io::stdio::Content;
use crate::output::layout::TextFormat;
use crate::sequence::Rules;
use crate::tokenizer::TaskPrefix;

/// Complete proteins: FASTA in, FASTA out
///
/// The encoder reads `[prefix]`, the first part of a record and `</s>`; the decoder writes the
/// rest. The defaults are those of the authors of Ankh3: prefix `[S2S]`, the first half as the
/// prompt, greedy decoding, and exactly as many residues as are missing (`</s>` cannot be written
/// before). Only the 20 standard residues are written (--allow). A completion does not depend on
/// the batch, the order or the shard in which it is computed (on a CPU to the byte).
#[derive(Args, Clone, Debug)]
#[command(after_help = DETAILS)]
#[command(mut_arg("prefix", |arg| arg.help(PREFIX_HELP)))]
#[command(mut_arg("over", whole_sequences), mut_arg("overlap", hidden))]
pub struct CompleteArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    decoding: DecodingArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    scale: ScaleArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

const PREFIX_HELP: &str =
    "Task prefix in front of each prompt [default: s2s where the vocabulary has it, else none]";

const DETAILS: &str = "\
Headers: >ID/SAMPLE log_likelihood=… perplexity=… prompt=… new=… end=… decoding=… DESCRIPTION
  log_likelihood  Σ ln p(residue | prompt, residues before) over the residues written; p is the
                  softmax of the model's logits over the tokens that may be written there: the
                  residues of --allow, and </s> where the sequence may end. Temperature, top-k
                  and top-p have no influence on it, and </s> itself does not count.
  perplexity      exp(-log_likelihood / residues written)
  prompt, new     residues of the prompt, residues written
  end             eos: the model ended the sequence; length: it reached the length limit
  decoding        greedy; sample, with seed, temperature, top_k, top_p; beam, with num_beams,
                  length_penalty, score

Examples:
  ankh3 complete --model nano proteins.fasta > completed.fasta
  ankh3 complete --model nano --keep all --length max:300 --top-p 0.9 --num-samples 8 starts.fasta
  ankh3 complete --model nano --keep 30 --num-beams 4 --num-samples 4 -o best.fasta proteins.fasta";

/// Options of prompts and lengths.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What")]
struct WhatArgs {
    /// The part of each record that is the prompt: a share (rounded down), its first N residues, or
    /// all of it.
    #[arg(long, value_name = "0.5|N|all", default_value = "0.5")]
    keep: PromptPart,

    /// Residues of prompt and completion together.
    ///
    /// same: as many as the record has. N: exactly N. max:N: until `</s>`, at most N. eos: until
    /// `</s>`, at most 1024 new residues.
    #[arg(long, value_name = "same|N|max:N|eos", default_value = "same")]
    length: TargetLength,

    /// With --length max:N or eos, the number of residues before `</s>` may be written; at least
    /// one new residue is always written.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    min_length: Option<usize>,
}

impl WhatArgs {
    fn rule(&self) -> Result<PromptRule, UsageError> {
        let min_length = self.min_length.unwrap_or(0);
        let problem = match self.length {
            TargetLength::Same | TargetLength::Exactly(_) if min_length > 0 => format!(
                "--min-length is for --length max:N or eos; --length {} is exact",
                self.length
            ),
            TargetLength::AtMost(most) if min_length > most => {
                format!("--min-length {min_length} is more than --length max:{most}")
            }
            TargetLength::Same if self.keep == PromptPart::All => {
                "--keep all leaves nothing to write; say --length N, max:N or eos".to_owned()
            }
            _ => {
                return Ok(PromptRule {
                    keep: self.keep,
                    length: self.length,
                    min_length,
                });
            }
        };
        Err(usage(problem))
    }
}

/// Options of the output.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The file to write, or `-` for stdout. A file appears under its name only when it is
    /// complete, with its manifest FILE.json beside it.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The part of each sequence that is written.
    #[arg(long, value_enum, default_value = "full")]
    output_part: OutputPart,
}

/// The part of a sequence that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OutputPart {
    /// Prompt and completion
    Full,
    /// The new residues only
    Completion,
}

/// Completes the sequences of the input.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &CompleteArgs) -> Result<Outcome> {
    let rule = args.what.rule()?;
    // A strategy that the flags exclude is an error before the model, which takes long to load.
    args.decoding.strategy()?;
    let options = args.input.options(Rules::default())?;
    let input = InputSettings::of(&options);
    let output = &args.output.output;
    let outputs = [(output.as_path(), Content::Text)];
    let plan = RunPlan::new(&args.input.files, options, &args.scale, &outputs)?;
    let opened = Opened::on_all_with(&args.model, &args.runtime, default_prefix)?;
    let tokenizer = &opened.checkpoint.tokenizer;
    let residues = args.decoding.residues(tokenizer)?;
    let settings = args.decoding.settings(&residues, tokenizer)?;
    let described = CompleteSettings::new(args, &settings, &residues, input);
    let manifest = opened.manifest("complete", &described, args.scale.shard)?;
    let conveyor = plan.begin(&manifest.journal_key()?)?;
    let rows = TextRows::create(output, TextFormat::Fasta, b"", manifest)?;
    let networks = opened.load_both_on_all()?;
    let stacks = networks.each(EncoderDecoder::from);
    let budget = budget(&args.runtime, &opened);
    let mut work = Completing {
        generators: Generators::new(stacks, &settings, budget)?,
        tokenizer,
        prefix: opened.prefix,
        settings,
        rule,
        part: args.output.output_part,
        waiting: VecDeque::new(),
        tally: CompletionTally::default(),
    };
    let delivery = conveyor.carry(&mut work, rows)?;
    work.tally.log();
    delivery.finish()
}

/// The default prefix of completion: `[S2S]`, as in training, if the vocabulary has it.
fn default_prefix(checkpoint: &Checkpoint) -> TaskPrefix {
    if checkpoint.tokenizer.prefix_id(TaskPrefix::S2s).is_some() {
        return TaskPrefix::S2s;
    }
    tracing::warn!(
        "this model's vocabulary has no [S2S], so it was not trained to complete sequences; prompts get no prefix"
    );
    TaskPrefix::None
}

/// The sizes of batches. A step of the decoder computes one token per sequence, so it needs more
/// sequences than a batch of the encoder has, to keep the device busy.
fn budget(runtime: &RuntimeArgs, opened: &Opened) -> Budget {
    let batch_tokens = runtime.batch_tokens(&opened.compute);
    Budget {
        rows: runtime.max_batch_tokens.unwrap_or(4 * batch_tokens),
        batch_tokens,
    }
}

/// What influences completions, for the manifest.
#[derive(Serialize)]
struct CompleteSettings<'a> {
    keep: String,
    length: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_length: Option<usize>,
    decoding: Strategy,
    num_samples: usize,
    seed: u64,
    allow: Cow<'a, str>,
    output_part: OutputPart,
    #[serde(flatten)]
    input: InputSettings,
}

impl<'a> CompleteSettings<'a> {
    fn new(
        args: &CompleteArgs,
        settings: &GenerationSettings,
        residues: &'a Residues,
        input: InputSettings,
    ) -> Self {
        Self {
            keep: args.what.keep.to_string(),
            length: args.what.length.to_string(),
            min_length: args.what.min_length,
            decoding: settings.strategy,
            num_samples: settings.num_samples,
            seed: settings.seed,
            allow: String::from_utf8_lossy(residues.letters()),
            output_part: args.output.output_part,
            input,
        }
    }
}
