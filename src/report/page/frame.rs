//! The frame of the page: title, models, list of contents, then one section per file and the list
//! of files.

use std::collections::HashMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::results::{Limits, ResultFile};
use super::sections::{self, Section, files};
use crate::report::error::ReportError;
use crate::sequence::counted;

const STYLE: &str = include_str!("report.css");

/// Writes the page.
///
/// # Errors
/// A chart that cannot be drawn.
pub fn render(title: &str, files: &[ResultFile], limits: Limits) -> Result<String, ReportError> {
    let lengths: HashMap<&str, usize> = files.iter().flat_map(ResultFile::lengths).collect();
    let mut shown = Vec::new();
    for file in files {
        if let Some(section) = sections::of_file(file, &lengths, limits)? {
            shown.push((section, file.name.as_str()));
        }
    }
    let summary = format!(
        "ankh3 {} · {} · {}",
        env!("CARGO_PKG_VERSION"),
        counted(files.len(), "file"),
        counted(lengths.len(), "protein")
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(title))
            body {
                header {
                    h1 { (title) }
                    (models(files))
                    p { (summary) }
                }
                @if files.iter().any(ResultFile::is_of_random_model) {
                    p.warning role="alert" {
                        "Some of these files were made with a random, untrained model: their numbers mean nothing."
                    }
                }
                (contents(&shown))
                @for (number, (section, name)) in shown.iter().enumerate() {
                    section id={ "section-" (number + 1) } {
                        h2 { (section.heading) " " span.file { (name) } }
                        (section.body)
                    }
                }
                (files::list(files))
            }
        }
    };
    Ok(page.into_string())
}

fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="generator" content={ "ankh3 " (env!("CARGO_PKG_VERSION")) };
            title { (title) }
            style { (PreEscaped(STYLE)) }
        }
    }
}

/// The models that made the files, each once, in the order of the files.
fn models(files: &[ResultFile]) -> Markup {
    let mut names: Vec<&str> = Vec::new();
    for model in files.iter().filter_map(ResultFile::model) {
        if !names.contains(&model) {
            names.push(model);
        }
    }
    let noun = if names.len() == 1 { "Model" } else { "Models" };
    html! {
        @if !names.is_empty() { p.model { (noun) ": " b { (names.join(", ")) } } }
    }
}

fn contents(sections: &[(Section, &str)]) -> Markup {
    html! {
        nav aria-label="contents" {
            ol {
                @for (number, (section, name)) in sections.iter().enumerate() {
                    li {
                        a href={ "#section-" (number + 1) } { (section.heading) } " " span.file { (name) }
                    }
                }
                li { a href={ "#" (files::ANCHOR) } { (files::HEADING) } }
            }
        }
    }
}
