//! `ankh3 report`: a run's results as one page.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Outcome;
use crate::args::at_least_one;
use crate::io::stdio::{Content, Output};
use crate::report::page::{Limits, page, read};

/// Show the results of a run as one HTML page
///
/// Reads what the other commands write, told by its contents: embeddings, completions and other FASTA, tables of scores, variants, filled sites and contacts, contacts
/// in CASP's RR format, the log and recipe of a training run, and the .json files that say how results were made. The page needs no other file, no network
/// and no script: tables, contact maps, histograms of lengths and perplexities, and the provenance of every file. The same files give the same bytes.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// Result files, or folders of them.
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,

    /// The page to write, `-` for stdout.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// What the page is called.
    #[arg(long, default_value = "ankh3 report")]
    title: String,

    /// Rows of a table that are shown.
    #[arg(long, value_name = "N", default_value = "50", value_parser = at_least_one)]
    rows: usize,

    /// Contact maps that are shown of a file.
    #[arg(long, value_name = "N", default_value = "12", value_parser = at_least_one)]
    maps: usize,
}

const EXAMPLES: &str = "\
Examples:
  ankh3 report -o report.html embeddings.h5 contacts.rr
  ankh3 report -o report.html --title 'Lysozymes' run/log.jsonl run/recipe.toml completions.fasta scores.tsv
  ankh3 report -o report.html results/";

/// Runs the command.
///
/// # Errors
/// A file that is damaged or no result, and a page that cannot be written.
pub fn run(args: &ReportArgs) -> Result<Outcome> {
    let (files, left_out) = read::gather(&args.files)?;
    for file in left_out {
        tracing::warn!("left out, no result: {}", file.display());
    }
    ensure!(
        !files.is_empty(),
        "nothing to report: no result file was found in what was given"
    );
    let sources = files
        .iter()
        .map(|file| read::source(file))
        .collect::<Result<Vec<_>, _>>()?;
    let limits = Limits {
        rows: args.rows,
        maps: args.maps,
    };
    let page = page::render(&args.title, &sources, limits)?;
    let writing = || format!("writing {}", args.output.display());
    let mut output = Output::create(&args.output, Content::Text).with_context(writing)?;
    output.write_all(page.as_bytes()).with_context(writing)?;
    output.finish().with_context(writing)?;
    tracing::info!("report of {} files", sources.len());
    Ok(Outcome::Done)
}
