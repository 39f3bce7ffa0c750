//! A head's outputs over a set, and what they are worth.

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::preset::chief_measure;
use crate::output::table::{Cell, Table};
use crate::probe::description::{Description, Source, Task};
use crate::probe::head::Head;
use crate::probe::loss::Target;
use crate::probe::metrics::{Estimate, RESAMPLES};
use crate::probe::report::{Report, Resampling};
use crate::probe::train::{Features, TrainError, tensor};
use crate::report::charts::canvas::Heading;
use crate::report::charts::{ConfusionPlot, ScatterPlot};
use crate::report::picture::{self, Picture};
use candle_core::Device;

/// The outputs of each protein, `(rows, outputs)`.
pub(super) fn outputs(
    head: &Head,
    rows: &dyn Features,
    count: usize,
    device: &Device,
) -> Result<Vec<Vec<Vec<f32>>>, TrainError> {
    let one = |number: usize| {
        let output = head.forward(&tensor(rows, number, device)?, None)?;
        Ok(output.to_vec2::<f32>()?)
    };
    if device.is_cpu() {
        (0..count).into_par_iter().map(one).collect()
    } else {
        (0..count).map(one).collect()
    }
}

/// Judges outputs by what is true.
pub(super) fn judge(
    task: &Task,
    outputs: &[Vec<Vec<f32>>],
    targets: &[Target],
    resamples: usize,
    seed: u64,
) -> Report {
    let how = Resampling { resamples, seed };
    if let Task::Number = task {
        let pairs = outputs
            .iter()
            .zip(targets)
            .filter_map(|(output, target)| match target {
                Target::Value(value) => Some((f64::from(*output.first()?.first()?), *value)),
                _ => None,
            });
        return Report::of_numbers(pairs.collect(), how);
    }
    let predicted: Vec<_> = outputs
        .iter()
        .zip(targets)
        .map(|(output, target)| match target {
            Target::Residues(classes) => classes
                .iter()
                .zip(output)
                .filter_map(|(class, logits)| Some(((*class)? as usize, logits.clone())))
                .collect(),
            Target::Class(class) => vec![(*class as usize, output[0].clone())],
            _ => Vec::new(),
        })
        .collect();
    Report::of_classes(task.classes(), &predicted, how)
}

/// The measure that decides over epochs, without intervals.
pub(super) fn chief(task: &Task, outputs: &[Vec<Vec<f32>>], targets: &[Target]) -> Option<f64> {
    judge(task, outputs, targets, 0, 0).value(chief_measure(task))
}

/// All measures with their intervals.
pub(super) fn measured(
    task: &Task,
    outputs: &[Vec<Vec<f32>>],
    targets: &[Target],
    seed: u64,
) -> Report {
    judge(task, outputs, targets, RESAMPLES, seed)
}

/// The columns of a table of measures.
pub(super) const COLUMNS: [&str; 7] = [
    "set", "measure", "value", "low", "high", "proteins", "counted",
];

/// Writes a report's measures.
pub(super) fn write(table: &mut Table, set: &str, report: &Report) -> Result<()> {
    for (name, estimate) in &report.metrics {
        let Estimate { value, low, high } = *estimate;
        table.row(&[
            Cell::Text(set),
            Cell::Text(name),
            Cell::Number(value),
            Cell::Number(low),
            Cell::Number(high),
            Cell::Count(report.proteins),
            Cell::Count(report.counted),
        ])?;
    }
    Ok(())
}

/// Draws a confusion matrix or a scatter plot.
pub(super) fn draw(picture: &Picture, head: &Description, report: &Report) -> Result<()> {
    let (name, task) = (&head.name, &head.task);
    let features = match &head.source {
        Source::Model { model, .. } => format!("model {model}"),
        Source::Blind { features, .. } => format!("no model, features {features}"),
    };
    let shown = |measure: &str| {
        let found = report.metrics.iter().find(|(known, _)| known == measure);
        found.map(|(name, estimate)| format!("{name} {estimate}"))
    };
    let title = format!("{name}: {}", shown(chief_measure(task)).unwrap_or_default());
    let classes = task.classes();
    let drawn = if let Some(confusion) = &report.confusion {
        let pairs =
            (0..classes.len()).flat_map(|truth| (0..classes.len()).map(move |p| (truth, p)));
        let counts = pairs
            .map(|(truth, predicted)| confusion.count(truth, predicted))
            .collect();
        picture::draw(
            picture,
            &ConfusionPlot {
                heading: Heading::new(&title, &features),
                classes: classes.to_vec(),
                counts,
            },
        )
    } else {
        let note = ["pearson", "mse"]
            .into_iter()
            .filter_map(shown)
            .collect::<Vec<_>>()
            .join("   ");
        picture::draw(
            picture,
            &ScatterPlot {
                heading: Heading::new(&title, &format!("{features}   {note}")),
                x_label: "measured".to_owned(),
                y_label: "predicted".to_owned(),
                pairs: report.pairs.clone(),
            },
        )
    };
    drawn.with_context(|| format!("drawing {}", picture.path.display()))
}
