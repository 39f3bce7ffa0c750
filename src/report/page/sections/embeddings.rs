//! Embeddings: one row per column of the file, and the lengths of its proteins.

use maud::{Markup, html};

use crate::output::embeddings::inspect::EmbeddingSummary;
use crate::report::error::ReportError;
use crate::report::page::html::{distribution, number_or_dash, table};
use crate::sequence::counted;

const COLUMNS: [&str; 7] = [
    "column",
    "rows",
    "values per row",
    "min",
    "mean",
    "max",
    "not finite",
];

pub(super) fn body(
    summary: &EmbeddingSummary,
    proteins: &[(String, usize)],
) -> Result<Markup, ReportError> {
    let lengths: Vec<f64> = proteins.iter().map(|(_, length)| *length as f64).collect();
    let rows = html! {
        @for column in &summary.columns {
            tr {
                td { (column.column.name) }
                td.n { (column.rows) }
                td.n { (column.column.width) }
                td.n { (number_or_dash(column.min.map(f64::from))) }
                td.n { (number_or_dash(column.mean)) }
                td.n { (number_or_dash(column.max.map(f64::from))) }
                td.n { (column.non_finite) }
            }
        }
    };
    Ok(html! {
        p {
            (counted(proteins.len(), "protein")) ", " (summary.residues) " residues, "
            (summary.format.name()) " (" (summary.dtype.name()) ")"
        }
        (table(&COLUMNS, &rows))
        (distribution("length", "residues", &lengths)?)
    })
}
