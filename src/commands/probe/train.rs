//! `ankh3 probe train`: a head on frozen embeddings.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Map;

use super::measures;
use super::sets::{NamedSet, TableArgs, TrainingSets};
use super::task::ProbeTask;
use crate::args::{RuntimeArgs, usage};
use crate::commands::contacts::{StructureFiles, fit_head};
use crate::commands::heads::{self, OpenedFeatures, TrainFeatureArgs, TrainingArgs};
use crate::commands::{Outcome, check_outputs};
use crate::io::stdio::Content;
use crate::output::table::{Table, TableFormat};
use crate::probe::description::{FORMAT, FittedMethod, HeadDescription};
use crate::probe::error::ProbeError;
use crate::probe::fit::{Examples, FitPlan, Fitted, fit};
use crate::probe::head::{Head, HeadShape, Readout};
use crate::probe::metrics::RESAMPLES;
use crate::probe::outputs::outputs;
use crate::probe::report::{MetricReport, Resampling};
use crate::report::picture::Picture;

/// Train a head on frozen embeddings
///
/// Tables are CSV, TSV or JSON lines with one sequence and one label per row. Measures with 95 %
/// intervals (bootstrap over proteins) go to stdout.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct TrainArgs {
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    tables: TableArgs,
    #[command(flatten)]
    features: TrainFeatureArgs,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

const EXAMPLES: &str = "\
Examples:
  ankh3 probe train --model ankh3-large --task ssp3 --train netsurfp2_train.csv.gz --valid netsurfp2_valid.csv.gz --test casp12.csv -o ssp3
  ankh3 probe train --model DIR --task fluorescence --train gfp_tape.csv.gz --split-column split --prefix s2s -o fluorescence
  ankh3 probe train --features onehot --task gb1 --train gb1_flip.csv.gz --split-column two_vs_rest --body linear -o gb1
  ankh3 probe train --model DIR --task residues --train binding.jsonl --label-column site --layers 24,-1 -o binding";

/// The task and the files to write.
#[derive(Args, Clone, Debug)]
struct WhatArgs {
    /// What is predicted: one of the papers' tasks, or a kind of task.
    #[arg(long, value_enum)]
    task: ProbeTask,

    /// How the residues of a protein are pooled, for numbers and classes of proteins [default: max,
    /// as in the paper].
    #[arg(long, value_enum)]
    pooling: Option<PoolingArg>,

    /// The directory to write the head to.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,

    /// Draw the last test set (confusion matrix, or predicted against measured numbers): .png or
    /// .svg.
    #[arg(long, value_name = "PICTURE")]
    plot: Option<PathBuf>,
}

/// The poolings of a head.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingArg {
    /// The largest value of each dimension over residues.
    Max,
    /// The mean over residues.
    Mean,
}

impl WhatArgs {
    fn readout(&self) -> Result<Readout> {
        let readout = self.task.readout();
        match self.pooling {
            None => Ok(readout),
            Some(_) if readout == Readout::Residues => {
                bail!(usage("--pooling is for numbers and classes of proteins"))
            }
            Some(PoolingArg::Max) => Ok(Readout::Max),
            Some(PoolingArg::Mean) => Ok(Readout::Mean),
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &TrainArgs) -> Result<Outcome> {
    let what = &args.what;
    if what.task == ProbeTask::Contacts {
        return contacts(args);
    }
    let picture = what.plot.as_deref().map(Picture::of_path).transpose();
    let picture = picture.map_err(usage)?;
    check_outputs(what.plot.iter().map(|path| (&**path, Content::Binary)))?;
    heads::check_folder(&what.output)?;
    let readout = what.readout()?;
    let sets = TrainingSets::read(&args.tables, what.task)?;
    let mut opened = OpenedFeatures::for_training(&args.features, &args.runtime, "probe train")?;
    let plan = FitPlan {
        shape: HeadShape {
            width: opened.source.width(),
            body: args.training.body,
            readout,
            outputs: sets.task.classes().len().max(1),
        },
        settings: args.training.settings(),
        device: opened.device.clone(),
        measure: sets.task.chief_measure(),
    };
    plan.shape.check()?;
    opened.prepare(&sets.train.rows.proteins())?;
    for set in sets.evaluated() {
        opened.prepare(&set.rows.proteins())?;
    }
    let fitted = train(&plan, &sets, &opened)?;
    let reports = evaluate(&plan, &sets, &opened, &fitted.head)?;
    let description = describe(what.task, plan, &sets, &opened, &fitted, &reports)?;
    heads::save(&what.output, &description, Some(&fitted.weights))?;
    write(&reports)?;
    tracing::info!("wrote the head to {}", what.output.display());
    if let (Some(picture), Some((_, report))) = (picture, reports.last()) {
        measures::draw(&picture, &description, report)?;
    }
    Ok(Outcome::Done)
}

/// `--task contacts`: as `ankh3 contacts fit --method head`.
fn contacts(args: &TrainArgs) -> Result<Outcome> {
    let files = StructureFiles {
        train: &args.tables.train,
        valid: &args.tables.valid,
        test: &args.tables.test,
        limit: args.tables.limit,
    };
    fit_head(
        &files,
        &args.what.output,
        &args.features,
        &args.training,
        &args.runtime,
    )
}

/// The measures of a set.
fn report(
    sets: &TrainingSets,
    set: &NamedSet,
    opened: &OpenedFeatures,
    head: &Head,
    how: Resampling,
) -> Result<MetricReport, ProbeError> {
    let outputs = outputs(head, &opened.source.features(&set.rows.proteins()))?;
    Ok(MetricReport::of_outputs(
        &sets.task,
        &outputs,
        &set.labels,
        how,
    ))
}

fn train(plan: &FitPlan, sets: &TrainingSets, opened: &OpenedFeatures) -> Result<Fitted> {
    let proteins = sets.train.rows.proteins();
    let examples = Examples {
        features: opened.source.features(&proteins),
        labels: &sets.train.labels,
    };
    let Some(valid) = &sets.valid else {
        return Ok(fit(plan, &examples, None)?);
    };
    let judge = |head: &Head| {
        let report = report(sets, valid, opened, head, Resampling::NONE)?;
        Ok(report.value(plan.measure))
    };
    Ok(fit(plan, &examples, Some(&judge))?)
}

/// The measures of the validation set and of every test set, with intervals.
fn evaluate<'a>(
    plan: &FitPlan,
    sets: &'a TrainingSets,
    opened: &OpenedFeatures,
    head: &Head,
) -> Result<Vec<(&'a str, MetricReport)>> {
    let how = Resampling {
        resamples: RESAMPLES,
        seed: plan.settings.seed,
    };
    let one = |set: &'a NamedSet| Ok((set.name.as_str(), report(sets, set, opened, head, how)?));
    sets.evaluated().map(one).collect()
}

/// The description of a fitted head.
fn describe(
    task: ProbeTask,
    plan: FitPlan,
    sets: &TrainingSets,
    opened: &OpenedFeatures,
    fitted: &Fitted,
    reports: &[(&str, MetricReport)],
) -> Result<HeadDescription> {
    let mut metrics = Map::new();
    for (name, report) in reports {
        metrics.insert((*name).to_owned(), report.to_json(sets.task.classes()));
    }
    Ok(HeadDescription {
        format: FORMAT.to_owned(),
        name: task.name().to_owned(),
        source: opened.origin.clone(),
        task: sets.task.clone(),
        method: FittedMethod::Head {
            shape: plan.shape,
            settings: plan.settings,
        },
        by_separation: None,
        epochs: fitted.epochs.clone(),
        data: sets.data.clone(),
        metrics,
        made_by: opened.manifest.to_map()?,
    })
}

/// Writes the measures to stdout.
fn write(reports: &[(&str, MetricReport)]) -> Result<()> {
    let mut table = Table::create(Path::new("-"), TableFormat::Tsv, &measures::COLUMNS)?;
    for (name, report) in reports {
        measures::write(&mut table, name, report)?;
    }
    table.finish().context("writing the measures")
}
