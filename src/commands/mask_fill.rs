//! `ankh3 mask-fill`: FASTA with masks in, FASTA with the masks filled out, and what the model thought of each site.

mod result;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use super::Outcome;
use super::embed::report;
use super::opened::Opened;
use super::stream::{Stream, Work, refuse_chunks};
use crate::args::{InputArgs, ModelArgs, RuntimeArgs, ScaleArgs, at_least_one, usage};
use crate::inference::EncoderDecoder;
use crate::inference::fill::{FillOrder, Filler};
use crate::inference::masked::MaskedModel;
use crate::inference::residues::{Residues, STANDARD};
use crate::inference::token_budget::LoadedStacks;
use crate::input::sequences::Input;
use crate::io::stdio::{Content, Output, is_dash};
use crate::output::embeddings::remove_unfinished;
use crate::output::table::{Cell, Table, TableFormat, write_manifest};
use crate::output::text_merge::{Layout, TextFormat};
use crate::output::write_fasta::write_record;
use crate::sequence::{MASK, Masks, Rules, Sequence};

/// Fill masked residues: FASTA with masks in, FASTA with the most probable residues out
///
/// A mask is written `?`, `_`, `#`, `<mask>`, `[MASK]` or `<extra_id_N>` (any N: masks are numbered anew from the left). Each masked residue is a sentinel
/// of its own. Records without a mask pass through unchanged.
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
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
  So a site sees the residues chosen for the sites on its left, and its probabilities are given them. --order certain fills one site at a time, the most
  certain first, and encodes the protein anew with it: n masks cost n passes. With more masks than the vocabulary has sentinels, the first ones are filled
  while the others stand as X, then the next ones.

Examples:
  printf '>a\\nMKT?YIA<mask>QR\\n' | ankh3 mask-fill --model ankh3-large
  ankh3 mask-fill --model DIR --mask-x --order certain -o filled.fasta --sites sites.tsv --top-k 5 gaps.fasta";

/// How masks are filled.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Masks")]
struct HowArgs {
    /// Read X as a mask too.
    #[arg(long)]
    mask_x: bool,

    /// In which order the masks of a protein are filled.
    #[arg(long, value_enum, default_value = "left")]
    order: FillOrder,

    /// Residues that may be filled in; probabilities are normalised over them.
    #[arg(long, value_name = "LETTERS", default_value_t = String::from_utf8_lossy(STANDARD).into_owned())]
    allow: String,
}

/// Where the results go.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The FASTA file to write, `-` for stdout. It appears under its name only when it is complete.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Also write the most probable residues of every site: .tsv, .csv or .jsonl, `-` for stdout (then give -o a file).
    #[arg(long, value_name = "FILE")]
    sites: Option<PathBuf>,

    /// Residues a site in --sites.
    #[arg(long, value_name = "K", default_value = "3", value_parser = at_least_one, requires = "sites")]
    top_k: usize,
}

/// Columns of `--sites`: a line for each of a site's most probable residues.
const COLUMNS: [&str; 6] = ["id", "position", "filled", "rank", "residue", "probability"];

/// Runs the command.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &MaskFillArgs) -> Result<Outcome> {
    let masks = if args.how.mask_x {
        Masks::WordsAndX
    } else {
        Masks::Words
    };
    let options = args.input.options(Rules::masked(masks))?;
    refuse_chunks(&options.limit)?;
    let OutputArgs { output, sites, .. } = &args.output;
    ensure!(
        sites.as_ref().is_none_or(|sites| sites != output),
        usage(format_args!(
            "--sites and --output are both {}; give one of them another file",
            output.display()
        ))
    );
    let opened = Opened::on_all(&args.model, &args.runtime)?;
    let tokenizer = &opened.checkpoint.tokenizer;
    let residues = Residues::new(args.how.allow.as_bytes(), tokenizer).context("--allow")?;
    let manifest = manifest(args, &opened, &residues)?;
    let max_tokens = opened.batch_tokens(&args.runtime, LoadedStacks::Both);
    let at_hand = opened.tokens_at_hand(&args.runtime, max_tokens);
    let stream = Stream::new(&args.scale, output, &manifest, options.on_bad, at_hand)?;
    if let Some(sites) = sites.as_ref().filter(|_| args.scale.resume) {
        remove_unfinished(sites)?;
    }
    let fasta = Output::create(output, Content::Text)
        .with_context(|| format!("writing {}", output.display()))?;
    let table = sites.as_ref().map(|sites| {
        let format = TableFormat::from_extension(sites);
        let table = Table::create(sites, format, &COLUMNS);
        table.with_context(|| format!("writing {}", sites.display()))
    });
    let table = table.transpose()?;
    let mut input = Input::open(&args.input.files, options)?;
    let networks = opened.load_both_on_all()?;
    let stacks = networks.each(EncoderDecoder::from);
    let model = MaskedModel::new(stacks, tokenizer, opened.prefix, residues, max_tokens)?;
    let order = args.how.order;
    let mut fill = Fill {
        filler: Filler::new(model, order),
        order,
        fasta,
        layout: Layout::new(TextFormat::Fasta),
        table,
        top_k: args.output.top_k,
        unmasked: 0,
        filled: 0,
    };
    let mut items = input.by_ref().map(|item| Ok(item?));
    let (refused, journal) = stream.run(&mut items, &mut fill)?;
    tracing::info!(
        "{} masks filled; {} records had none and are unchanged",
        fill.filled,
        fill.unmasked
    );
    fill.fasta.finish()?;
    write_manifest(output, &described(&manifest, &fill.layout))?;
    if let Some(table) = fill.table {
        let manifest = described(&manifest, table.layout());
        table.finish()?;
        let sites = sites.as_ref().filter(|sites| !is_dash(sites));
        sites.map_or(Ok(()), |sites| write_manifest(sites, &manifest))?;
    }
    journal.map_or(Ok(()), crate::output::journal::Journal::remove)?;
    report(input.counts());
    Ok(if input.counts().is_partial() || refused > 0 {
        Outcome::SomeFailed
    } else {
        Outcome::Done
    })
}

/// How a file of this layout was made.
fn described(manifest: &Map<String, Value>, layout: &Layout) -> Map<String, Value> {
    let mut manifest = manifest.clone();
    layout.describe(&mut manifest);
    manifest
}

/// How the results are made.
fn manifest(
    args: &MaskFillArgs,
    opened: &Opened,
    residues: &Residues,
) -> Result<Map<String, Value>> {
    let mut manifest = opened.provenance("mask-fill")?;
    let mut put = |key: &str, value| manifest.insert(key.to_owned(), value);
    let order = match args.how.order {
        FillOrder::Left => "left",
        FillOrder::Certain => "certain",
    };
    put("order", json!(order));
    put("mask_x", json!(args.how.mask_x));
    put("allow", json!(String::from_utf8_lossy(residues.letters())));
    if let Some(shard) = args.scale.shard {
        put("shard", json!(shard.to_string()));
    }
    Ok(manifest)
}

/// Filling, and writing what was filled.
struct Fill<'a> {
    filler: Filler<'a>,
    order: FillOrder,
    fasta: Output,
    layout: Layout,
    table: Option<Table>,
    top_k: usize,
    unmasked: u64,
    filled: u64,
}

fn num_masks(sequence: &Sequence) -> usize {
    let residues = sequence.residues.iter();
    residues.map(|residue| usize::from(*residue == MASK)).sum()
}

impl Fill<'_> {
    fn tell_rounds(&self, sequence: &Sequence) {
        let masks = num_masks(sequence);
        let rounds = self.filler.rounds(masks);
        if rounds > 1 {
            let sentinels = self.filler.model().num_sentinels();
            tracing::warn!(
                "{}: {masks} masks, more than the {sentinels} sentinels of the vocabulary; filled in rounds of {sentinels}",
                super::stream::place(sequence)
            );
        }
    }
}

impl Work for Fill<'_> {
    fn tokens(&self, sequence: &Sequence) -> usize {
        let masks = num_masks(sequence);
        let passes = match self.order {
            FillOrder::Left => self.filler.rounds(masks),
            FillOrder::Certain => masks,
        };
        passes * (sequence.residues.len() + 2 * masks)
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Vec<u8>>>> {
        for sequence in group {
            self.tell_rounds(sequence);
        }
        let proteins: Vec<&[u8]> = group
            .iter()
            .map(|sequence| sequence.residues.as_slice())
            .collect();
        let filled = self.filler.fill(&proteins)?;
        Ok(filled
            .into_iter()
            .map(|filled| filled.as_ref().map(result::encode))
            .collect())
    }

    fn write(&mut self, sequence: &Sequence, bytes: &[u8]) -> Result<()> {
        let letters = self.filler.model().residues().letters().to_vec();
        let length = sequence.residues.len();
        let filled = result::decode(bytes, length, letters.len())?;
        let Sequence {
            id, description, ..
        } = sequence;
        write_record(&mut self.fasta, id, description, &filled.residues)?;
        self.layout.add(1);
        self.filled += filled.sites.len() as u64;
        self.unmasked += u64::from(filled.sites.is_empty());
        let Some(table) = &mut self.table else {
            return Ok(());
        };
        let mut sites = filled.sites;
        sites.sort_by_key(|site| site.position);
        for site in sites {
            for (rank, (column, log_prob)) in site.top(self.top_k).into_iter().enumerate() {
                table.row(&[
                    Cell::Text(id),
                    Cell::Count(site.position + 1),
                    Cell::Residue(site.residue),
                    Cell::Count(rank + 1),
                    Cell::Residue(letters[column]),
                    Cell::Number(log_prob.exp()),
                ])?;
            }
        }
        Ok(())
    }

    fn close_sequence(&mut self) {
        self.layout.close_sequence();
        if let Some(table) = &mut self.table {
            table.close_sequence();
        }
    }
}
