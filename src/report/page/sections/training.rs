//! A training run: curves of the loss and the last evaluation.

use maud::{Markup, html};

use crate::report::charts::lines::{Curve, LineChart, LineStyle};
use crate::report::error::ReportError;
use crate::report::page::html::{figure, number_or_dash, table};
use crate::report::training_log::{HeldOutEvaluation, TrainingLog};
use crate::sequence::counted;

pub(super) fn body(log: &TrainingLog) -> Result<Markup, ReportError> {
    let training = Curve {
        name: String::new(),
        points: log.points(|line| line.loss),
        style: LineStyle::Plain,
    };
    let held_out = log.held_out(|task| task.loss);
    Ok(html! {
        p {
            (counted(log.steps.len(), "logged step")) ", "
            (counted(log.evaluations.len(), "evaluation")) " on held-out proteins."
        }
        div.charts {
            (chart(vec![training], "Loss of the training batches")?)
            (chart(held_out, "Loss on held-out proteins by task")?)
        }
        @if let Some(last) = log.evaluations.last() { (evaluation(last)) }
    })
}

/// A chart of losses; nothing where there is no value.
fn chart(curves: Vec<Curve>, caption: &str) -> Result<Markup, ReportError> {
    let chart = LineChart {
        title: String::new(),
        y_label: "loss".to_owned(),
        curves,
    };
    if chart.is_empty() {
        return Ok(Markup::default());
    }
    Ok(figure(&chart, &html! { (caption) })?)
}

fn evaluation(evaluation: &HeldOutEvaluation) -> Markup {
    let rows = html! {
        @for task in &evaluation.tasks {
            tr {
                td { (task.task) }
                td.n { (number_or_dash(task.loss)) }
                td.n { (number_or_dash(task.residue_perplexity)) }
                td.n { (number_or_dash(task.residue_accuracy)) }
            }
        }
    };
    let columns = [
        "task",
        "loss",
        "perplexity per residue",
        "accuracy per residue",
    ];
    html! {
        p { "After " (evaluation.step) " steps, on held-out proteins:" }
        (table(&columns, &rows))
    }
}
