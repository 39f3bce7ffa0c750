//! Measures of a head: their table and their picture.

use anyhow::{Context, Result};

use crate::output::table::{Cell, Table};
use crate::probe::description::{FeatureOrigin, HeadDescription, PredictionTask};
use crate::probe::metrics::Estimate;
use crate::probe::metrics::classes::Confusion;
use crate::probe::report::MetricReport;
use crate::report::charts::canvas::Heading;
use crate::report::charts::{ConfusionPlot, ScatterPlot};
use crate::report::picture::{self, Picture};

/// The columns of the table.
pub(super) const COLUMNS: [&str; 7] = [
    "set", "measure", "value", "low", "high", "proteins", "counted",
];

/// Writes the measures of a set, one row per measure.
pub(super) fn write(table: &mut Table, set: &str, report: &MetricReport) -> Result<()> {
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

/// Draws the confusion matrix of classes, or predicted against measured numbers.
pub(super) fn draw(picture: &Picture, head: &HeadDescription, report: &MetricReport) -> Result<()> {
    let (name, task) = (&head.name, &head.task);
    let chief = shown(report, task.chief_measure());
    let title = format!("{name}: {}", chief.unwrap_or_default());
    let features = match &head.source {
        FeatureOrigin::Model { model, .. } => format!("model {model}"),
        FeatureOrigin::Residues { features, .. } => format!("no model, features {features}"),
    };
    let drawn = match &report.confusion {
        Some(confusion) => {
            let heading = Heading::new(&title, &features);
            picture::draw(picture, &confusion_plot(heading, task, confusion))
        }
        None => picture::draw(picture, &scatter_plot(&title, &features, report)),
    };
    drawn.with_context(|| format!("drawing {}", picture.path.display()))
}

/// A measure with its interval.
fn shown(report: &MetricReport, measure: &str) -> Option<String> {
    let found = report.metrics.iter().find(|(name, _)| name == measure);
    found.map(|(name, estimate)| format!("{name} {estimate}"))
}

fn confusion_plot(heading: Heading, task: &PredictionTask, confusion: &Confusion) -> ConfusionPlot {
    let classes = task.classes();
    let cells = (0..classes.len()).flat_map(|truth| (0..classes.len()).map(move |p| (truth, p)));
    ConfusionPlot {
        heading,
        classes: classes.to_vec(),
        counts: cells
            .map(|(truth, predicted)| confusion.count(truth, predicted))
            .collect(),
    }
}

fn scatter_plot(title: &str, features: &str, report: &MetricReport) -> ScatterPlot {
    let measures = ["pearson", "mse"].into_iter();
    let note: Vec<String> = measures.filter_map(|name| shown(report, name)).collect();
    let pairs = report.pairs.iter();
    ScatterPlot {
        heading: Heading::new(title, &format!("{features}   {}", note.join("   "))),
        x_label: "measured".to_owned(),
        y_label: "predicted".to_owned(),
        pairs: pairs.map(|pair| (pair.predicted, pair.measured)).collect(),
    }
}
