//! `ankh3 merge`: shards' files into one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::Outcome;
use super::embed::format_of;
use crate::args::usage;
use crate::output::embeddings::merge::merge;
use crate::output::embeddings::{Destination, Format, Reader};
use crate::output::text_merge::{self, Part};

/// Join the results of several runs into one file
///
/// Joins embeddings, or the FASTA files and tables of complete, mask-fill and score.
/// Shards written with `--shard I/N` become the very file that one run without shards would have written, byte for byte. Files without a shard are
/// laid end to end in the order given. All must have been made alike: same model, prefix, layers, pooling, number type, and whatever else makes the results.
/// FASTA files and tables need the FILE.json that `-o FILE` put beside them.
#[derive(Args, Clone, Debug)]
pub struct MergeArgs {
    /// Files to join: embeddings in any of the formats, or FASTA files, or tables.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The file to write, `-` for stdout.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The format of embeddings [default: by the file's extension; npz on stdout]. FASTA files and tables keep theirs.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// Runs the command.
///
/// # Errors
/// Files that do not belong together, or cannot be read or written.
pub fn run(args: &MergeArgs) -> Result<Outcome> {
    let mut parts = Vec::new();
    let mut embeddings = Vec::new();
    for file in &args.files {
        match Part::open(file)? {
            Some(part) => parts.push(part),
            None => embeddings.push(file.as_path()),
        }
    }
    let into = || format!("merging into {}", args.output.display());
    match (parts.first(), embeddings.first()) {
        (None, _) => merge_embeddings(args).with_context(into)?,
        (Some(_), None) => merge_text(args, parts).with_context(into)?,
        (Some(text), Some(other)) => bail!(
            "{} is a {}, and {} is not (or has no {}.json beside it, which `-o FILE` writes): merge files of one kind",
            text.path().display(),
            text.kind(),
            other.display(),
            other.display()
        ),
    }
    Ok(Outcome::Done)
}

fn merge_embeddings(args: &MergeArgs) -> Result<()> {
    let format = format_of(args.format, &args.output)?;
    let readers = args.files.iter().map(|file| open(file));
    let readers = readers.collect::<Result<Vec<_>, _>>()?;
    let merged = merge(readers, format, Destination::File(args.output.clone()))?;
    tracing::info!("{} proteins of {} files", merged.records, args.files.len());
    Ok(())
}

fn open(file: &Path) -> Result<Reader> {
    Reader::open(file).with_context(|| {
        format!(
            "{name} is no embedding file, and no {name}.json beside it says that it is a FASTA file or table of this program (`-o FILE` writes one)",
            name = file.display()
        )
    })
}

fn merge_text(args: &MergeArgs, parts: Vec<Part>) -> Result<()> {
    ensure!(
        args.format.is_none(),
        usage("--format is for embeddings; FASTA files and tables keep the format they have")
    );
    let files = parts.len();
    let rows = text_merge::merge(parts, &args.output)?;
    tracing::info!("{rows} records of {files} files");
    Ok(())
}
