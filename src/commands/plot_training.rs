//! `ankh3 plot-training`: a run's log as curves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;

use super::Outcome;
use crate::args::usage;
use crate::report::curves::{Curve, Curves, Look, Panel, smoothed};
use crate::report::picture::{Picture, draw};

/// Draw the curves of a training run: losses, held-out perplexity, learning rate
///
/// Reads RUN/log.jsonl, also while the run goes on. Training losses are drawn pale as they are and, on top, smoothed (an exponential moving average over
/// about a fiftieth of the lines); held-out figures are of each objective and masking probability.
#[derive(Args, Clone, Debug)]
pub struct PlotTrainingArgs {
    /// The directory of the run
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// The picture, .png or .svg [default: RUN/training.png]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A line of the log.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Train(Train),
    Evaluation(Evaluation),
}

/// Losses that are not finite are `null` in JSON.
#[derive(Debug, Deserialize)]
struct Train {
    step: u64,
    loss: Option<f64>,
    #[serde(default)]
    by_task: BTreeMap<String, Option<f64>>,
    gradient_norm: Option<f64>,
    learning_rate: f64,
}

#[derive(Debug, Deserialize)]
struct Evaluation {
    step: u64,
    tasks: Vec<Judged>,
}

#[derive(Debug, Deserialize)]
struct Judged {
    task: String,
    loss: Option<f64>,
    residue_perplexity: Option<f64>,
    residue_accuracy: Option<f64>,
}

/// Runs the command.
///
/// # Errors
/// A run without a log, a damaged log, a picture that cannot be written.
pub fn run(args: &PlotTrainingArgs) -> Result<Outcome> {
    let path = args.output.clone();
    let picture = Picture::of_path(&path.unwrap_or_else(|| args.run.join("training.png")));
    let picture = picture.map_err(usage)?;
    let (steps, evaluations) = read(&args.run.join("log.jsonl"))?;
    let curves = Curves {
        title: format!("{}, {} steps", args.run.display(), last_step(&steps)),
        panels: panels(&steps, &evaluations),
    };
    draw(&picture, &curves).with_context(|| picture.path.display().to_string())?;
    tracing::info!("drew {}", picture.path.display());
    Ok(Outcome::Done)
}

fn read(path: &Path) -> Result<(Vec<Train>, Vec<Evaluation>)> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("{}: is it a run of `ankh3 pretrain`?", path.display()))?;
    let (mut steps, mut evaluations) = (Vec::new(), Vec::new());
    // The last line may be half written, by a run that goes on or was killed.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (number, line) in whole.lines().enumerate() {
        let line = serde_json::from_str(line)
            .with_context(|| format!("{}, line {}", path.display(), number + 1))?;
        match line {
            Line::Train(line) => steps.push(line),
            Line::Evaluation(line) => evaluations.push(line),
        }
    }
    ensure!(
        !steps.is_empty(),
        "{}: no step is logged yet; evaluation.log_every says how often one is",
        path.display()
    );
    Ok((steps, evaluations))
}

fn last_step(steps: &[Train]) -> u64 {
    steps.last().map_or(0, |line| line.step)
}

fn panels(steps: &[Train], evaluations: &[Evaluation]) -> Vec<Panel> {
    let panel = |title: &str, curves| Panel {
        title: title.to_owned(),
        curves,
    };
    let series = |value: &dyn Fn(&Train) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = steps.iter();
        points
            .map(|line| (line.step as f64, value(line).unwrap_or(f64::NAN)))
            .collect()
    };
    let mut panels = vec![panel("training loss", training_curves(steps))];
    if !evaluations.is_empty() {
        panels.push(panel(
            "held-out loss of a label",
            held_out(evaluations, |task| task.loss),
        ));
        let perplexity = held_out(evaluations, |task| task.residue_perplexity);
        panels.push(panel("held-out perplexity of a residue", perplexity));
        let accuracy = held_out(evaluations, |task| task.residue_accuracy);
        panels.push(panel("held-out accuracy of a residue", accuracy));
    }
    let line = |points| Curve {
        name: String::new(),
        points,
        look: Look::Line,
    };
    panels.push(panel(
        "learning rate",
        vec![line(series(&|line| Some(line.learning_rate)))],
    ));
    panels.push(panel(
        "gradient norm before clipping",
        vec![line(series(&|line| line.gradient_norm))],
    ));
    panels
}

/// The loss of all tasks raw and smoothed, and of each task smoothed.
fn training_curves(steps: &[Train]) -> Vec<Curve> {
    let span = (steps.len() as f64 / 50.0).max(5.0);
    let at: Vec<f64> = steps.iter().map(|line| line.step as f64).collect();
    let curve = |name: &str, values: Vec<f64>, look| Curve {
        name: name.to_owned(),
        points: at.iter().copied().zip(values).collect(),
        look,
    };
    let all: Vec<f64> = steps
        .iter()
        .map(|line| line.loss.unwrap_or(f64::NAN))
        .collect();
    let mut tasks: Vec<&String> = steps.iter().flat_map(|line| line.by_task.keys()).collect();
    tasks.sort();
    tasks.dedup();
    let mut curves = Vec::new();
    if tasks.len() > 1 {
        curves.extend(tasks.into_iter().map(|task| {
            let value = |line: &Train| line.by_task.get(task).copied().flatten();
            let values: Vec<f64> = steps
                .iter()
                .map(|line| value(line).unwrap_or(f64::NAN))
                .collect();
            curve(task, smoothed(&values, span), Look::Line)
        }));
    }
    // Last, so that each task has the colour that its held-out figures have.
    curves.push(curve("", all.clone(), Look::Faint));
    curves.push(curve("all", smoothed(&all, span), Look::Line));
    curves
}

/// A curve for each task.
fn held_out(evaluations: &[Evaluation], value: impl Fn(&Judged) -> Option<f64>) -> Vec<Curve> {
    let mut curves: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for evaluation in evaluations {
        for task in &evaluation.tasks {
            let point = (evaluation.step as f64, value(task).unwrap_or(f64::NAN));
            curves.entry(&task.task).or_default().push(point);
        }
    }
    let curves = curves.into_iter().map(|(task, points)| Curve {
        name: task.to_owned(),
        points,
        look: Look::Marked,
    });
    curves.collect()
}
