//! `ankh3 merge`: shards' embeddings into one file.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::Outcome;
use super::embed::{FormatArg, format_of};
use crate::io::embeddings::merge::merge;
use crate::io::embeddings::{Destination, Reader};

/// Join embedding files into one
///
/// Shards written with `--shard I/N` become the very file that one run without shards would have written, byte for byte. Files without a shard are
/// laid end to end in the order given. All must have been made alike: same model, prefix, layers, pooling, number type.
#[derive(Args, Clone, Debug)]
pub struct MergeArgs {
    /// Files to join, in any of the formats.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The file to write, `-` for stdout.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The format [default: by the file's extension; npz on stdout].
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
}

/// Runs the command.
///
/// # Errors
/// Files that do not belong together, or cannot be read or written.
pub fn run(args: &MergeArgs) -> Result<Outcome> {
    let format = format_of(args.format, &args.output)?;
    let readers = args
        .files
        .iter()
        .map(|file| Reader::open(file))
        .collect::<Result<Vec<_>, _>>()?;
    let merged = merge(readers, format, Destination::File(args.output.clone()))
        .with_context(|| format!("merging into {}", args.output.display()))?;
    tracing::info!("{} proteins of {} files", merged.records, args.files.len());
    Ok(Outcome::Done)
}
