//! `ankh3 inspect`: shows the content of a checkpoint or an embedding file.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::checkpoint::inspect::CheckpointSummary;
use crate::checkpoint::{Checkpoint, Hub, ModelRef};
use crate::output::embeddings::inspect::{EmbeddingSummary, inspect};
use crate::shown::shown;

/// Show the content of a checkpoint directory or an embedding file
///
/// For embeddings: proteins, residues, columns, the range of values and how they were made. For a
/// checkpoint: shape, number types, files and tokenizer.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// A checkpoint directory, a model's name (`ankh3 models` lists them), or a file written by
    /// `ankh3 embed`.
    #[arg(value_name = "PATH|NAME")]
    path: PathBuf,

    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Prints the summary to `out`.
///
/// # Errors
/// A path that is neither a checkpoint nor an embedding file.
pub fn run(args: &InspectArgs, out: &mut dyn Write) -> Result<()> {
    if let Some(checkpoint) = checkpoint(&args.path)? {
        let summary = CheckpointSummary::of(&checkpoint);
        if args.json {
            return Ok(writeln!(
                out,
                "{}",
                serde_json::to_string_pretty(&summary)?
            )?);
        }
        return Ok(writeln!(out, "{summary}")?);
    }
    let summary = inspect(&args.path)?;
    if args.json {
        as_json(&summary, out)
    } else {
        as_text(&summary, out)
    }
}

/// The checkpoint of a model's name or directory; `None` for a file, which holds embeddings.
fn checkpoint(path: &Path) -> Result<Option<Checkpoint>> {
    if path.is_file() {
        return Ok(None);
    }
    let Some(Ok(model)) = path.to_str().map(ModelRef::parse) else {
        return Ok(None);
    };
    let place = model.resolve(&Hub::from_env())?;
    Ok(Some(Checkpoint::load_from(place)?))
}

fn as_json(summary: &EmbeddingSummary, out: &mut dyn Write) -> Result<()> {
    let value = json!({
        "format": summary.format.name(),
        "dtype": summary.dtype,
        "records": summary.records,
        "residues": summary.residues,
        "shortest": summary.lengths.map(|lengths| lengths.0),
        "longest": summary.lengths.map(|lengths| lengths.1),
        "columns": summary.columns,
        "metadata": summary.metadata,
    });
    Ok(writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?)
}

fn as_text(summary: &EmbeddingSummary, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "format    {} ({})",
        summary.format.name(),
        summary.dtype.name()
    )?;
    writeln!(out, "proteins  {}", summary.records)?;
    let lengths = summary
        .lengths
        .map(|(shortest, longest)| format!(" ({shortest} to {longest} per protein)"));
    writeln!(
        out,
        "residues  {}{}",
        summary.residues,
        lengths.unwrap_or_default()
    )?;
    for column in &summary.columns {
        let show = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
        };
        let (min, max) = (
            show(column.min.map(f64::from)),
            show(column.max.map(f64::from)),
        );
        writeln!(
            out,
            "column    {}: {} x {}, from {min} to {max}, mean {}, not finite {}",
            shown(&column.column.name),
            column.rows,
            column.column.width,
            show(column.mean),
            column.non_finite
        )?;
    }
    for (key, value) in &summary.metadata.to_map()? {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        // The width counts only in a string.
        let key = shown(key).to_string();
        writeln!(out, "{key:<15} {}", shown(&text))?;
    }
    Ok(())
}
