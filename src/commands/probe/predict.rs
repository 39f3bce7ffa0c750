//! `ankh3 probe predict`: the predictions of a head for new proteins.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use super::load_head;
use crate::args::{
    InputArgs, InputSettings, RuntimeArgs, ScaleArgs, hidden, usage, whole_sequences,
};
use crate::commands::Outcome;
use crate::commands::conveyor::{GroupWork, Grouped, RowWriter, RunPlan, described_place};
use crate::commands::heads::{FeatureArgs, OpenedFeatures, StoredHead};
use crate::io::stdio::Content;
use crate::output::manifest::{Manifest, write_manifest};
use crate::output::table::{Cell, Table, TableFormat};
use crate::probe::description::PredictionTask;
use crate::probe::error::ProbeError;
use crate::probe::features::{FeatureSource, Protein};
use crate::probe::head::Head;
use crate::probe::outputs::{OutputRows, outputs};
use crate::probe::report::{most_probable, softmax};
use crate::sequence::digest::InputDigest;
use crate::sequence::{Rules, Sequence};

/// Residues of a group of proteins that are embedded together.
const GROUP: usize = 1 << 15;

/// Predict with a trained head: FASTA in, a table out
///
/// Writes one row per protein: a string with one class per residue, a class with the probabilities
/// of all classes, or a number. The model must be the one that the head was trained on.
#[derive(Args, Clone, Debug)]
#[command(mut_arg("over", whole_sequences), mut_arg("overlap", hidden))]
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
    scale: ScaleArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command.
pub(super) fn run(args: &PredictArgs) -> Result<Outcome> {
    let stored = load_head(&args.head)?;
    let task = &stored.description.task;
    ensure!(
        !args.per_residue || matches!(task, PredictionTask::Residues { .. }),
        usage("--per-residue is for heads that predict classes of residues")
    );
    let options = args.input.options(Rules::default())?;
    let input = InputSettings::of(&options);
    let output = &args.output;
    let outputs = [(output.as_path(), Content::Text)];
    let plan = RunPlan::new(&args.input.files, options, &args.scale, &outputs)?;
    let opened = OpenedFeatures::of_head(&stored, &args.features, &args.runtime, "probe predict")?;
    let head = stored.head(&opened.device)?;
    let mut manifest = opened.manifest;
    manifest.shard = args.scale.shard.map(|shard| shard.to_string());
    manifest.set_settings(&PredictSettings::new(&stored, input)?)?;
    let conveyor = plan.begin(&manifest.journal_key()?)?;
    let format = TableFormat::from_extension(output);
    let table = Table::create(output, format, &columns(task, args.per_residue))
        .with_context(|| format!("writing {}", output.display()))?;
    let rows = PredictionRows {
        table,
        task: task.clone(),
        per_residue: args.per_residue,
        output: output.clone(),
        manifest,
    };
    let source = opened.source;
    let prediction = HeadPrediction { source, head };
    conveyor
        .carry(&mut Grouped::new(prediction, GROUP), rows)?
        .finish()
}

/// What influences predictions, for the manifest.
#[derive(Serialize)]
struct PredictSettings<'a> {
    head: &'a str,
    head_made_by: &'a Map<String, Value>,
    head_sha256: String,
    #[serde(flatten)]
    input: InputSettings,
}

impl<'a> PredictSettings<'a> {
    fn new(stored: &'a StoredHead, input: InputSettings) -> Result<Self> {
        Ok(Self {
            head: &stored.description.name,
            head_made_by: &stored.description.made_by,
            head_sha256: stored.sha256()?,
            input,
        })
    }
}

/// A head, and where its features come from.
struct HeadPrediction {
    source: FeatureSource,
    head: Head,
}

impl GroupWork for HeadPrediction {
    type Output = OutputRows;

    fn tokens(&self, sequence: &Sequence) -> usize {
        sequence.residues.len()
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<OutputRows>>> {
        let places: Vec<String> = group.iter().map(described_place).collect();
        let proteins: Vec<Protein<'_>> = places
            .iter()
            .zip(group)
            .map(|(place, sequence)| Protein {
                name: place,
                residues: &sequence.residues,
            })
            .collect();
        let embedded = self.embed(&proteins)?;
        let mut finite = proteins;
        let mut each = embedded.iter();
        finite.retain(|_| each.next() == Some(&true));
        let outputs = outputs(&self.head, &self.source.features(&finite))?;
        let is_finite = |output: &OutputRows| output.iter().flatten().all(|v| v.is_finite());
        let mut outputs = outputs.into_iter();
        let results = embedded.into_iter().map(|embedded| {
            let output = if embedded { outputs.next() } else { None };
            output.filter(is_finite)
        });
        Ok(results.collect())
    }
}

impl HeadPrediction {
    /// Embeds proteins. Returns for each whether its embedding is free of NaN and infinity.
    fn embed(&mut self, proteins: &[Protein<'_>]) -> Result<Vec<bool>, ProbeError> {
        match self.source.prepare(proteins) {
            Err(ProbeError::EmbeddingNotFinite(_)) => {}
            prepared => return prepared.map(|()| vec![true; proteins.len()]),
        }
        // Embedding one protein at a time shows which of them have no finite embedding.
        let one = |protein| match self.source.prepare(&[protein]) {
            Err(ProbeError::EmbeddingNotFinite(_)) => Ok(false),
            prepared => prepared.map(|()| true),
        };
        proteins.iter().copied().map(one).collect()
    }
}

/// Writes the table of predictions.
struct PredictionRows {
    table: Table,
    task: PredictionTask,
    per_residue: bool,
    output: PathBuf,
    manifest: Manifest,
}

impl RowWriter for PredictionRows {
    type Output = OutputRows;

    const KEEPS_PLACES: bool = true;

    fn write(&mut self, sequence: &Sequence, output: OutputRows) -> Result<()> {
        write(
            &mut self.table,
            &self.task,
            sequence,
            &output,
            self.per_residue,
        )?;
        self.table.close_sequence();
        Ok(())
    }

    fn pass_over(&mut self) {
        self.table.close_sequence();
    }

    fn finish(mut self, input: InputDigest) -> Result<Outcome> {
        self.manifest.set_layout(self.table.layout());
        self.manifest.input = Some(input);
        self.table.finish()?;
        write_manifest(&self.output, &self.manifest)?;
        Ok(Outcome::Done)
    }
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
