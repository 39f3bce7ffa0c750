//! `ankh3 probe evaluate`: how well a head does on a table.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::{Map, json};

use super::data::Set;
use super::outcome::{self, measured, outputs};
use super::predict::head_of;
use crate::args::{RuntimeArgs, usage};
use crate::commands::Outcome;
use crate::commands::heads::{self, FeatureArgs, Source};
use crate::input::labelled::LabelledColumns;
use crate::output::manifest::write_manifest;
use crate::output::table::{Table, TableFormat};
use crate::report::picture::Picture;

/// Judge a head by a labelled table
///
/// Accuracy overall and of each class, Matthews' correlation, AUROC; or Spearman, Pearson and mean squared error; each with a 95 % interval from 1000
/// bootstrap draws over proteins.
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// Tables: CSV, TSV or JSON lines.
    #[arg(value_name = "TABLE", required = true)]
    tables: Vec<PathBuf>,

    /// The head, a directory made by `ankh3 probe train`.
    #[arg(long, value_name = "DIR")]
    head: PathBuf,

    /// The column of sequences [default: sequence, input or seq].
    #[arg(long, value_name = "NAME")]
    sequence_column: Option<String>,

    /// The column of labels [default: that of training].
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,

    /// The column that says with a 1 which residues count [default: mask, if there is one].
    #[arg(long, value_name = "NAME")]
    mask_column: Option<String>,

    /// Only rows that have this value in this column.
    #[arg(long, value_name = "NAME=VALUE")]
    only: Option<String>,

    /// The file to write, `-` for stdout; .jsonl or tab-separated.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Draw the confusion matrix, or predicted against measured numbers, of the last table: .png or .svg.
    #[arg(long, value_name = "PICTURE")]
    plot: Option<PathBuf>,

    /// Of the intervals.
    #[arg(long, default_value = "7")]
    seed: u64,

    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

impl EvaluateArgs {
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
pub(super) fn run(args: &EvaluateArgs) -> Result<Outcome> {
    let picture = args.plot.as_deref().map(Picture::of_path).transpose();
    let picture = picture.map_err(usage)?;
    let stored = heads::load(&args.head.clone().into())?;
    let task = &stored.description.task;
    let trained_on = stored
        .description
        .data
        .get("label_column")
        .and_then(|name| name.as_str());
    let columns = LabelledColumns {
        sequence: args.sequence_column.clone(),
        label: args
            .label_column
            .clone()
            .or(trained_on.map(str::to_owned))
            .unwrap_or_else(|| "label".to_owned()),
        mask: args.mask_column.clone(),
        only: args.only()?,
    };
    let mut sets = Vec::new();
    for table in &args.tables {
        let set = Set::read(table, &columns)?;
        let targets = set.targets(task)?;
        sets.push((set, targets));
    }
    let mut source = Source::of_head(&stored, &args.head, &args.features, &args.runtime)?;
    let device = source.compute().device.clone();
    let head = head_of(&stored, &args.head, &device)?;
    let mut table = Table::create(
        &args.output,
        TableFormat::from_extension(&args.output),
        &outcome::COLUMNS,
    )?;
    let settings = EvaluateSettings {
        head: &stored.description.name,
    };
    let mut manifest = source.manifest("probe evaluate", &settings, None)?;
    let mut metrics = Map::new();
    let mut last = None;
    for (name, (set, targets)) in heads::names(&args.tables).into_iter().zip(&sets) {
        let proteins = set.proteins();
        source.prepare(&proteins)?;
        let outputs = outputs(&head, &source.rows(&proteins), proteins.len(), &device)?;
        let report = measured(task, &outputs, targets, args.seed);
        outcome::write(&mut table, &name, &report)?;
        metrics.insert(name, report.to_json(task.classes()));
        last = Some(report);
    }
    let metrics = json!(metrics);
    manifest.settings.insert("metrics".to_owned(), metrics);
    table.finish()?;
    write_manifest(&args.output, &manifest)?;
    if let (Some(picture), Some(report)) = (picture, last) {
        outcome::draw(&picture, &stored.description, &report)?;
    }
    Ok(Outcome::Done)
}
