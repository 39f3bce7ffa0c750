//! The table of precisions: one row per chain, range and part of L, then the means.

use anyhow::Result;

use crate::output::table::{Cell, Table};
use crate::probe::contact_evaluation::{ContactEvaluation, ContactMeasure};
use crate::probe::metrics::Estimate;

/// The columns of the table.
pub(super) const COLUMNS: [&str; 9] = [
    "set",
    "id",
    "length",
    "range",
    "measure",
    "precision",
    "low",
    "high",
    "separation_only",
];

/// Writes every chain, then the means (id `mean`).
pub(super) fn write(
    table: &mut Table,
    set: &str,
    evaluation: &ContactEvaluation<'_>,
) -> Result<()> {
    for (number, chain) in evaluation.chains.iter().enumerate() {
        for measure in ContactMeasure::all() {
            let precision = evaluation.chain(number, measure);
            table.row(&[
                Cell::Text(set),
                Cell::Text(&chain.id),
                Cell::Count(chain.native.resolved()),
                Cell::Text(measure.range()),
                Cell::Text(&measure.part()),
                cell(precision.predicted),
                cell(None),
                cell(None),
                cell(precision.baseline),
            ])?;
        }
    }
    for measure in ContactMeasure::all() {
        let mean = evaluation.mean(measure);
        let predicted = |part: fn(&Estimate) -> f64| cell(mean.predicted.as_ref().map(part));
        table.row(&[
            Cell::Text(set),
            Cell::Text("mean"),
            Cell::Count(evaluation.resolved()),
            Cell::Text(measure.range()),
            Cell::Text(&measure.part()),
            predicted(|mean| mean.value),
            predicted(|mean| mean.low),
            predicted(|mean| mean.high),
            cell(mean.baseline.map(|mean| mean.value)),
        ])?;
    }
    Ok(())
}

fn cell(value: Option<f64>) -> Cell<'static> {
    Cell::Number(value.unwrap_or(f64::NAN))
}
