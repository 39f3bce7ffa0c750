//! `ankh3 probe predict`: the predictions of a head for new proteins.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use super::load_head;
use crate::args::{InputArgs, RuntimeArgs, usage};
use crate::commands::Outcome;
use crate::commands::embed::report;
use crate::commands::heads::{FeatureArgs, OpenedFeatures};
use crate::commands::stream::{place, refuse_chunks};
use crate::input::sequences::Input;
use crate::output::table::{Cell, Table, TableFormat, write_manifest};
use crate::probe::description::PredictionTask;
use crate::probe::features::Protein;
use crate::probe::outputs::outputs;
use crate::probe::report::{most_probable, softmax};
use crate::sequence::{Rules, Sequence};

/// Proteins that are embedded together.
const TOGETHER: usize = 256;

/// Predict with a trained head: FASTA in, a table out
///
/// Writes one row per protein: a string with one class per residue, a class with the probabilities
/// of all classes, or a number. The model must be the one that the head was trained on.
#[derive(Args, Clone, Debug)]
pub struct PredictArgs {
    #[command(flatten)]
    input: InputArgs,

    /// The head, a directory made by `ankh3 probe train`.
    #[arg(long, value_name = "DIR")]
    head: PathBuf,

    /// Write one row per residue with the probabilities of all classes, instead of one row per
    /// protein.
    #[arg(long)]
    per_residue: bool,

    /// The file to write, `-` for stdout; JSON lines if it ends in .jsonl, otherwise tab-separated.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command.
pub(super) fn run(args: &PredictArgs) -> Result<Outcome> {
    let stored = load_head(&args.head)?;
    let task = &stored.description.task;
    if args.per_residue && !matches!(task, PredictionTask::Residues { .. }) {
        bail!(usage(
            "--per-residue is for heads that predict classes of residues"
        ));
    }
    let options = args.input.options(Rules::default())?;
    refuse_chunks(&options.limit)?;
    let mut opened =
        OpenedFeatures::of_head(&stored, &args.features, &args.runtime, "probe predict")?;
    let head = stored.head(&opened.device)?;
    let mut manifest = opened.manifest.clone();
    manifest.insert("head".to_owned(), json!(stored.description.name));
    manifest.insert("head_made_by".to_owned(), json!(stored.description.made_by));
    let format = TableFormat::from_extension(&args.output);
    let mut table = Table::create(&args.output, format, &columns(task, args.per_residue))
        .with_context(|| format!("writing {}", args.output.display()))?;
    let mut input = Input::open(&args.input.files, options)?;
    loop {
        let group: Vec<Sequence> = input
            .by_ref()
            .take(TOGETHER)
            .map(|item| Ok(item?.sequence))
            .collect::<Result<_>>()?;
        if group.is_empty() {
            break;
        }
        let places: Vec<String> = group.iter().map(place).collect();
        let proteins: Vec<Protein<'_>> = places
            .iter()
            .zip(&group)
            .map(|(place, sequence)| Protein {
                name: place,
                residues: &sequence.residues,
            })
            .collect();
        opened.prepare(&proteins)?;
        let outputs = outputs(&head, &opened.source.features(&proteins))?;
        for (sequence, output) in group.iter().zip(&outputs) {
            write(&mut table, task, sequence, output, args.per_residue)?;
        }
    }
    table.finish()?;
    write_manifest(&args.output, &manifest)?;
    report(input.counts());
    Ok(if input.counts().is_partial() {
        Outcome::SomeFailed
    } else {
        Outcome::Done
    })
}

fn columns(task: &PredictionTask, per_residue: bool) -> Vec<String> {
    let fixed: &[&str] = match task {
        PredictionTask::Residues { .. } if per_residue => &["id", "position", "residue", "class"],
        PredictionTask::Residues { .. } => &["id", "length", "classes"],
        PredictionTask::Classes { .. } => &["id", "class"],
        PredictionTask::Number | PredictionTask::Contacts => &["id", "value"],
    };
    let mut columns: Vec<String> = fixed.iter().map(|name| (*name).to_owned()).collect();
    if per_residue || matches!(task, PredictionTask::Classes { .. }) {
        columns.extend(task.classes().iter().map(|class| format!("p_{class}")));
    }
    columns
}

fn write(
    table: &mut Table,
    task: &PredictionTask,
    sequence: &Sequence,
    output: &[Vec<f32>],
    per_residue: bool,
) -> Result<()> {
    let id = Cell::Text(&sequence.id);
    let classes = task.classes();
    let name = |logits: &[f32]| classes[most_probable(logits)].as_str();
    let probabilities = |logits: &[f32]| {
        softmax(logits)
            .into_iter()
            .map(|p| Cell::Number(f64::from(p)))
    };
    match task {
        PredictionTask::Residues { .. } if per_residue => {
            for (at, (residue, logits)) in sequence.residues.iter().zip(output).enumerate() {
                let mut cells = vec![
                    id,
                    Cell::Count(at + 1),
                    Cell::Residue(*residue),
                    Cell::Text(name(logits)),
                ];
                cells.extend(probabilities(logits));
                table.row(&cells)?;
            }
        }
        PredictionTask::Residues { .. } => {
            let string: String = output.iter().map(|logits| name(logits)).collect();
            table.row(&[id, Cell::Count(output.len()), Cell::Text(&string)])?;
        }
        PredictionTask::Classes { .. } => {
            let mut cells = vec![id, Cell::Text(name(&output[0]))];
            cells.extend(probabilities(&output[0]));
            table.row(&cells)?;
        }
        PredictionTask::Number | PredictionTask::Contacts => {
            table.row(&[id, Cell::Number(f64::from(output[0][0]))])?;
        }
    }
    Ok(())
}
