//! The list of files: size, SHA-256, and how each file was made.

use maud::{Markup, html};
use serde_json::Value;

use crate::report::page::html::table;
use crate::report::page::results::ResultFile;

/// The anchor of the section.
pub(in crate::report::page) const ANCHOR: &str = "files";
pub(in crate::report::page) const HEADING: &str = "Files, and how they were made";
/// Digits of a SHA-256 that are shown; the tooltip has all of them.
const DIGITS: usize = 12;

pub(in crate::report::page) fn list(files: &[ResultFile]) -> Markup {
    let rows = html! {
        @for file in files {
            tr {
                td { (file.name) }
                td { (file.content.name()) }
                td.n { (file.bytes) }
                td { code title=(file.sha256) { (file.sha256[..DIGITS]) } }
                td { (provenance(file.provenance.as_ref())) }
            }
        }
    };
    html! {
        section id=(ANCHOR) {
            h2 { (HEADING) }
            (table(&["file", "content", "bytes", "SHA-256", "made by"], &rows))
        }
    }
}

fn provenance(value: Option<&Value>) -> Markup {
    let Some(value) = value else {
        return html! { span.note { "not recorded" } };
    };
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let summary = [text("tool"), text("command"), text("model")];
    let summary: Vec<&str> = summary.into_iter().flatten().collect();
    html! {
        details {
            summary { @if summary.is_empty() { "details" } @else { (summary.join(" · ")) } }
            table {
                @if let Value::Object(map) = value {
                    @for (key, value) in map {
                        tr {
                            td { (key) }
                            td { @if let Some(text) = value.as_str() { (text) } @else { (value.to_string()) } }
                        }
                    }
                }
            }
        }
    }
}
