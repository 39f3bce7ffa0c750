//! `ankh3 probe predict`: the predictions of a head for new proteins.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use super::outcome::outputs;
use crate::args::{InputArgs, RuntimeArgs, ScaleArgs, usage};
use crate::commands::Outcome;
use crate::commands::conveyor::{GroupWork, Grouped, RowWriter, RunPlan, place, whole};
use crate::commands::heads::{self, EmbeddingNotFinite, FeatureArgs, Protein, Source, Stored};
use crate::io::stdio::Content;
use crate::output::manifest::{Manifest, write_manifest};
use crate::output::table::{Cell, Table, TableFormat};
use crate::probe::description::{Method, Task};
use crate::probe::head::Head;
use crate::probe::parameters::Parameters;
use crate::probe::report::{most_probable, softmax};
use crate::sequence::digest::InputDigest;
use crate::sequence::{Limit, Rules, Sequence};

/// Residues of a group of proteins that are embedded together.
const GROUP: usize = 1 << 15;

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

    /// The file to write, or `-` for stdout: JSON lines if it ends in .jsonl, comma-separated if it
    /// ends in .csv, else tab-separated.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    scale: ScaleArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
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
    ensure!(
        !args.per_residue || matches!(task, Task::Residues { .. }),
        usage("--per-residue is for heads that predict classes of residues")
    );
    let options = whole(args.input.options(Rules::default())?)?;
    let limit = options.limit;
    let output = &args.output;
    let outputs = [(output.as_path(), Content::Text)];
    let plan = RunPlan::new(&args.input.files, options, &args.scale, &outputs)?;
    let source = Source::of_head(&stored, &args.head, &args.features, &args.runtime)?;
    let device = source.compute().device.clone();
    let head = head_of(&stored, &args.head, &device)?;
    let settings = PredictSettings::new(&stored, limit)?;
    let manifest = source.manifest("probe predict", &settings, args.scale.shard)?;
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
    let prediction = Prediction {
        source,
        head,
        device,
    };
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
    #[serde(skip_serializing_if = "Limit::is_none")]
    length_limit: Limit,
}

impl<'a> PredictSettings<'a> {
    fn new(stored: &'a Stored, length_limit: Limit) -> Result<Self> {
        Ok(Self {
            head: &stored.description.name,
            head_made_by: &stored.description.made_by,
            head_sha256: stored.sha256()?,
            length_limit,
        })
    }
}

/// A head, and where its features come from.
struct Prediction {
    source: Source,
    head: Head,
    device: Device,
}

impl GroupWork for Prediction {
    /// A row of logits per residue, or one row per protein.
    type Output = Vec<Vec<f32>>;

    fn tokens(&self, sequence: &Sequence) -> usize {
        sequence.residues.len()
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Vec<Vec<f32>>>>> {
        let places: Vec<String> = group.iter().map(place).collect();
        let proteins: Vec<Protein<'_>> = places
            .iter()
            .zip(group)
            .map(|(place, sequence)| (place.as_str(), sequence.residues.as_slice()))
            .collect();
        let embedded = self.embed(&proteins)?;
        let mut finite = proteins;
        let mut places = embedded.iter();
        finite.retain(|_| places.next() == Some(&true));
        let rows = self.source.rows(&finite);
        let outputs = outputs(&self.head, &rows, finite.len(), &self.device)?;
        let is_finite = |output: &Vec<Vec<f32>>| output.iter().flatten().all(|v| v.is_finite());
        let mut outputs = outputs.into_iter();
        let results = embedded.into_iter().map(|embedded| {
            let output = if embedded { outputs.next() } else { None };
            output.filter(is_finite)
        });
        Ok(results.collect())
    }
}

impl Prediction {
    /// Embeds proteins. Returns for each whether its embedding is free of NaN and infinity.
    fn embed(&mut self, proteins: &[Protein<'_>]) -> Result<Vec<bool>> {
        match self.source.prepare_quietly(proteins) {
            Err(error) if error.is::<EmbeddingNotFinite>() => {}
            prepared => return prepared.map(|()| vec![true; proteins.len()]),
        }
        // One by one it shows which protein has none.
        let one = |protein| match self.source.prepare_quietly(&[protein]) {
            Err(error) if error.is::<EmbeddingNotFinite>() => Ok(false),
            prepared => prepared.map(|()| true),
        };
        proteins.iter().copied().map(one).collect()
    }
}

/// Writes the table of predictions.
struct PredictionRows {
    table: Table,
    task: Task,
    per_residue: bool,
    output: PathBuf,
    manifest: Manifest,
}

impl RowWriter for PredictionRows {
    type Output = Vec<Vec<f32>>;

    const KEEPS_PLACES: bool = true;

    fn write(&mut self, sequence: &Sequence, output: Vec<Vec<f32>>) -> Result<()> {
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
