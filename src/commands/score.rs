//! `ankh3 score`: how probable proteins are, and what substitutions do to them.

mod dms;
mod kept;
mod task;
mod work;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use self::kept::Kept;
use self::task::Task;
use self::work::Scoring;
use super::Outcome;
use super::embed::report;
use super::opened::Opened;
use super::stream::{Stream, refuse_chunks};
use crate::args::{InputArgs, ModelArgs, RuntimeArgs, ScaleArgs, UsageError, usage};
use crate::inference::EncoderDecoder;
use crate::inference::masked::MaskedModel;
use crate::inference::residues::Residues;
use crate::inference::score::{EffectMethod, Masking, Scorer};
use crate::inference::token_budget::LoadedStacks;
use crate::input::sequences::{Input, Item};
use crate::output::table::{Table, TableFormat, write_manifest};
use crate::report::picture::{self, Picture};
use crate::sequence::Rules;

/// Masked at once where `--method wild-type` is asked for without a fraction: what the model was trained on.
const FRACTION: f64 = 0.15;

/// Score proteins by pseudo-log-likelihood, or variants by their effect
///
/// Without --variants, --variant, --scan or --dms: the pseudo-log-likelihood and pseudo-perplexity of each protein. The 20 standard residues are scored and
/// compete with each other alone; others (X B U Z O) stay as context.
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
pub struct ScoreArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    scale: ScaleArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

const NOTES: &str = "\
Formulas (positions count from 1; w is the protein's residue, m the mutant's; higher is better):
  log p(a at i)      log-softmax over the 20 standard residues of the decoder's logits after <start> <extra_id_0>, where the encoder reads the protein with
                     <extra_id_0> in place of residue i
  log_likelihood     sum over i of log p(x_i at i)
  pseudo_perplexity  exp(-log_likelihood / residues scored)
  --mask-fraction    several residues a copy, each in exactly one copy: the decoder reads <start> <extra_id_0> x_a <extra_id_1> x_b …, the protein's own residues
                     at earlier masks. About 1/fraction passes instead of one a residue

  --method masked    sum over the substitutions of log p(m_i at i) - log p(w_i at i), i masked alone
  --method wild-type the same sum, but several residues are masked at once as with --mask-fraction (0.15 unless given) and the decoder is fed the wild type. A T5
                     names only what it does not see, so the marginal of the unmasked protein, as for BERT-like models, does not exist for it
  --method pll       log_likelihood(mutant) - log_likelihood(protein), all residues masked in turn in both

Tables: --variants reads lines of id<tab>variant (or comma), or one variant a line for every protein; a variant is A24G, or A24G:H30L for several substitutions.
--dms reads CSV files of ProteinGym (mutant, mutated_sequence, DMS_score), takes the protein from them, and reports Spearman's correlation.

Examples:
  ankh3 score --model ankh3-large proteins.fasta > scores.tsv
  ankh3 score --model DIR --mask-fraction 0.15 --format jsonl proteins.fasta
  ankh3 score --model DIR --scan --plot heat.png -o scan.tsv protein.fasta
  ankh3 score --model DIR --variants variants.tsv --method pll -o effects.tsv proteins.fasta
  ankh3 score --model DIR --dms BLAT_ECOLX_Stiffler_2015.csv -o blat.tsv";

/// What is scored, and how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What")]
struct WhatArgs {
    /// Score the variants of this table.
    #[arg(long, value_name = "FILE", group = "effects")]
    variants: Option<PathBuf>,

    /// Score this variant of every protein; may be given several times.
    #[arg(long, value_name = "A24G:H30L", group = "effects")]
    variant: Vec<String>,

    /// Score all single substitutions.
    #[arg(long, group = "effects")]
    scan: bool,

    /// Score a deep mutational scan of ProteinGym; may be given several times. No FASTA is read.
    #[arg(long, value_name = "CSV", group = "effects", conflicts_with = "files")]
    dms: Vec<PathBuf>,

    /// How variants are scored [default: masked].
    #[arg(long, value_enum, requires = "effects")]
    method: Option<EffectMethod>,

    /// Mask this share of the residues at once: faster and approximate.
    #[arg(long, value_name = "F", value_parser = fraction)]
    mask_fraction: Option<f64>,

    /// Decides, together with a protein's id, which residues are masked together.
    #[arg(long, default_value = "0")]
    seed: u64,

    /// One row a residue instead of one a protein.
    #[arg(long, conflicts_with = "effects")]
    per_residue: bool,

    /// Draw the scan of one protein as a heat map: .png or .svg.
    #[arg(
        long,
        value_name = "PICTURE",
        requires = "scan",
        conflicts_with = "shard"
    )]
    plot: Option<PathBuf>,
}

/// Where the scores go.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The file to write, `-` for stdout. It appears under its name only when it is complete.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The format [default: by the file's extension; tsv on stdout].
    #[arg(long, value_enum)]
    format: Option<TableFormat>,
}

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if 0.0 < fraction && fraction <= 1.0 => Ok(fraction),
        _ => Err("a number above 0 and at most 1, such as 0.15".to_owned()),
    }
}

impl WhatArgs {
    fn method(&self) -> EffectMethod {
        self.method.unwrap_or(EffectMethod::Masked)
    }

    /// How many residues are masked at once; `effects` says whether variants are scored.
    fn masking(&self, effects: bool) -> Result<Masking, UsageError> {
        let seed = self.seed;
        let fraction = match (effects.then(|| self.method()), self.mask_fraction) {
            (Some(EffectMethod::WildType), fraction) => Some(fraction.unwrap_or(FRACTION)),
            (_, None) => None,
            (Some(EffectMethod::Masked), Some(_)) => {
                return Err(usage(
                    "--method masked masks one residue at a time; with --mask-fraction choose --method wild-type or pll",
                ));
            }
            (_, fraction) => fraction,
        };
        Ok(
            fraction.map_or(Masking::Single, |fraction| Masking::Fraction {
                fraction,
                seed,
            }),
        )
    }
}

/// Runs the command.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &ScoreArgs) -> Result<Outcome> {
    let picture = args
        .what
        .plot
        .as_deref()
        .map(Picture::of_path)
        .transpose()
        .map_err(usage)?;
    let options = args.input.options(Rules::default())?;
    refuse_chunks(&options.limit)?;
    let on_bad = options.on_bad;
    let mut task = Task::new(&args.what, on_bad)?;
    let masking = args.what.masking(task.has_variants())?;
    let opened = Opened::on_all(&args.model, &args.runtime)?;
    let mut manifest = opened.provenance("score")?;
    describe(&mut manifest, args, &task, masking);
    let max_tokens = opened.batch_tokens(&args.runtime, LoadedStacks::Both);
    let output = &args.output.output;
    let stream = Stream::new(&args.scale, output, &manifest, on_bad, max_tokens)?;
    let format = args.output.format;
    let format = format.unwrap_or_else(|| TableFormat::from_extension(output));
    let table = Table::create(output, format, task.columns())
        .with_context(|| format!("writing {}", output.display()))?;
    let mut input = match task.take_proteins() {
        Some(proteins) => Proteins::Known(proteins.into_iter()),
        None => Proteins::Read(Box::new(Input::open(&args.input.files, options)?)),
    };
    let one = picture.as_ref().map(|_| input.only()).transpose()?;
    let networks = opened.load_both_on_all()?;
    let tokenizer = &opened.checkpoint.tokenizer;
    let stacks = networks.each(EncoderDecoder::from);
    let residues = Residues::standard(tokenizer)?;
    let model = MaskedModel::new(stacks, tokenizer, opened.prefix, residues, max_tokens)?;
    let how = (args.what.method(), masking);
    let (scorer, kept) = scorer(model, args.scale.resume, output, &manifest)?;
    let mut scoring = Scoring::new(scorer, task, how, (table, kept), on_bad);
    let mut items = one.into_iter().map(Ok).chain(&mut input);
    let (refused, journal) = stream.run(&mut items, &mut scoring)?;
    drop(items);
    let done = scoring.finish(&mut manifest)?;
    if let (Some(picture), Some(map)) = (picture, &done.heatmap) {
        picture::draw(&picture, map)
            .with_context(|| format!("drawing {}", picture.path.display()))?;
    }
    write_manifest(output, &manifest)?;
    if let Some(journal) = journal {
        kept::remove(output)?;
        journal.remove()?;
    }
    let partial = match &input {
        Proteins::Read(input) => {
            report(input.counts());
            input.counts().is_partial()
        }
        Proteins::Known(_) => false,
    };
    Ok(if partial || refused + done.left_out > 0 {
        Outcome::SomeFailed
    } else {
        Outcome::Done
    })
}

/// A scorer; with --resume one that keeps its answers, and does not ask again for those of an earlier run.
fn scorer<'a>(
    model: MaskedModel<'a>,
    resume: bool,
    output: &Path,
    manifest: &Map<String, Value>,
) -> Result<(Scorer<'a>, Option<Kept>)> {
    let scorer = Scorer::new(model);
    if !resume {
        return Ok((scorer, None));
    }
    let (kept, answers) = Kept::open(output, manifest)?;
    Ok((scorer.remembering(answers), Some(kept)))
}

/// Proteins of FASTA files, or those that deep mutational scans brought along.
enum Proteins {
    Read(Box<Input>),
    Known(std::vec::IntoIter<Item>),
}

impl Iterator for Proteins {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        match self {
            Proteins::Read(input) => Some(input.next()?.map_err(Into::into)),
            Proteins::Known(items) => items.next().map(Ok),
        }
    }
}

impl Proteins {
    /// The only protein.
    fn only(&mut self) -> Result<Item> {
        let first = self.next().context("no sequence to draw")??;
        ensure!(
            self.next().transpose()?.is_none(),
            usage("--plot draws one protein, and the input has more; give it one record")
        );
        Ok(first)
    }
}

/// What this command adds to the provenance.
fn describe(manifest: &mut Map<String, Value>, args: &ScoreArgs, task: &Task, masking: Masking) {
    let mut put = |key: &str, value: Value| manifest.insert(key.to_owned(), value);
    put("score", json!(task.name()));
    if task.has_variants() {
        let method = match args.what.method() {
            EffectMethod::WildType => "wild-type",
            EffectMethod::Masked => "masked",
            EffectMethod::PseudoLikelihood => "pll",
        };
        put("method", json!(method));
    }
    if let Some(hash) = task.hash() {
        put("variants_sha256", json!(hash));
    }
    if let Masking::Fraction { fraction, seed } = masking {
        put("mask_fraction", json!(fraction));
        put("seed", json!(seed));
    }
    put("residues", json!("ACDEFGHIKLMNPQRSTVWY"));
    if let Some(shard) = args.scale.shard {
        put("shard", json!(shard.to_string()));
    }
}
