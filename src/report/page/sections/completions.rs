//! Completions: the lowest perplexity first, with the model's residues in blue.

use maud::{Markup, html};

use crate::report::error::ReportError;
use crate::report::numbers::short;
use crate::report::page::html::{distribution, rest, table};
use crate::report::page::results::Limits;
use crate::report::page::sequences::{CompletionHeader, ResultSequence};
use crate::sequence::counted;

const COLUMNS: [&str; 9] = [
    "id",
    "prompt",
    "new",
    "perplexity",
    "log likelihood",
    "most common",
    "end",
    "decoding",
    "sequence",
];

pub(super) fn body(records: &[ResultSequence], limits: Limits) -> Result<Markup, ReportError> {
    let mut ranked: Vec<(&ResultSequence, &CompletionHeader)> = records
        .iter()
        .filter_map(|record| Some((record, record.completion.as_ref()?)))
        .collect();
    ranked.sort_by(|a, b| a.1.perplexity.total_cmp(&b.1.perplexity));
    let (mut perplexities, mut lengths) = (Vec::new(), Vec::new());
    for (_, completion) in &ranked {
        perplexities.push(completion.perplexity);
        lengths.push((completion.prompt + completion.new) as f64);
    }
    let repeats = |(record, _): &&(&ResultSequence, _)| record.most_common_share() > 0.5;
    let repeating = ranked.iter().filter(repeats).count();
    let rows = html! {
        @for (record, completion) in ranked.iter().take(limits.rows) { (row(record, completion)) }
    };
    Ok(html! {
        p {
            (counted(ranked.len(), "completion")) ", the lowest perplexity first. "
            span.new { "Blue" } " residues are the model's."
        }
        @if repeating > 0 {
            p.warning {
                (repeating) " of " (counted(ranked.len(), "completion"))
                " consist of one residue for more than half: a poor or untrained model repeats itself."
            }
        }
        div.charts {
            (distribution("perplexity", "perplexity", &perplexities)?)
            (distribution("length", "residues, prompt and completion", &lengths)?)
        }
        (table(&COLUMNS, &rows))
        (rest(ranked.len(), limits.rows))
    })
}

fn row(record: &ResultSequence, completion: &CompletionHeader) -> Markup {
    let (prompt, new) = record.parts();
    html! {
        tr {
            td { (record.id) }
            td.n { (completion.prompt) }
            td.n { (completion.new) }
            td.n { (short(completion.perplexity)) }
            td.n { (short(completion.log_likelihood)) }
            td.n { (format!("{:.0} %", 100.0 * record.most_common_share())) }
            td { (completion.end) }
            td { (completion.decoding) }
            td {
                details {
                    summary { (record.residues.len()) " residues" }
                    code { (prompt) span.new { (new) } }
                }
            }
        }
    }
}
