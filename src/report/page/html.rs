//! Small pieces of HTML that several sections need: counted nouns, cells, tables, figures.

use maud::{Markup, PreEscaped, html};

use crate::report::charts::Histogram;
use crate::report::charts::canvas::{DrawingError, Painting, inline_svg};
use crate::report::numbers::{Bins, SummaryStatistics, short};
use crate::sequence::counted;

/// A number, or a dash where there is none.
pub(super) fn number_or_dash(value: Option<f64>) -> String {
    value
        .filter(|value| value.is_finite())
        .map_or_else(|| "–".to_owned(), short)
}

/// A table with these column names above `rows`.
pub(super) fn table(columns: &[&str], rows: &Markup) -> Markup {
    html! {
        table {
            thead { tr { @for column in columns { th { (column) } } } }
            tbody { (rows) }
        }
    }
}

/// Numbers are shortened and aligned to the right; the full number is the cell's tooltip.
pub(super) fn cell(text: &str) -> Markup {
    match text.parse::<f64>() {
        Ok(number) if text.contains(['.', 'e']) => html! { td.n title=(text) { (short(number)) } },
        Ok(_) => html! { td.n { (text) } },
        Err(_) => html! { td { (text) } },
    }
}

/// Says how many rows of a table are not shown.
pub(super) fn rest(total: usize, shown: usize) -> Markup {
    html! {
        @if total > shown {
            p.note { (shown) " of " (total) " rows are shown; the file has all of them." }
        }
    }
}

/// A chart with its caption.
pub(super) fn figure(chart: &impl Painting, caption: &Markup) -> Result<Markup, DrawingError> {
    let svg = inline_svg(chart)?;
    Ok(html! { figure { (PreEscaped(svg)) figcaption { (caption) } } })
}

/// A histogram with a line of statistics.
pub(super) fn distribution(
    name: &str,
    x_label: &str,
    values: &[f64],
) -> Result<Markup, DrawingError> {
    let (Some(summary), Some(bins)) = (SummaryStatistics::of(values), Bins::of(values)) else {
        return Ok(html! { p.note { "no " (name) " to show" } });
    };
    let histogram = Histogram {
        bins,
        x_label: x_label.to_owned(),
    };
    let absent = values.len() - summary.count;
    let caption = html! {
        b { (name) } ": " (counted(summary.count, "value"))
        ", min " (short(summary.min)) ", median " (short(summary.median))
        ", mean " (short(summary.mean)) ", max " (short(summary.max))
        @if absent > 0 { ", " (absent) " without a value" }
    };
    figure(&histogram, &caption)
}
