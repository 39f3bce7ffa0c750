//! The page: what was found in the files, kind by kind, then the files themselves and how each was made.

use std::collections::HashMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use super::chart::{self, Curve};
use super::contacts::{Contact, ContactList, Measure};
use super::numbers::{Bins, Summary, short};
use super::sequences::{Completion, Written};
use super::table::PlainTable;
use super::training::{Task, Training};
use super::{Content, Limits, ReportError, Source, map};
use crate::output::embeddings::inspect;

const STYLE: &str = include_str!("report.css");
/// Long ago enough to be told apart from `short` numbers, short enough for a line.
const HASH: usize = 12;

/// Writes the page.
///
/// # Errors
/// A chart that cannot be drawn.
pub fn render(title: &str, sources: &[Source], limits: Limits) -> Result<String, ReportError> {
    let lengths = known_lengths(sources);
    let mut sections = Vec::new();
    for source in sources {
        sections.extend(section(source, &lengths, limits)?);
    }
    let random = sources.iter().any(is_random);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content={ "ankh3 " (env!("CARGO_PKG_VERSION")) };
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p { "ankh3 " (env!("CARGO_PKG_VERSION")) " · " (counted(sources.len(), "file")) " · " (counted(lengths.len(), "protein")) }
                }
                @if random {
                    p.warning role="alert" { "Some of these files were made with a random, untrained model: their numbers mean nothing." }
                }
                @for section in &sections { (section) }
                (files(sources))
            }
        }
    };
    Ok(page.into_string())
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn is_random(source: &Source) -> bool {
    let provenance = source.provenance.as_ref();
    provenance.and_then(|value| value.get("model_is_random")) == Some(&Value::Bool(true))
}

/// Residues of each protein that some file tells them of.
fn known_lengths(sources: &[Source]) -> HashMap<&str, usize> {
    let mut lengths = HashMap::new();
    for source in sources {
        match &source.content {
            Content::Embeddings(_, proteins) => {
                lengths.extend(proteins.iter().map(|(id, length)| (id.as_str(), *length)));
            }
            Content::Sequences(records) => {
                let plain = records.iter().filter(|record| record.completion.is_none());
                lengths.extend(plain.map(|record| (record.id.as_str(), record.residues.len())));
            }
            Content::Contacts(lists) => {
                let told = lists.iter().filter(|list| list.length > 0);
                lengths.extend(told.map(|list| (list.id.as_str(), list.length)));
            }
            Content::Table(table) => {
                let columns = table.column("id").zip(table.column("length"));
                lengths.extend(table.rows.iter().filter_map(|row| {
                    let (id, length) = columns?;
                    Some((row[id].as_str(), row[length].parse().ok()?))
                }));
            }
            Content::Training(_) | Content::Recipe(_) | Content::Manifest => {}
        }
    }
    lengths
}

type Lengths<'a> = HashMap<&'a str, usize>;

fn section(
    source: &Source,
    lengths: &Lengths<'_>,
    limits: Limits,
) -> Result<Option<Markup>, ReportError> {
    let (heading, body) = match &source.content {
        Content::Embeddings(summary, proteins) => ("Embeddings", embeddings(summary, proteins)?),
        Content::Sequences(records) if records.iter().any(|record| record.completion.is_some()) => {
            ("Completions", completions(records, limits)?)
        }
        Content::Sequences(records) => {
            let lengths: Vec<f64> = records.iter().map(|r| r.residues.len() as f64).collect();
            ("Sequences", distribution("length", "residues", &lengths)?)
        }
        Content::Contacts(lists) => ("Contacts", contacts(lists, lengths, limits)),
        Content::Table(table) => (heading_of(table), table_section(table, limits)?),
        Content::Training(training) => ("Training", training_section(training)?),
        Content::Recipe(text) => ("Recipe", html! { pre { (text) } }),
        Content::Manifest => return Ok(None),
    };
    Ok(Some(html! {
        section {
            h2 { (heading) " " span.file { (source.name) } }
            (body)
        }
    }))
}

fn embeddings(
    summary: &inspect::EmbeddingSummary,
    proteins: &[(String, usize)],
) -> Result<Markup, ReportError> {
    let lengths: Vec<f64> = proteins.iter().map(|(_, length)| *length as f64).collect();
    let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), short);
    let columns = html! {
        table {
            thead { tr { th { "column" } th { "rows" } th { "values a row" } th { "min" } th { "mean" } th { "max" } th { "not finite" } } }
            tbody {
                @for column in &summary.columns {
                    tr {
                        td { (column.column.name) }
                        td.n { (column.rows) }
                        td.n { (column.column.width) }
                        td.n { (show(column.min.map(f64::from))) }
                        td.n { (show(column.mean)) }
                        td.n { (show(column.max.map(f64::from))) }
                        td.n { (column.non_finite) }
                    }
                }
            }
        }
    };
    Ok(html! {
        p { (counted(proteins.len(), "protein")) ", " (summary.residues) " residues, " (summary.format.name()) " (" (summary.dtype.name()) ")" }
        (columns)
        (distribution("length", "residues", &lengths)?)
    })
}

/// A summary in a line and a histogram.
fn distribution(name: &str, axis: &str, values: &[f64]) -> Result<Markup, ReportError> {
    let (Some(summary), Some(bins)) = (Summary::of(values), Bins::of(values)) else {
        return Ok(html! { p.note { "no " (name) " to show" } });
    };
    let svg = chart::histogram(&bins, axis)?;
    let absent = values.len() - summary.count;
    Ok(html! {
        figure {
            (PreEscaped(svg))
            figcaption {
                b { (name) } ": " (summary.count) " values, min " (short(summary.min)) ", median " (short(summary.median))
                ", mean " (short(summary.mean)) ", max " (short(summary.max))
                @if absent > 0 { ", " (absent) " without a value" }
            }
        }
    })
}

fn completions(records: &[Written], limits: Limits) -> Result<Markup, ReportError> {
    let mut ranked: Vec<(&Written, &Completion)> = records
        .iter()
        .filter_map(|record| Some((record, record.completion.as_ref()?)))
        .collect();
    ranked.sort_by(|a, b| a.1.perplexity.total_cmp(&b.1.perplexity));
    let numbers =
        |of: fn(&(&Written, &Completion)) -> f64| ranked.iter().map(of).collect::<Vec<_>>();
    let perplexities = numbers(|(_, completion)| completion.perplexity);
    let lengths = numbers(|(_, completion)| (completion.prompt + completion.new) as f64);
    let shares = numbers(|(record, _)| record.most_common_share());
    let repeating = shares.iter().filter(|share| **share > 0.5).count();
    let rows = html! {
        @for (record, completion) in ranked.iter().take(limits.rows) {
            tr {
                td { (record.id) }
                td.n { (completion.prompt) }
                td.n { (completion.new) }
                td.n { (short(completion.perplexity)) }
                td.n { (short(completion.log_likelihood)) }
                td.n { (percent(record.most_common_share())) }
                td { (completion.end) }
                td { (completion.decoding) }
                td { (letters(record)) }
            }
        }
    };
    Ok(html! {
        p { (counted(ranked.len(), "completion")) ", the lowest perplexity first. " span.new { "Blue" } " residues are the model's." }
        @if repeating > 0 {
            p.warning { (counted(repeating, "completion")) " of " (ranked.len()) " consist of one residue for more than half: a poor or untrained model repeats itself." }
        }
        div.charts {
            (distribution("perplexity", "perplexity", &perplexities)?)
            (distribution("length", "residues, prompt and completion", &lengths)?)
        }
        table {
            thead { tr { th { "id" } th { "prompt" } th { "new" } th { "perplexity" } th { "log likelihood" } th { "most common" } th { "end" } th { "decoding" } th { "sequence" } } }
            tbody { (rows) }
        }
        (rest(ranked.len(), limits.rows))
    })
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn letters(record: &Written) -> Markup {
    let (prompt, new) = record.parts();
    html! { details { summary { (record.residues.len()) " residues" } code { (prompt) span.new { (new) } } } }
}

/// What a table does not show.
fn rest(total: usize, shown: usize) -> Markup {
    html! { @if total > shown { p.note { (shown) " of " (total) " rows are shown; the file has all of them." } } }
}

fn contacts(lists: &[ContactList], lengths: &Lengths<'_>, limits: Limits) -> Markup {
    let of = |list: &ContactList| ContactList {
        length: lengths
            .get(list.id.as_str())
            .copied()
            .unwrap_or(list.length),
        ..list.clone()
    };
    let shown = lists.iter().take(limits.maps).map(of);
    html! {
        p { (counted(lists.len(), "protein")) ". Both triangles show the same prediction, at most " (map::DRAWN) " contacts a residue, the surest; the darker the surer (0 to 1 in five steps)." }
        @if lists.iter().any(|list| list.measure == Measure::Score) {
            p { "These are scores, divided by the highest of each protein: an order of its pairs, not probabilities." }
        }
        div.maps {
            @for list in shown {
                figure {
                    (map::svg(&list))
                    figcaption {
                        b { (list.id) } ": " (list.size()) " residues, " (list.contacts.len()) " pairs"
                        @let long_range = long_range(&list);
                        @match list.measure {
                            Measure::Probability => { ", " (long_range) " long-range (≥ 24) above 0.5" }
                            Measure::Score => { ", " (long_range) " of them long-range (≥ 24)" }
                        }
                    }
                    (surest(&list))
                }
            }
        }
        @if lists.len() > limits.maps {
            p.note { (limits.maps) " of " (lists.len()) " proteins are shown; the file has all of them." }
        }
    }
}

/// Pairs far apart in the chain: the probable ones, or all of those that an order brought to the file.
fn long_range(list: &ContactList) -> usize {
    let counts = |contact: &&Contact| match list.measure {
        Measure::Probability => contact.probability > 0.5,
        Measure::Score => true,
    };
    let far = list.contacts.iter().filter(|it| it.j - it.i >= 24);
    far.filter(counts).count()
}

fn surest(list: &ContactList) -> Markup {
    let value = match list.measure {
        Measure::Probability => "probability",
        Measure::Score => "score",
    };
    html! {
        details {
            summary { "surest pairs" }
            table {
                thead { tr { th { "i" } th { "j" } th { "separation" } th { (value) } } }
                tbody {
                    @for contact in list.surest(10) {
                        tr { td.n { (contact.i) } td.n { (contact.j) } td.n { (contact.j - contact.i) } td.n { (short(contact.probability)) } }
                    }
                }
            }
        }
    }
}

fn heading_of(table: &PlainTable) -> &'static str {
    let has = |name| table.column(name).is_some();
    match () {
        () if has("pseudo_perplexity") => "Scores",
        () if has("variant") && has("score") => "Variants",
        () if has("rank") && has("filled") => "Filled sites",
        () => "Table",
    }
}

/// The column whose spread is worth a picture, what the axis calls it, and whether low is good.
const PICTURED: [(&str, bool); 4] = [
    ("pseudo_perplexity", true),
    ("score", false),
    ("probability", false),
    ("log_likelihood", false),
];

fn table_section(table: &PlainTable, limits: Limits) -> Result<Markup, ReportError> {
    let pictured = PICTURED
        .iter()
        .find(|(name, _)| table.column(name).is_some());
    let mut order: Vec<usize> = (0..table.rows.len()).collect();
    let mut charts = Vec::new();
    let mut said = String::new();
    if let Some((name, low_is_good)) = pictured {
        let values = table.numbers(name).unwrap_or_default();
        charts.push(distribution(name, name, &values)?);
        order.sort_by(|a, b| {
            let ascending = values[*a].total_cmp(&values[*b]);
            if *low_is_good {
                ascending
            } else {
                // NaN goes last either way.
                values[*a]
                    .is_nan()
                    .cmp(&values[*b].is_nan())
                    .then(ascending.reverse())
            }
        });
        let which = if *low_is_good { "lowest" } else { "highest" };
        said = format!(", the {which} {name} first");
    }
    if let Some(lengths) = table.numbers("length") {
        charts.push(distribution("length", "residues", &lengths)?);
    }
    Ok(html! {
        p { (counted(table.rows.len(), "row")) (said) "." }
        div.charts { @for chart in &charts { (chart) } }
        table {
            thead { tr { @for column in &table.columns { th { (column) } } } }
            tbody {
                @for row in order.iter().take(limits.rows).map(|row| &table.rows[*row]) {
                    tr { @for cell in row { (cell_of(cell)) } }
                }
            }
        }
        (rest(table.rows.len(), limits.rows))
    })
}

fn cell_of(text: &str) -> Markup {
    match text.parse::<f64>() {
        Ok(number) if text.contains(['.', 'e']) => html! { td.n title=(text) { (short(number)) } },
        Ok(_) => html! { td.n { (text) } },
        Err(_) => html! { td { (text) } },
    }
}

fn training_section(training: &Training) -> Result<Markup, ReportError> {
    let loss = Curve {
        name: "training".to_owned(),
        points: training.losses.clone(),
    };
    let held_out = held_out(training);
    let last = training.evaluations.last();
    let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), short);
    let figure = |svg: Option<String>, caption: &str| {
        html! { @if let Some(svg) = svg { figure { (PreEscaped(svg)) figcaption { (caption) } } } }
    };
    Ok(html! {
        p { (counted(training.losses.len(), "logged step")) ", " (counted(training.evaluations.len(), "evaluation")) " on held-out proteins." }
        div.charts {
            (figure(chart::curves(&[loss], "step", "loss")?, "Loss of the training batches"))
            (figure(chart::curves(&held_out, "step", "loss")?, "Loss on held-out proteins, by task"))
        }
        @if let Some(evaluation) = last {
            p { "After " (evaluation.step) " steps, on held-out proteins:" }
            table {
                thead { tr { th { "task" } th { "loss" } th { "perplexity of residues" } th { "accuracy of residues" } } }
                tbody {
                    @for Task { task, loss, residue_perplexity, residue_accuracy } in &evaluation.tasks {
                        tr {
                            td { (task) } td.n { (short(*loss)) }
                            td.n { (show(*residue_perplexity)) } td.n { (show(*residue_accuracy)) }
                        }
                    }
                }
            }
        }
    })
}

/// A curve a task, over the evaluations.
fn held_out(training: &Training) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for evaluation in &training.evaluations {
        for Task { task, loss, .. } in &evaluation.tasks {
            let point = (evaluation.step as f64, *loss);
            match curves.iter_mut().find(|curve| curve.name == *task) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve {
                    name: task.clone(),
                    points: vec![point],
                }),
            }
        }
    }
    curves
}

fn files(sources: &[Source]) -> Markup {
    html! {
        section {
            h2 { "Files, and how they were made" }
            table {
                thead { tr { th { "file" } th { "is" } th { "bytes" } th { "SHA-256" } th { "made by" } } }
                tbody {
                    @for source in sources {
                        tr {
                            td { (source.name) }
                            td { (source.content.name()) }
                            td.n { (source.bytes) }
                            td { code title=(source.sha256) { (source.sha256[..HASH]) } }
                            td { (provenance(source.provenance.as_ref())) }
                        }
                    }
                }
            }
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
                        tr { td { (key) } td { @if let Some(text) = value.as_str() { (text) } @else { (value.to_string()) } } }
                    }
                }
            }
        }
    }
}
