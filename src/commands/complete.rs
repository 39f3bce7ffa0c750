//! `ankh3 complete`: FASTA in, the sequences that the model makes of their beginnings out.
//!
//! Input (read ahead on a thread) → prompts → generator (one a device), which keeps as many sequences in work as have room → FASTA in input order, and the journal.

mod decoding;
mod plan;
mod run;
mod text;

use std::collections::VecDeque;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use self::decoding::DecodingArgs;
use self::plan::{Keep, Length, Rule};
use self::run::{Run, Tally};
use super::Outcome;
use super::embed::report;
use super::opened::Opened;
use super::stream::{open_journal, place, refuse_chunks};
use crate::args::{InputArgs, ModelArgs, RuntimeArgs, ScaleArgs, UsageError, at_least_one, usage};
use crate::checkpoint::Checkpoint;
use crate::inference::EncoderDecoder;
use crate::inference::generate::{Budget, GenerationSettings, Generators};
use crate::inference::residues::Residues;
use crate::input::sequences::Input;
use crate::io::stdio::{self, Content, Output};
use crate::output::text_merge::{Layout, TextFormat};
use crate::progress::Progress;
use crate::sequence::Rules;
use crate::tokenizer::TaskPrefix;

/// Complete proteins: FASTA in, FASTA out
///
/// The encoder reads [prefix] + the first part of a record + </s>, the decoder writes the rest. As the authors of Ankh3 do it unless told otherwise:
/// prefix [S2S], the first half as the prompt, greedy, exactly as many residues as are missing (</s> cannot be written until then).
/// Only the 20 standard residues are written (--allow). A sequence is the same whatever is computed with it (on a CPU to the byte): alone or in a
/// batch, in whatever order or shard.
#[derive(Args, Clone, Debug)]
#[command(after_help = DETAILS)]
#[command(mut_arg("prefix", |arg| arg.help(PREFIX_HELP)))]
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
                  softmax of the model's logits over what may be written there: the residues of
                  --allow, and </s> where the sequence may end. Temperature, top-k and top-p do
                  not enter, nor does </s> itself.
  perplexity      exp(-log_likelihood / residues written)
  prompt, new     residues of the prompt, residues written
  end             eos: the model ended the sequence; length: it was as long as it may be
  decoding        greedy; sample, with seed, temperature, top_k, top_p; beam, with num_beams,
                  length_penalty, score

Examples:
  ankh3 complete --model ankh3-large proteins.fasta > completed.fasta
  ankh3 complete --model DIR --keep all --length max:300 --top-p 0.9 --num-samples 8 starts.fasta
  ankh3 complete --model DIR --keep 30 --num-beams 4 --num-samples 4 -o best.fasta proteins.fasta";

/// What is completed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What")]
struct WhatArgs {
    /// The part of each record that is the prompt: a share (rounded down), its first N residues, or all.
    #[arg(long, value_name = "0.5|N|all", default_value = "0.5")]
    keep: Keep,

    /// Residues of the whole, prompt and completion: as many as the record (same), N, at most N (max:N; ends at </s>), or until </s> (eos; at most
    /// 1024 new ones).
    #[arg(long, value_name = "same|N|max:N|eos", default_value = "same")]
    length: Length,

    /// With --length max:N or eos: residues of the whole before </s> may be written (one new residue is written in any case).
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    min_length: Option<usize>,
}

impl WhatArgs {
    fn rule(&self) -> Result<Rule, UsageError> {
        let min_length = self.min_length.unwrap_or(0);
        let problem = match self.length {
            Length::Same | Length::Exactly(_) if min_length > 0 => format!(
                "--min-length is for --length max:N or eos; --length {} is exact",
                self.length
            ),
            Length::AtMost(most) if min_length > most => {
                format!("--min-length {min_length} is more than --length max:{most}")
            }
            Length::Same if self.keep == Keep::All => {
                "--keep all leaves nothing to write; say --length N, max:N or eos".to_owned()
            }
            _ => {
                return Ok(Rule {
                    keep: self.keep,
                    length: self.length,
                    min_length,
                });
            }
        };
        Err(usage(problem))
    }
}

/// Where the sequences go.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The file to write, `-` for stdout. It appears under its name only when it is complete, with FILE.json beside it, which says how it was made.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// What is written of each sequence.
    #[arg(long, value_enum, default_value = "full")]
    output_part: Part,
}

/// What is written of each sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Prompt and completion.
    Full,
    /// The new residues only.
    Completion,
}

/// Runs the command.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &CompleteArgs) -> Result<Outcome> {
    let rule = args.what.rule()?;
    args.decoding.strategy()?;
    let options = args.input.options(Rules::default())?;
    refuse_chunks(&options.limit)?;
    let output = &args.output.output;
    ensure!(
        !(args.scale.resume && stdio::is_dash(output)),
        usage("--resume needs a file: add -o FILE")
    );
    let opened = Opened::on_all_with(&args.model, &args.runtime, default_prefix)?;
    let tokenizer = &opened.checkpoint.tokenizer;
    let residues = args.decoding.residues(tokenizer)?;
    let settings = args.decoding.settings(&residues, tokenizer)?;
    let mut manifest = opened.provenance("complete")?;
    describe(&mut manifest, args, &settings, &residues)?;
    let on_bad = options.on_bad;
    let (replay, journal) = open_journal(&args.scale, output, &manifest)?;
    let fasta = Output::create(output, Content::Text)
        .with_context(|| format!("writing {}", output.display()))?;
    let input = Input::open(&args.input.files, options)?;
    let networks = opened.load_both_on_all()?;
    let stacks = networks.each(EncoderDecoder::from);
    let budget = budget(&args.runtime, &opened);
    let run = Run {
        generators: Generators::new(stacks, &settings, budget)?,
        tokenizer,
        prefix: opened.prefix,
        settings,
        rule,
        part: args.output.output_part,
        pending: VecDeque::new(),
        passed_over: 0,
        fasta,
        layout: Layout::new(TextFormat::Fasta),
        output,
        manifest,
        replay,
        journal,
        progress: Progress::new(),
        on_bad,
        shard: args.scale.shard,
        tally: Tally::default(),
    };
    run.all(input)
}

/// `[S2S]`, with which completion was trained, where the vocabulary has it.
fn default_prefix(checkpoint: &Checkpoint) -> TaskPrefix {
    if checkpoint.tokenizer.prefix_id(TaskPrefix::S2s).is_some() {
        return TaskPrefix::S2s;
    }
    tracing::warn!(
        "this model's vocabulary has no [S2S], so it was not trained to complete sequences; prompts get no prefix"
    );
    TaskPrefix::None
}

/// Rows beyond what the encoder reads at once: a step of the decoder is one token a sequence, and more of them keep the device busy.
fn budget(runtime: &RuntimeArgs, opened: &Opened) -> Budget {
    let batch_tokens = runtime.batch_tokens(&opened.compute);
    Budget {
        rows: runtime.max_batch_tokens.unwrap_or(4 * batch_tokens),
        batch_tokens,
    }
}

/// What this command adds to the provenance: everything that influences the result.
fn describe(
    manifest: &mut Map<String, Value>,
    args: &CompleteArgs,
    settings: &GenerationSettings,
    residues: &Residues,
) -> Result<()> {
    let mut put = |key: &str, value: Value| manifest.insert(key.to_owned(), value);
    put("keep", json!(args.what.keep.to_string()));
    put("length", json!(args.what.length.to_string()));
    if let Some(min_length) = args.what.min_length {
        put("min_length", json!(min_length));
    }
    put("decoding", serde_json::to_value(settings.strategy)?);
    put("num_samples", json!(settings.num_samples));
    put("seed", json!(settings.seed));
    put("allow", json!(String::from_utf8_lossy(residues.letters())));
    let part = match args.output.output_part {
        Part::Full => "full",
        Part::Completion => "completion",
    };
    put("output_part", json!(part));
    let limit = args.input.options(Rules::default())?.limit;
    if limit.max_length().is_some() {
        put("length_limit", serde_json::to_value(limit)?);
    }
    if let Some(shard) = args.scale.shard {
        put("shard", json!(shard.to_string()));
    }
    Ok(())
}
