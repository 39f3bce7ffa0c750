//! `ankh3 plot-training`: draws the log of a training run as curves.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Outcome;
use crate::args::usage;
use crate::report::charts::canvas::Heading;
use crate::report::charts::lines::{ChartGrid, Curve, LineChart, LineStyle, smoothed};
use crate::report::picture::{Picture, draw};
use crate::report::training_log::TrainingLog;

/// Draw the curves of a training run: losses, held-out perplexity, learning rate
///
/// Reads RUN/log.jsonl, also while the run is going on. The training loss is drawn twice: as a pale
/// line, and as a line smoothed by an exponential moving average over about a fiftieth of the
/// logged steps. Results on held-out proteins have one curve per objective and masking probability.
#[derive(Args, Clone, Debug)]
pub struct PlotTrainingArgs {
    /// The directory of the run
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// The picture to write, .png or .svg [default: RUN/training.png]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Draws the curves.
///
/// # Errors
/// A run without a log, a damaged log, a picture that cannot be written.
pub fn run(args: &PlotTrainingArgs) -> Result<Outcome> {
    let output = args.output.clone();
    let output = output.unwrap_or_else(|| args.run.join("training.png"));
    let picture = Picture::of_path(&output).map_err(usage)?;
    let path = args.run.join("log.jsonl");
    let log = TrainingLog::read(&path)
        .with_context(|| format!("{}: is it a run of `ankh3 pretrain`?", args.run.display()))?;
    let last = log.steps.last().map(|line| line.step);
    ensure!(
        last.is_some(),
        "{}: no step is logged yet; evaluation.log_every in the recipe sets how often a step is logged",
        path.display()
    );
    let grid = ChartGrid {
        heading: Heading::new(
            &args.run.display().to_string(),
            &format!("{} steps", last.unwrap_or_default()),
        ),
        charts: charts(&log),
    };
    draw(&picture, &grid).with_context(|| picture.path.display().to_string())?;
    tracing::info!("drew {}", picture.path.display());
    Ok(Outcome::Done)
}

fn charts(log: &TrainingLog) -> Vec<LineChart> {
    let chart = |title: &str, y_label: &str, curves| LineChart {
        title: title.to_owned(),
        y_label: y_label.to_owned(),
        curves,
    };
    let unnamed = |points| {
        vec![Curve {
            name: String::new(),
            points,
            style: LineStyle::Plain,
        }]
    };
    let mut charts = vec![chart("training loss", "loss per label", training(log))];
    if !log.evaluations.is_empty() {
        let loss = log.held_out(|task| task.loss);
        charts.push(chart("held-out loss", "loss per label", loss));
        let perplexity = log.held_out(|task| task.residue_perplexity);
        charts.push(chart(
            "held-out perplexity",
            "perplexity per residue",
            perplexity,
        ));
        let accuracy = log.held_out(|task| task.residue_accuracy);
        charts.push(chart("held-out accuracy", "accuracy per residue", accuracy));
    }
    let rate = unnamed(log.points(|line| line.learning_rate));
    charts.push(chart("learning rate", "learning rate", rate));
    let norm = unnamed(log.points(|line| line.gradient_norm));
    charts.push(chart("gradient norm before clipping", "L2 norm", norm));
    charts
}

/// The loss of each task smoothed, and the loss of all tasks both raw and smoothed.
fn training(log: &TrainingLog) -> Vec<Curve> {
    let span = (log.steps.len() as f64 / 50.0).max(5.0);
    let smooth = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let (steps, values): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        steps.into_iter().zip(smoothed(&values, span)).collect()
    };
    let curve = |name: &str, points, style| Curve {
        name: name.to_owned(),
        points,
        style,
    };
    let mut tasks: Vec<&String> = log
        .steps
        .iter()
        .flat_map(|line| line.by_task.keys())
        .collect();
    tasks.sort();
    tasks.dedup();
    let mut curves = Vec::new();
    if tasks.len() > 1 {
        for task in tasks {
            let points = log.points(|line| line.by_task.get(task).copied().flatten());
            curves.push(curve(task, smooth(&points), LineStyle::Plain));
        }
    }
    // The curves of all tasks are last, so that each task has the colour of its held-out curve.
    let all = log.points(|line| line.loss);
    curves.push(curve("", all.clone(), LineStyle::Faint));
    curves.push(curve("all", smooth(&all), LineStyle::Plain));
    curves
}
