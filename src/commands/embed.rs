//! `ankh3 embed`: computes the embeddings of proteins.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use super::Outcome;
use super::conveyor::{EmbeddingRows, GroupWork, Grouped, RunPlan};
use super::embedding_flags::{OUT_TYPES, format_of, resolve_layers};
use super::opened::Opened;
use crate::args::{InputArgs, InputSettings, ModelArgs, RuntimeArgs, ScaleArgs, number_type};
use crate::inference::embedder::{Embedder, Request};
use crate::inference::pooling::{EmbeddingColumns, Pooling};
use crate::inference::token_budget::LoadedStacks;
use crate::model::Encoder;
use crate::number::NumberType;
use crate::output::embeddings::{Column, EmbeddingFormat, EmbeddingWriter, RowKind, Schema};
use crate::sequence::{Limit, Rules, Sequence};
use crate::tokenizer::Tokenizer;

/// Embed proteins: FASTA in, one row per residue or one row per protein out
///
/// The encoder reads `[prefix]`, the residues and `</s>`. The output has exactly one row per
/// residue, without the prefix and `</s>`. Equal sequences are computed once. Results come in input
/// order and do not depend on batches, order or threads (on a CPU to the byte).
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
  ankh3 embed --model nano proteins.fasta > per_residue.npz
  ankh3 embed --model nano --pooling mean,max --layers -1,2 --out-dtype f16 -o proteins.parquet proteins.fasta
  zcat proteome.fasta.gz | ankh3 embed --model ankh3-large --pooling mean -o proteome.h5
  ankh3 embed --model ankh3-large --resume --shard 3/8 -o part3.h5 proteome.fasta.zst";

/// Options of the values.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What")]
struct WhatArgs {
    /// The pooling of a protein's residue rows; several values are separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "per-residue")]
    pooling: Vec<Pooling>,

    /// Layers to write, separated by commas.
    ///
    /// 0 is the embedding table and k the output of layer k. -1 is the last layer after the final
    /// norm (the last hidden state of other tools), -2 is the layer before it, and so on.
    #[arg(
        long,
        value_delimiter = ',',
        allow_negative_numbers = true,
        default_value = "-1",
        value_name = "N"
    )]
    layers: Vec<i64>,
}

/// Options of the output.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The file to write, or `-` for stdout. A file appears under its name only when it is
    /// complete.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The format [default: by the file's extension; npz on stdout].
    #[arg(long, value_enum)]
    format: Option<EmbeddingFormat>,

    /// Number type of the values written.
    #[arg(long, value_parser = number_type(&OUT_TYPES), default_value = "f32")]
    out_dtype: NumberType,
}

/// Embeds the proteins of the input.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &EmbedArgs) -> Result<Outcome> {
    let output = &args.output.output;
    let format = format_of(args.output.format, output)?;
    let options = args.input.options(Rules::default())?;
    let input = InputSettings::of(&options);
    let limit = options.limit;
    let outputs = [(output.as_path(), format.content())];
    let plan = RunPlan::new(&args.input.files, options, &args.scale, &outputs)?;
    let opened = Opened::on_all(&args.model, &args.runtime)?;
    let request = request(args, limit, &opened)?;
    let schema = schema(args, &request, input, &opened)?;
    let conveyor = plan.begin(&schema.journal_key()?)?;
    let writer = EmbeddingWriter::create(format, &schema, output)
        .with_context(|| format!("writing {}", output.display()))?;
    let encoders = opened.load_on_all(|loader| Encoder::load(loader, &opened.checkpoint.config))?;
    let tokens_per_group = opened.tokens_per_group(&args.runtime, request.max_batch_tokens);
    let tokenizer = &opened.checkpoint.tokenizer;
    let embedder = Embedder::new(encoders.each(|encoder| encoder), tokenizer, request);
    conveyor
        .announcing(move |sequences, residues| schema.estimated_size(format, sequences, residues))
        .carry(
            &mut Grouped::new(Embedding(embedder), tokens_per_group),
            EmbeddingRows(writer),
        )?
        .finish()
}

/// Embeds groups of sequences.
struct Embedding<'a>(Embedder<'a>);

impl GroupWork for Embedding<'_> {
    type Output = Arc<EmbeddingColumns>;

    fn tokens(&self, sequence: &Sequence) -> usize {
        Tokenizer::num_tokens(sequence.residues.len())
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Arc<EmbeddingColumns>>>> {
        let residues = group.iter().map(|sequence| sequence.residues.as_slice());
        Ok(self.0.embed(&residues.collect::<Vec<_>>())?)
    }
}

/// The values to compute for each protein.
fn request(args: &EmbedArgs, limit: Limit, opened: &Opened) -> Result<Request> {
    Ok(Request {
        prefix: opened.prefix,
        layers: resolve_layers(&args.what.layers, opened.checkpoint.config.num_layers)?,
        poolings: args.what.pooling.clone(),
        limit,
        max_batch_tokens: opened.batch_tokens(&args.runtime, LoadedStacks::Encoder),
    })
}

/// The columns of the output, and how they are made.
fn schema(
    args: &EmbedArgs,
    request: &Request,
    input: InputSettings,
    opened: &Opened,
) -> Result<Schema> {
    let Request {
        layers, poolings, ..
    } = request;
    let settings = EmbedSettings {
        layers,
        pooling: poolings,
        input,
    };
    Ok(Schema {
        columns: columns(layers, poolings, opened.checkpoint.config.d_model)?,
        dtype: args.output.out_dtype,
        metadata: opened.manifest("embed", &settings, args.scale.shard)?,
    })
}

/// What influences embeddings, for the manifest.
#[derive(Serialize)]
struct EmbedSettings<'a> {
    layers: &'a [usize],
    pooling: &'a [Pooling],
    #[serde(flatten)]
    input: InputSettings,
}

/// One column per layer and pooling. Its name is the name of the pooling, such as `mean`; with
/// several layers, also of the layer: `layer_12/mean`.
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
                "{name} is requested twice; name each layer and pooling once"
            );
            let rows = if *pooling == Pooling::PerResidue {
                RowKind::PerResidue
            } else {
                RowKind::PerSequence
            };
            columns.push(Column { name, width, rows });
        }
    }
    Ok(columns)
}
