//! The sections of the page, one file per kind of result.

mod completions;
mod contacts;
mod embeddings;
pub(super) mod files;
mod measures;
mod table;
mod training;

use std::collections::HashMap;

use maud::{Markup, html};

use super::html::distribution;
use super::results::{Limits, ResultContent, ResultFile};
use crate::report::error::ReportError;

/// The part of the page about one file.
pub(super) struct Section {
    pub(super) heading: &'static str,
    pub(super) body: Markup,
}

/// The section of a file; `None` for provenance, which is in the list of files. `lengths` are those
/// of all proteins that any file of the report states.
pub(super) fn of_file(
    file: &ResultFile,
    lengths: &HashMap<&str, usize>,
    limits: Limits,
) -> Result<Option<Section>, ReportError> {
    let (heading, body) = match &file.content {
        ResultContent::Embeddings(summary, proteins) => {
            ("Embeddings", embeddings::body(summary, proteins)?)
        }
        ResultContent::Sequences(records) => {
            if records.iter().any(|record| record.completion.is_some()) {
                ("Completions", completions::body(records, limits)?)
            } else {
                let lengths: Vec<f64> = records.iter().map(|r| r.residues.len() as f64).collect();
                ("Sequences", distribution("length", "residues", &lengths)?)
            }
        }
        ResultContent::Contacts(lists) => ("Contacts", contacts::body(lists, lengths, limits)),
        ResultContent::Measures(table) => ("Evaluation", measures::body(table, limits)?),
        ResultContent::Table(table) => (table::heading(table), table::body(table, limits)?),
        ResultContent::Training(log) => ("Training", training::body(log)?),
        ResultContent::Recipe(text) => ("Recipe", html! { pre { (text) } }),
        ResultContent::Manifest => return Ok(None),
    };
    Ok(Some(Section { heading, body }))
}
