//! Tables of scores, variants, filled sites and anything else: the best rows first, and histograms
//! of what has a spread worth seeing.

use std::cmp::Ordering;

use maud::{Markup, html};

use crate::report::error::ReportError;
use crate::report::page::html::{cell, distribution, rest, table};
use crate::report::page::results::Limits;
use crate::report::page::table::PlainTable;
use crate::sequence::counted;

/// The order of the values of a column.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Lowest,
    Highest,
}

/// The column that orders the rows: the first one of this list that a table has.
const ORDERING: [(&str, First); 4] = [
    ("pseudo_perplexity", First::Lowest),
    ("score", First::Highest),
    ("probability", First::Highest),
    ("log_likelihood", First::Highest),
];

pub(super) fn heading(table: &PlainTable) -> &'static str {
    let has = |name| table.column(name).is_some();
    match () {
        () if has("pseudo_perplexity") => "Scores",
        () if has("variant") && has("score") => "Variants",
        () if has("rank") && has("filled") => "Filled sites",
        () => "Table",
    }
}

pub(super) fn body(content: &PlainTable, limits: Limits) -> Result<Markup, ReportError> {
    let mut charts = Vec::new();
    let mut order: Vec<usize> = (0..content.rows.len()).collect();
    let mut sorted = String::new();
    let ordering = ORDERING
        .iter()
        .find_map(|(name, first)| Some((name, *first, content.numbers(name)?)));
    if let Some((name, first, values)) = ordering {
        charts.push(distribution(name, name, &values)?);
        order.sort_by(|a, b| compare(values[*a], values[*b], first));
        let first = match first {
            First::Lowest => "lowest",
            First::Highest => "highest",
        };
        sorted = format!(", the {first} {name} first");
    }
    if let Some(lengths) = content.numbers("length") {
        charts.push(distribution("length", "residues", &lengths)?);
    }
    let rows = order.iter().map(|row| &content.rows[*row]);
    Ok(html! {
        p { (counted(content.rows.len(), "row")) (sorted) "." }
        div.charts { @for chart in &charts { (chart) } }
        (of_rows(content, rows.take(limits.rows)))
        (rest(content.rows.len(), limits.rows))
    })
}

/// Some rows of a table with all of its columns.
pub(super) fn of_rows<'a>(
    content: &PlainTable,
    rows: impl Iterator<Item = &'a Vec<String>>,
) -> Markup {
    let columns: Vec<&str> = content.columns.iter().map(String::as_str).collect();
    let rows = html! {
        @for row in rows { tr { @for text in row { (cell(text)) } } }
    };
    table(&columns, &rows)
}

/// NaN comes last in both orders.
fn compare(a: f64, b: f64, first: First) -> Ordering {
    let missing = a.is_nan().cmp(&b.is_nan());
    missing.then(match first {
        First::Lowest => a.total_cmp(&b),
        First::Highest => b.total_cmp(&a),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_numbers_come_last() {
        let sorted = |first| {
            let mut values = [2.0, f64::NAN, -f64::NAN, 3.0];
            values.sort_by(|a, b| compare(*a, *b, first));
            [values[0], values[1]]
        };
        assert_eq!(sorted(First::Lowest), [2.0, 3.0]);
        assert_eq!(sorted(First::Highest), [3.0, 2.0]);
    }
}
