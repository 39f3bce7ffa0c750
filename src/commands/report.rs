//! `ankh3 report`: the results of a run as one HTML page.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Outcome;
use super::distinct::check_paths;
use crate::args::at_least_one;
use crate::io::stdio::{Content, Output};
use crate::report::page::{Limits, read, render};
use crate::sequence::counted;

/// Show the results of a run as one HTML page
///
/// Reads the outputs of the other commands and recognises each by its content: embeddings,
/// completions and other FASTA, tables of scores, variants, filled sites, contacts and evaluations,
/// contacts in CASP's RR format, the log and recipe of a training run, and the .json files that
/// record how results were made. The page has tables, charts, contact maps and the provenance of
/// every file. The page needs no other file, no network and no script. The same files give the same
/// page, byte for byte.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// Result files, or folders with result files.
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,

    /// The page to write, `-` for stdout.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The title of the page.
    #[arg(long, default_value = "ankh3 report")]
    title: String,

    /// Rows to show per table.
    #[arg(long, value_name = "N", default_value = "50", value_parser = at_least_one)]
    rows: usize,

    /// Contact maps to show per file.
    #[arg(long, value_name = "N", default_value = "12", value_parser = at_least_one)]
    maps: usize,
}

const EXAMPLES: &str = "\
Examples:
  ankh3 report -o report.html embeddings.h5 contacts.rr
  ankh3 report -o report.html measures.tsv precision.tsv scan.csv
  ankh3 report -o report.html --title 'Lysozymes' run/log.jsonl run/recipe.toml completions.fasta scores.tsv
  ankh3 report -o report.html results/";

/// Writes the page.
///
/// # Errors
/// A damaged file, a file that is no result, a page that cannot be written.
pub fn run(args: &ReportArgs) -> Result<Outcome> {
    let (paths, others) = read::gather(&args.files)?;
    for path in others {
        tracing::warn!("left out, not a result: {}", path.display());
    }
    ensure!(
        !paths.is_empty(),
        "nothing to report: the given folders have no result files"
    );
    check_paths(&paths, std::iter::once(args.output.as_path()))?;
    let files = paths
        .iter()
        .map(|path| read::result_file(path))
        .collect::<Result<Vec<_>, _>>()?;
    let limits = Limits {
        rows: args.rows,
        maps: args.maps,
    };
    let page = render(&args.title, &files, limits)?;
    let writing = || format!("writing {}", args.output.display());
    let mut output = Output::create(&args.output, Content::Text).with_context(writing)?;
    output.write_all(page.as_bytes()).with_context(writing)?;
    output.finish().with_context(writing)?;
    tracing::info!("report of {}", counted(files.len(), "file"));
    Ok(Outcome::Done)
}
