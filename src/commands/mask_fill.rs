//! `ankh3 mask-fill`: fills the masks of sequences, and lists the most probable residues of each
//! site.

mod rows;

use std::borrow::Cow;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use self::rows::FillRows;
use super::Outcome;
use super::conveyor::{GroupWork, Grouped, RunPlan, described_place};
use super::opened::Opened;
use crate::args::{
    InputArgs, InputSettings, ModelArgs, RuntimeArgs, ScaleArgs, at_least_one, hidden, usage,
    whole_sequences,
};
use crate::inference::EncoderDecoder;
use crate::inference::fill::{FillOrder, Filled, Filler};
use crate::inference::masked::{MaskedModel, TOKENS_PER_MASK};
use crate::inference::residues::{Residues, STANDARD};
use crate::inference::token_budget::LoadedStacks;
use crate::io::stdio::Content;
use crate::sequence::{MASK, Masks, Rules, Sequence};

/// Batches per group of proteins. The last batch of a group may not be full, which costs little if
/// a group has many batches.
const BATCHES: usize = 8;

/// Fill masked residues: FASTA with masks in, FASTA with the most probable residues out
///
/// A mask is written `?`, `_`, `#`, `<mask>`, `[MASK]` or `<extra_id_N>` (N does not count: masks
/// are numbered from the left). Each masked residue gets a sentinel of its own. Records without a
/// mask are written unchanged.
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
#[command(mut_arg("over", whole_sequences), mut_arg("overlap", hidden))]
pub struct MaskFillArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    scale: ScaleArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

const NOTES: &str = "\
How a site is filled:
  r_k = argmax p(· | encoder_input, r_0 … r_{k-1}), a softmax over the residues of --allow alone
  encoder_input  [NLU] M <extra_id_0> A Y <extra_id_1> L </s>
  decoder_input  <start> <extra_id_0> r_0 <extra_id_1>
  The probabilities of a site are conditioned on the residues chosen for the sites on its left.
  --order certain fills one site at a time, the most certain first, and encodes the protein again
  after each: n masks cost n passes. Where a protein has more masks than the vocabulary has
  sentinels, masks are filled in rounds from the left; masks of later rounds are read as X.

Examples:
  printf '>a\\nMKT?YIA<mask>QR\\n' | ankh3 mask-fill --model nano
  ankh3 mask-fill --model nano --mask-x --order certain -o filled.fasta --sites sites.tsv --top-k 5 gaps.fasta";

/// Options of filling.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Masks")]
struct HowArgs {
    /// Read X as a mask too.
    #[arg(long)]
    mask_x: bool,

    /// The order in which the masks of a protein are filled.
    #[arg(long, value_enum, default_value = "left")]
    order: FillOrder,

    /// Residues that may be filled in; probabilities are normalised over them.
    #[arg(long, value_name = "LETTERS", default_value_t = String::from_utf8_lossy(STANDARD).into_owned())]
    allow: String,
}

/// Options of the output.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The FASTA file to write, or `-` for stdout. A file appears under its name only when it is
    /// complete.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// A second file to write, with the most probable residues of every site: .tsv, .csv, .jsonl,
    /// or `-` for stdout (then give -o a file).
    #[arg(long, value_name = "FILE")]
    sites: Option<PathBuf>,

    /// Residues per site in --sites.
    #[arg(long, value_name = "K", default_value = "3", value_parser = at_least_one, requires = "sites")]
    top_k: usize,
}

impl HowArgs {
    fn masks(&self) -> Masks {
        if self.mask_x {
            Masks::WordsAndX
        } else {
            Masks::Words
        }
    }
}

/// Fills the masks of the input.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &MaskFillArgs) -> Result<Outcome> {
    let OutputArgs { output, sites, .. } = &args.output;
    ensure!(
        sites.as_ref().is_none_or(|sites| sites != output),
        usage(format_args!(
            "--sites and --output are both {}; give one of them another file",
            output.display()
        ))
    );
    let options = args.input.options(Rules::masked(args.how.masks()))?;
    let input = InputSettings::of(&options);
    let outputs = std::iter::once(output).chain(sites);
    let outputs: Vec<_> = outputs
        .map(|path| (path.as_path(), Content::Text))
        .collect();
    let plan = RunPlan::new(&args.input.files, options, &args.scale, &outputs)?;
    let opened = Opened::on_all(&args.model, &args.runtime)?;
    let (tokenizer, prefix) = (&opened.checkpoint.tokenizer, opened.prefix);
    let residues = Residues::new(args.how.allow.as_bytes(), tokenizer).context("--allow")?;
    let settings = FillSettings::new(args, &residues, input);
    let manifest = opened.manifest("mask-fill", &settings, args.scale.shard)?;
    let conveyor = plan.begin(&manifest.journal_key()?)?;
    let rows = FillRows::create(&args.output, residues.letters(), manifest)?;
    let networks = opened.load_both_on_all()?;
    let stacks = networks.each(EncoderDecoder::from);
    let max_tokens = opened.batch_tokens(&args.runtime, LoadedStacks::Both);
    let tokens_per_group = opened.tokens_per_group(&args.runtime, max_tokens);
    let model = MaskedModel::new(stacks, tokenizer, prefix, residues, max_tokens)?;
    let order = args.how.order;
    let filling = Filling {
        filler: Filler::new(model, order),
        order,
    };
    let mut work = Grouped::new(filling, BATCHES * tokens_per_group);
    conveyor.carry(&mut work, rows)?.finish()
}

/// What influences the residues filled in, for the manifest.
#[derive(Serialize)]
struct FillSettings<'a> {
    order: &'static str,
    mask_x: bool,
    allow: Cow<'a, str>,
    #[serde(flatten)]
    input: InputSettings,
}

impl<'a> FillSettings<'a> {
    fn new(args: &MaskFillArgs, residues: &'a Residues, input: InputSettings) -> Self {
        FillSettings {
            order: match args.how.order {
                FillOrder::Left => "left",
                FillOrder::Certain => "certain",
            },
            mask_x: args.how.mask_x,
            allow: String::from_utf8_lossy(residues.letters()),
            input,
        }
    }
}

/// Fills the masks of groups of proteins.
struct Filling<'a> {
    filler: Filler<'a>,
    order: FillOrder,
}

impl Filling<'_> {
    /// Warns of more masks than the vocabulary has sentinels.
    fn log_rounds(&self, sequence: &Sequence) {
        let masks = num_masks(sequence);
        if self.filler.rounds(masks) > 1 {
            let sentinels = self.filler.model().num_sentinels();
            tracing::warn!(
                "{}: {masks} masks, more than the {sentinels} sentinels of the vocabulary; filled in rounds of {sentinels}",
                described_place(sequence)
            );
        }
    }
}

impl GroupWork for Filling<'_> {
    type Output = Filled;

    fn tokens(&self, sequence: &Sequence) -> usize {
        let masks = num_masks(sequence);
        let passes = match self.order {
            FillOrder::Left => self.filler.rounds(masks),
            FillOrder::Certain => masks,
        };
        passes * (sequence.residues.len() + TOKENS_PER_MASK * masks)
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Filled>>> {
        for sequence in group {
            self.log_rounds(sequence);
        }
        let proteins = group.iter().map(|sequence| sequence.residues.as_slice());
        Ok(self.filler.fill(&proteins.collect::<Vec<_>>())?)
    }
}

fn num_masks(sequence: &Sequence) -> usize {
    let residues = sequence.residues.iter();
    residues.map(|residue| usize::from(*residue == MASK)).sum()
}
