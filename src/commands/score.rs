//! `ankh3 score`: the probability of proteins, and the effects of substitutions.

mod answers;
mod dms;
mod rows;
mod target;
mod work;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use self::answers::AnswerJournal;
pub(super) use self::rows::SPEARMAN;
use self::rows::ScoreRows;
use self::target::ScoreTarget;
use self::work::Scoring;
use super::Outcome;
use super::conveyor::{Grouped, RunPlan};
use super::opened::Opened;
use crate::args::{
    InputArgs, InputSettings, ModelArgs, RuntimeArgs, ScaleArgs, UsageError, hidden, usage,
    whole_sequences,
};
use crate::inference::EncoderDecoder;
use crate::inference::masked::MaskedModel;
use crate::inference::residues::Residues;
use crate::inference::score::{EffectMethod, Masking, Scorer};
use crate::inference::token_budget::LoadedStacks;
use crate::input::sequences::Options;
use crate::io::stdio::Content;
use crate::output::manifest::Manifest;
use crate::output::table::{Table, TableFormat};
use crate::report::picture::Picture;
use crate::sequence::Rules;

/// The default share of residues that `--method wild-type` masks at once: the share in the training
/// of the model.
const FRACTION: f64 = 0.15;

/// Batches per group of proteins. The last batch of a group may not be full, which costs little if
/// a group has many batches.
const BATCHES: usize = 8;

/// Score proteins by pseudo-log-likelihood, or variants by their effect
///
/// Without --variants, --variant, --scan or --dms, the pseudo-log-likelihood and the
/// pseudo-perplexity of each protein are written. Only the 20 standard residues are scored, and
/// probabilities are normalised over them. Other letters (X B U Z O) stay as context.
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
#[command(mut_arg("over", whole_sequences), mut_arg("overlap", hidden))]
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
  log p(a at i)      log-softmax, over the 20 standard residues, of the decoder's logits after
                     <start> <extra_id_0>; the encoder reads the protein with <extra_id_0> in place
                     of residue i
  log_likelihood     sum over i of log p(x_i at i)
  pseudo_perplexity  exp(-log_likelihood / residues scored)
  --mask-fraction    Several residues are masked per copy, each residue in exactly one copy. The
                     decoder reads <start> <extra_id_0> x_a <extra_id_1> x_b …: the protein's own
                     residues at earlier masks. About 1/fraction passes instead of one per residue.

  --method masked    sum over the substitutions of log p(m_i at i) - log p(w_i at i), with i masked
                     alone
  --method wild-type the same sum, with several residues masked at once as in --mask-fraction (0.15
                     by default) and the wild type as the decoder's input. A T5 predicts only masked
                     residues, so it has no marginals of the unmasked protein as BERT-like models do.
  --method pll       log_likelihood(mutant) - log_likelihood(protein), all residues masked in turn
                     in both

Tables:
  --variants reads lines of id<tab>variant, or one variant per line for every protein, or any table
  with a header that has a column variant, mutant or mutation (and id or protein). A variant is A24G
  or p.Ala24Gly, or A24G:H30L for several substitutions. --dms reads tables of ProteinGym (mutant,
  mutated_sequence, DMS_score), takes the protein from them, and reports Spearman's correlation.
  Columns may be separated by tabs, commas or semicolons. --on-bad skip lists invalid rows and
  leaves them out.

Examples:
  ankh3 score --model nano proteins.fasta > scores.tsv
  ankh3 score --model nano --mask-fraction 0.15 --format jsonl proteins.fasta
  ankh3 score --model nano --scan --plot heat.png -o scan.tsv protein.fasta
  ankh3 score --model nano --variants variants.tsv --method pll -o effects.tsv proteins.fasta
  ankh3 score --model ankh3-large --dms BLAT_ECOLX_Stiffler_2015.csv -o blat.tsv";

/// Options of the scores.
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

    /// Mask this share of the residues at once, which is faster and approximate.
    #[arg(long, value_name = "F", value_parser = fraction)]
    mask_fraction: Option<f64>,

    /// Seed of the choice of residues that are masked together; a protein's id is part of it.
    #[arg(long, default_value = "0")]
    seed: u64,

    /// Write one row per residue instead of one row per protein.
    #[arg(long, conflicts_with = "effects")]
    per_residue: bool,

    /// Draw the scan of one protein as a heat map (.png or .svg).
    #[arg(
        long,
        value_name = "PICTURE",
        requires = "scan",
        conflicts_with = "shard"
    )]
    plot: Option<PathBuf>,
}

/// Options of the output.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The file to write, or `-` for stdout. A file appears under its name only when it is
    /// complete.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The format [default: by the file's extension; tsv on stdout].
    #[arg(long, value_enum)]
    format: Option<TableFormat>,
}

impl OutputArgs {
    fn format(&self) -> TableFormat {
        let by_extension = || TableFormat::from_extension(&self.output);
        self.format.unwrap_or_else(by_extension)
    }
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

/// Scores proteins or variants.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &ScoreArgs) -> Result<Outcome> {
    let output = &args.output.output;
    let picture = args.what.plot.as_deref().map(Picture::of_path).transpose();
    let picture = picture.map_err(usage)?;
    let options = args.input.options(Rules::default())?;
    let input = InputSettings::of(&options);
    let target = ScoreTarget::new(&args.what, options.on_bad)?;
    let masking = args.what.masking(target.has_variants())?;
    let mut plan = plan(args, options, &target)?;
    if picture.is_some() {
        plan.expect_one_protein()?;
    }
    let on_bad = plan.on_bad();
    let opened = Opened::on_all(&args.model, &args.runtime)?;
    let settings = ScoreSettings::new(args, &target, masking, input);
    let manifest = opened.manifest("score", &settings, args.scale.shard)?;
    let conveyor = plan.begin(&manifest.journal_key()?)?;
    let table = Table::create(output, args.output.format(), target.columns())
        .with_context(|| format!("writing {}", output.display()))?;
    let networks = opened.load_both_on_all()?;
    let stacks = networks.each(EncoderDecoder::from);
    let max_tokens = opened.batch_tokens(&args.runtime, LoadedStacks::Both);
    let (tokenizer, prefix) = (&opened.checkpoint.tokenizer, opened.prefix);
    let residues = Residues::standard(tokenizer)?;
    let model = MaskedModel::new(stacks, tokenizer, prefix, residues, max_tokens)?;
    let (scorer, answers) = scorer(model, args.scale.resume, output, &manifest)?;
    let method = args.what.method();
    let scoring = Scoring::new(scorer, &target, method, masking, answers, on_bad);
    let rows = ScoreRows::new(table, &target, output, manifest)
        .drawing(picture)
        .keeping_answers(args.scale.resume);
    let mut work = Grouped::new(scoring, BATCHES * max_tokens);
    let mut delivery = conveyor.carry(&mut work, rows)?;
    delivery.rows.left_out += work.work.check_unseen()?;
    delivery.finish()
}

/// The run over FASTA files, or over the proteins of deep mutational scans.
fn plan(args: &ScoreArgs, options: Options, target: &ScoreTarget) -> Result<RunPlan> {
    let plot = args.what.plot.iter();
    let plot = plot.map(|path| (path.as_path(), Content::Binary));
    let outputs = std::iter::once((args.output.output.as_path(), Content::Text));
    let outputs: Vec<_> = outputs.chain(plot).collect();
    match target.proteins() {
        Some(proteins) => RunPlan::of_sequences(proteins, options, &args.scale, &outputs),
        None => RunPlan::new(&args.input.files, options, &args.scale, &outputs),
    }
}

/// The scorer. With `--resume`, answers are stored, and the answers of an earlier run are not
/// computed again.
fn scorer<'a>(
    model: MaskedModel<'a>,
    resume: bool,
    output: &Path,
    manifest: &Manifest,
) -> Result<(Scorer<'a>, Option<AnswerJournal>)> {
    let scorer = Scorer::new(model);
    if !resume {
        return Ok((scorer, None));
    }
    let (journal, answers) = AnswerJournal::open(output, manifest)?;
    Ok((scorer.remembering(answers), Some(journal)))
}

/// What influences scores, for the manifest.
#[derive(Serialize)]
struct ScoreSettings {
    score: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variants_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_fraction: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    residues: &'static str,
    #[serde(flatten)]
    input: InputSettings,
}

impl ScoreSettings {
    fn new(args: &ScoreArgs, target: &ScoreTarget, masking: Masking, input: InputSettings) -> Self {
        let method = match args.what.method() {
            EffectMethod::WildType => "wild-type",
            EffectMethod::Masked => "masked",
            EffectMethod::PseudoLikelihood => "pll",
        };
        let (mask_fraction, seed) = match masking {
            Masking::Fraction { fraction, seed } => (Some(fraction), Some(seed)),
            Masking::Single => (None, None),
        };
        ScoreSettings {
            score: target.name(),
            method: target.has_variants().then_some(method),
            variants_sha256: target.hash().map(str::to_owned),
            mask_fraction,
            seed,
            residues: "ACDEFGHIKLMNPQRSTVWY",
            input,
        }
    }
}
