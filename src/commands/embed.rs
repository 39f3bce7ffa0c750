//! `ankh3 embed`: FASTA in, embeddings out.
//!
//! Input (read ahead on a thread) → groups of sequences up to the token budget → embedder → a thread that writes, and keeps the journal.

mod forecast;
mod resumed;
mod run;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use forecast::Forecast;
use resumed::Resumed;
use run::Run;

use super::Outcome;
use super::opened::Opened;
use crate::args::{InputArgs, ModelArgs, RuntimeArgs, ScaleArgs, Shard, number_type, usage};
use crate::inference::embedder::{Embedder, Request};
use crate::inference::pooling::Pooling;
use crate::inference::token_budget::LoadedStacks;
use crate::input::sequences::{Counts, Input};
use crate::input::survey::Survey;
use crate::io::stdio;
use crate::model::Encoder;
use crate::number::NumberType;
use crate::output::embeddings::{Column, Destination, Format, Rows, Schema, Writer};
use crate::output::sink::Sink;
use crate::progress::Progress;
use crate::sequence::Rules;

/// Embed proteins: FASTA in, one row a residue or one row a protein out
///
/// The encoder reads [prefix] + residues + </s>; exactly one row a residue comes out, whatever stands around them. Equal sequences are computed once.
/// Results come in input order and do not depend on batches, order or threads (on a CPU to the byte).
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EmbedArgs {
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

const EXAMPLES: &str = "\
Examples:
  zcat proteome.fasta.gz | ankh3 embed --model ankh3-large --pooling mean -o proteome.h5
  ankh3 embed --model DIR proteins.fasta > per_residue.npz
  ankh3 embed --model DIR --pooling mean,max --layers -1,24 --out-dtype f16 -o proteins.parquet proteins.fasta
  ankh3 embed --model DIR --resume --shard 3/8 -o part3.h5 proteome.fasta.zst";

/// What is computed of each protein.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What")]
struct WhatArgs {
    /// One or several, by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "per-residue")]
    pooling: Vec<Pooling>,

    /// Layers, by commas: 0 is the embedding table, k the output of layer k; -1 is the last layer after the final norm (what other tools call the
    /// last hidden state), -2 the output of the last but one, and so on.
    #[arg(
        long,
        value_delimiter = ',',
        allow_negative_numbers = true,
        default_value = "-1",
        value_name = "N"
    )]
    layers: Vec<i64>,
}

/// Where the embeddings go.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The file to write, `-` for stdout. It appears under its name only when it is complete.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The format [default: by the file's extension; npz on stdout].
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Number type of the values written.
    #[arg(long, value_parser = number_type(&OUT_TYPES), default_value = "f32")]
    out_dtype: NumberType,
}

const OUT_TYPES: [(NumberType, &str); 3] = [
    (NumberType::F32, "Single precision"),
    (
        NumberType::F16,
        "Half precision; values beyond ±65504 are an error",
    ),
    (NumberType::Bf16, "bfloat16; safetensors only"),
];

/// The format asked for, by flag or extension; npz where neither says.
pub(super) fn format_of(format: Option<Format>, output: &Path) -> Result<Format> {
    match (format, Format::from_extension(output)) {
        (Some(format), _) | (None, Some(format)) => Ok(format),
        (None, None) if stdio::is_dash(output) => Ok(Format::Npz),
        (None, None) => {
            let known = Format::ALL.map(Format::name).join(", ");
            bail!(usage(format_args!(
                "the extension of {} names no format; add --format, one of {known}",
                output.display()
            )))
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &EmbedArgs) -> Result<Outcome> {
    let format = format_of(args.output.format, &args.output.output)?;
    let options = args.input.options(Rules::default())?;
    ensure!(
        !(args.scale.resume && stdio::is_dash(&args.output.output)),
        usage("--resume needs a file: add -o FILE")
    );
    let opened = Opened::on_all(&args.model, &args.runtime)?;
    let layers = resolve_layers(&args.what.layers, opened.checkpoint.config.num_layers)?;
    let poolings = &args.what.pooling;
    let mut schema = Schema {
        columns: columns(&layers, poolings, opened.checkpoint.config.d_model)?,
        dtype: args.output.out_dtype,
        metadata: opened.provenance("embed")?,
    };
    describe(
        &mut schema.metadata,
        &layers,
        poolings,
        &options.limit,
        args.scale.shard,
    )?;
    let on_bad = options.on_bad;
    let request = Request {
        prefix: opened.prefix,
        layers,
        poolings: poolings.clone(),
        limit: options.limit,
        max_batch_tokens: opened.batch_tokens(&args.runtime, LoadedStacks::Encoder),
    };
    let output = &args.output.output;
    let resumed = Resumed::open(args.scale.resume, output, &schema)?;
    let writer = Writer::create(format, &schema, Destination::File(output.clone()))
        .with_context(|| format!("writing {}", output.display()))?;
    let input = Input::open(&args.input.files, options)?;
    let forecast = Forecast {
        survey: Survey::start(&args.input.files),
        shards: args.scale.shard.map_or(1, |shard| shard.count),
        format,
        schema,
    };
    let encoders = opened.load_on_all(|loader| Encoder::load(loader, &opened.checkpoint.config))?;
    Run {
        max_tokens: opened.tokens_at_hand(&args.runtime, request.max_batch_tokens),
        embedder: Embedder::new(
            encoders.each(|encoder| encoder),
            &opened.checkpoint.tokenizer,
            request,
        ),
        keeps_journal: args.scale.resume,
        replay: resumed.replay,
        sink: Sink::new(writer, resumed.journal)?,
        output,
        progress: Progress::new(),
        forecast,
        on_bad,
        shard: args.scale.shard,
        not_finite: 0,
    }
    .all(input)
}

/// Layers counted from the end become layers counted from the start.
pub(super) fn resolve_layers(layers: &[i64], num_layers: usize) -> Result<Vec<usize>> {
    let resolve = |layer: &i64| {
        let counted = if *layer < 0 {
            layer + num_layers as i64 + 1
        } else {
            *layer
        };
        let valid = usize::try_from(counted)
            .ok()
            .filter(|counted| *counted <= num_layers);
        valid.with_context(|| {
            format!(
                "--layers {layer}: this encoder has layers 0 to {num_layers}, or -1 to -{}",
                num_layers + 1
            )
        })
    };
    layers.iter().map(resolve).collect()
}

/// Names: `mean`, or `layer_12/mean` where there are several layers.
fn columns(layers: &[usize], poolings: &[Pooling], width: usize) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    for layer in layers {
        for pooling in poolings {
            let name = match layers {
                [_] => pooling.column().to_owned(),
                _ => format!("layer_{layer}/{}", pooling.column()),
            };
            ensure!(
                columns.iter().all(|column| column.name != name),
                "{name} is asked for twice; name each layer and pooling once"
            );
            let rows = if *pooling == Pooling::PerResidue {
                Rows::PerResidue
            } else {
                Rows::PerSequence
            };
            columns.push(Column { name, width, rows });
        }
    }
    Ok(columns)
}

/// What this command adds to the provenance.
fn describe(
    metadata: &mut Map<String, Value>,
    layers: &[usize],
    poolings: &[Pooling],
    limit: &crate::sequence::Limit,
    shard: Option<Shard>,
) -> Result<()> {
    metadata.insert("layers".to_owned(), json!(layers));
    metadata.insert("pooling".to_owned(), serde_json::to_value(poolings)?);
    if limit.max_length().is_some() {
        metadata.insert("length_limit".to_owned(), serde_json::to_value(limit)?);
    }
    if let Some(shard) = shard {
        metadata.insert("shard".to_owned(), json!(shard.to_string()));
    }
    Ok(())
}

/// What was changed and left out of the input.
pub(super) fn report(counts: &Counts) {
    if !counts.changes.is_empty() {
        tracing::warn!("input: {}", counts.changes);
    }
    let left_out = counts.failed + counts.too_long + counts.repeated;
    if left_out > 0 {
        let Counts {
            records,
            failed,
            too_long,
            repeated,
            ..
        } = counts;
        tracing::warn!(
            "{left_out} of {records} records left out: {failed} bad, {too_long} too long, {repeated} repeated"
        );
    }
}
