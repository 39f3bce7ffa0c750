//! `ankh3 probe predict`: what a head says of new proteins.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use super::outcome::outputs;
use crate::args::{InputArgs, RuntimeArgs, usage};
use crate::commands::Outcome;
use crate::commands::embed::report;
use crate::commands::heads::{self, FeatureArgs, Protein, Source, Stored};
use crate::commands::stream::{place, refuse_chunks};
use crate::input::sequences::Input;
use crate::output::manifest::write_manifest;
use crate::output::table::{Cell, Table, TableFormat};
use crate::probe::description::{Method, Task};
use crate::probe::head::Head;
use crate::probe::parameters::Parameters;
use crate::probe::report::{most_probable, softmax};
use crate::sequence::{Limit, Rules, Sequence};

/// Proteins whose embeddings are held at a time.
const TOGETHER: usize = 256;

/// Predict with a trained head: FASTA in, a table out
///
/// A string of classes a protein, a class a protein with the probabilities of all, or a number a protein. The model must be the one that the head was
/// trained on.
#[derive(Args, Clone, Debug)]
pub struct PredictArgs {
    #[command(flatten)]
    input: InputArgs,

    /// The head, a directory made by `ankh3 probe train`.
    #[arg(long, value_name = "DIR")]
    head: PathBuf,

    /// One row a residue, with the probabilities of all classes, instead of one a protein.
    #[arg(long)]
    per_residue: bool,

    /// The file to write, `-` for stdout; .jsonl or tab-separated.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

impl PredictArgs {
    /// CPU threads asked for.
    pub(super) fn threads(&self) -> Option<usize> {
        self.runtime.threads
    }
}

/// What influences predictions, for the manifest.
#[derive(Serialize)]
struct PredictSettings<'a> {
    head: &'a str,
    head_made_by: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Limit::is_none")]
    length_limit: Limit,
}

/// The head over its stored weights.
pub(super) fn head_of(stored: &Stored, dir: &Path, device: &Device) -> Result<Head> {
    let Method::Head { shape, .. } = &stored.description.method else {
        bail!(
            "{}: a regression over attention is for `ankh3 predict-contacts`",
            dir.display()
        );
    };
    if stored.description.task == Task::Contacts {
        bail!(
            "{}: a head for contacts is for `ankh3 predict-contacts`",
            dir.display()
        );
    }
    let parameters = Parameters::from_bytes(&stored.weights, &shape.specs(0.0), device)
        .with_context(|| format!("{}", dir.display()))?;
    Ok(Head::new(*shape, &parameters)?)
}

/// Runs the command.
pub(super) fn run(args: &PredictArgs) -> Result<Outcome> {
    let stored = heads::load(&args.head.clone().into())?;
    let task = &stored.description.task;
    if args.per_residue && !matches!(task, Task::Residues { .. }) {
        bail!(usage(
            "--per-residue is for heads that tell classes of residues"
        ));
    }
    let options = args.input.options(Rules::default())?;
    refuse_chunks(&options.limit)?;
    let mut source = Source::of_head(&stored, &args.head, &args.features, &args.runtime)?;
    let device = source.compute().device.clone();
    let head = head_of(&stored, &args.head, &device)?;
    let settings = PredictSettings {
        head: &stored.description.name,
        head_made_by: &stored.description.made_by,
        length_limit: options.limit,
    };
    let mut manifest = source.manifest("probe predict", &settings, None)?;
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
            .map(|(place, sequence)| (place.as_str(), sequence.residues.as_slice()))
            .collect();
        source.prepare(&proteins)?;
        let outputs = outputs(&head, &source.rows(&proteins), group.len(), &device)?;
        for (sequence, output) in group.iter().zip(&outputs) {
            write(&mut table, task, sequence, output, args.per_residue)?;
            table.close_sequence();
        }
    }
    manifest.set_layout(table.layout());
    manifest.input = Some(input.digest());
    table.finish()?;
    write_manifest(&args.output, &manifest)?;
    report(input.counts());
    Ok(if input.counts().is_partial() {
        Outcome::SomeFailed
    } else {
        Outcome::Done
    })
}

fn columns(task: &Task, per_residue: bool) -> Vec<String> {
    let fixed: &[&str] = match task {
        Task::Residues { .. } if per_residue => &["id", "position", "residue", "class"],
        Task::Residues { .. } => &["id", "length", "classes"],
        Task::Classes { .. } => &["id", "class"],
        Task::Number | Task::Contacts => &["id", "value"],
    };
    let mut columns: Vec<String> = fixed.iter().map(|name| (*name).to_owned()).collect();
    if per_residue || matches!(task, Task::Classes { .. }) {
        columns.extend(task.classes().iter().map(|class| format!("p_{class}")));
    }
    columns
}

fn write(
    table: &mut Table,
    task: &Task,
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
        Task::Residues { .. } if per_residue => {
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
        Task::Residues { .. } => {
            let told: String = output.iter().map(|logits| name(logits)).collect();
            table.row(&[id, Cell::Count(output.len()), Cell::Text(&told)])?;
        }
        Task::Classes { .. } => {
            let mut cells = vec![id, Cell::Text(name(&output[0]))];
            cells.extend(probabilities(&output[0]));
            table.row(&cells)?;
        }
        Task::Number | Task::Contacts => {
            table.row(&[id, Cell::Number(f64::from(output[0][0]))])?;
        }
    }
    Ok(())
}
