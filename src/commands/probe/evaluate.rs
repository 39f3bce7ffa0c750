//! `ankh3 probe evaluate`: the measures of a head on labelled tables.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::{Map, json};

use super::data::{LabelledSet, read_rows};
use super::{load_head, measures};
use crate::args::{RuntimeArgs, usage};
use crate::commands::heads::{self, FeatureArgs, OpenedFeatures, StoredHead};
use crate::commands::{Outcome, check_outputs};
use crate::input::labelled::{LabelledColumns, SPLIT_NAME};
use crate::io::stdio::Content;
use crate::output::manifest::write_manifest;
use crate::output::table::{Table, TableFormat};
use crate::probe::description::PredictionTask;
use crate::probe::loss::Label;
use crate::probe::metrics::RESAMPLES;
use crate::probe::outputs::outputs;
use crate::probe::report::{MetricReport, Resampling};
use crate::report::picture::Picture;

/// Measure a head on labelled tables
///
/// Writes overall accuracy, the accuracy of each class, Matthews' correlation and AUROC for
/// classes; Spearman's and Pearson's correlation and the mean squared error for numbers; each with
/// a 95 % interval from 1000 bootstrap draws of proteins.
#[derive(Args, Clone, Debug)]
pub struct ProbeEvaluateArgs {
    /// Tables: CSV, TSV or JSON lines.
    #[arg(value_name = "TABLE", required = true)]
    tables: Vec<PathBuf>,

    /// The head, a directory made by `ankh3 probe train`.
    #[arg(long, value_name = "DIR")]
    head: PathBuf,

    /// The column of sequences [default: sequence, input or seq].
    #[arg(long, value_name = "NAME")]
    sequence_column: Option<String>,

    /// The column of labels [default: the one used in training].
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,

    /// The column that marks with a 1 each residue that counts [default: mask, if there is one].
    #[arg(long, value_name = "NAME")]
    mask_column: Option<String>,

    /// Evaluate only the rows with this value in this column, such as split=test.
    #[arg(long, value_name = "NAME=VALUE")]
    only: Option<String>,

    /// The file to write, `-` for stdout; JSON lines if it ends in .jsonl, otherwise tab-separated.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Draw the last table (confusion matrix, or predicted against measured numbers): .png or .svg.
    #[arg(long, value_name = "PICTURE")]
    plot: Option<PathBuf>,

    /// Random seed of the bootstrap.
    #[arg(long, default_value = "7")]
    seed: u64,

    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

impl ProbeEvaluateArgs {
    fn only(&self) -> Result<Option<(String, String)>> {
        match self.only.as_deref().map(|only| only.split_once('=')) {
            None => Ok(None),
            Some(Some((name, value))) => Ok(Some((name.to_owned(), value.to_owned()))),
            Some(None) => bail!(usage("--only is NAME=VALUE, such as split=test")),
        }
    }
}

/// What influences measures, for the manifest.
#[derive(Serialize)]
struct EvaluateSettings<'a> {
    head: &'a str,
}

/// Runs the command.
pub(super) fn run(args: &ProbeEvaluateArgs) -> Result<Outcome> {
    let picture = args.plot.as_deref().map(Picture::of_path).transpose();
    let picture = picture.map_err(usage)?;
    let plot = args.plot.iter().map(|path| (&**path, Content::Binary));
    check_outputs(plot.chain([(&*args.output, Content::Text)]))?;
    let stored = load_head(&args.head)?;
    let task = &stored.description.task;
    let columns = columns(args, &stored)?;
    let sets = args.tables.iter().map(|table| read(table, &columns, task));
    let sets: Vec<_> = sets.collect::<Result<_>>()?;
    let mut opened =
        OpenedFeatures::of_head(&stored, &args.features, &args.runtime, "probe evaluate")?;
    let head = stored.head(&opened.device)?;
    let format = TableFormat::from_extension(&args.output);
    let mut table = Table::create(&args.output, format, &measures::COLUMNS)?;
    let how = Resampling {
        resamples: RESAMPLES,
        seed: args.seed,
    };
    let mut metrics = Map::new();
    let mut last = None;
    for (name, (set, labels)) in heads::names(&args.tables).into_iter().zip(&sets) {
        let proteins = set.proteins();
        opened.prepare(&proteins)?;
        let outputs = outputs(&head, &opened.source.features(&proteins))?;
        let report = MetricReport::of_outputs(task, &outputs, labels, how);
        measures::write(&mut table, &name, &report)?;
        metrics.insert(name, report.to_json(task.classes()));
        last = Some(report);
    }
    let mut manifest = opened.manifest;
    manifest.set_settings(&EvaluateSettings {
        head: &stored.description.name,
    })?;
    let metrics = json!(metrics);
    manifest.settings.insert("metrics".to_owned(), metrics);
    manifest.set_layout(table.layout());
    table.finish()?;
    write_manifest(&args.output, &manifest)?;
    if let (Some(picture), Some(report)) = (picture, last) {
        measures::draw(&picture, &stored.description, &report)?;
    }
    Ok(Outcome::Done)
}

/// The columns asked for; the label's is by default the one used in training.
fn columns(args: &ProbeEvaluateArgs, stored: &StoredHead) -> Result<LabelledColumns> {
    let trained_on = stored.description.data.get("label_column");
    let trained_on = trained_on.and_then(|name| name.as_str()).map(str::to_owned);
    let label = args.label_column.clone().or(trained_on);
    Ok(LabelledColumns {
        sequence: args.sequence_column.clone(),
        label: label.unwrap_or_else(|| "label".to_owned()),
        mask: args.mask_column.clone(),
        split: None,
        only: args.only()?,
    })
}

/// Reads a table and its labels, with a warning where training rows may be among its rows.
fn read(
    path: &Path,
    columns: &LabelledColumns,
    task: &PredictionTask,
) -> Result<(LabelledSet, Vec<Label>)> {
    let rows = read_rows(path, columns)?;
    if columns.only.is_none() && rows.iter().any(|row| row.split.is_some()) {
        tracing::warn!(
            "{}: all rows are evaluated, although the table has a column {SPLIT_NAME}; --only {SPLIT_NAME}=test evaluates the test rows alone",
            path.display()
        );
    }
    let set = LabelledSet::of_rows(path, rows.into_iter().enumerate())?;
    let labels = set.labels(task)?;
    Ok((set, labels))
}
