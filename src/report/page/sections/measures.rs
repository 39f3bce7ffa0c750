//! Tables of `probe evaluate` and `contacts evaluate`: measures with their intervals, and the
//! precision per chain.

use maud::{Markup, html};

use super::table::of_rows;
use crate::report::error::ReportError;
use crate::report::numbers::short;
use crate::report::page::html::{distribution, number_or_dash, rest, table};
use crate::report::page::results::Limits;
use crate::report::page::table::PlainTable;
use crate::sequence::counted;

/// The id of rows that are means over all chains.
const MEAN: &str = "mean";

pub(super) fn body(content: &PlainTable, limits: Limits) -> Result<Markup, ReportError> {
    if content.column("range").is_some() {
        of_contacts(content, limits)
    } else {
        Ok(of_probe(content))
    }
}

/// A number with its interval.
fn estimate(content: &PlainTable, row: &[String], name: &str) -> Markup {
    let number = |name: &str| content.number(row, name);
    let ends = number("low").zip(number("high"));
    html! {
        td.n { (number_or_dash(number(name))) }
        td.n { @if let Some((low, high)) = ends { (short(low)) " – " (short(high)) } }
    }
}

fn of_probe(content: &PlainTable) -> Markup {
    let text = |row, name| content.text(row, name);
    let rows = html! {
        @for row in &content.rows {
            tr {
                td { (text(row, "set")) }
                td { (text(row, "measure")) }
                (estimate(content, row, "value"))
                td.n { (text(row, "proteins")) }
                td.n { (text(row, "counted")) }
            }
        }
    };
    let columns = [
        "set",
        "measure",
        "value",
        "95 % interval",
        "proteins",
        "residues or proteins counted",
    ];
    table(&columns, &rows)
}

fn of_contacts(content: &PlainTable, limits: Limits) -> Result<Markup, ReportError> {
    let text = |row, name| content.text(row, name);
    let (means, chains): (Vec<&Vec<String>>, Vec<_>) =
        content.rows.iter().partition(|row| text(row, "id") == MEAN);
    let rows = html! {
        @for row in means {
            tr {
                td { (text(row, "set")) }
                td { (text(row, "range")) }
                td { (text(row, "measure")) }
                (estimate(content, row, "precision"))
                td.n { (number_or_dash(content.number(row, "separation_only"))) }
            }
        }
    };
    let columns = [
        "set",
        "range",
        "measure",
        "mean precision",
        "95 % interval",
        "by separation alone",
    ];
    let long: Vec<f64> = chains
        .iter()
        .filter(|row| text(row, "range") == "long" && text(row, "measure") == "P@L")
        .map(|row| content.number(row, "precision").unwrap_or(f64::NAN))
        .collect();
    Ok(html! {
        p {
            (counted(long.len(), "chain")) ". The last column is the baseline that knows only the separation "
            "of two residues along the chain."
        }
        (table(&columns, &rows))
        (distribution("long-range P@L per chain", "P@L", &long)?)
        details {
            summary { "every chain" }
            (of_rows(content, chains.iter().copied().take(limits.rows)))
            (rest(chains.len(), limits.rows))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { rows: 1, maps: 1 };

    fn table_of(text: &str) -> PlainTable {
        let mut lines = text
            .lines()
            .map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
        let columns = lines.next().unwrap();
        let rows = lines.collect();
        PlainTable { columns, rows }
    }

    #[test]
    fn a_probes_measures_have_intervals() {
        let content = table_of(
            "set\tmeasure\tvalue\tlow\thigh\tproteins\tcounted\nts115\taccuracy\t0.8\t0.75\t0.85\t115\t20000",
        );
        let page = body(&content, LIMITS).unwrap().into_string();
        for part in ["ts115", "accuracy", "0.8", "0.75 – 0.85", "20000"] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }

    #[test]
    fn means_of_contacts_stand_above_chains() {
        let content = table_of(
            "set\tid\tlength\trange\tmeasure\tprecision\tlow\thigh\tseparation_only\n\
             structures\tc0\t50\tlong\tP@L\t0.3\tNaN\tNaN\t0.1\n\
             structures\tc1\t50\tlong\tP@L\t0.5\tNaN\tNaN\t0.2\n\
             structures\tmean\t100\tlong\tP@L\t0.4\t0.35\t0.45\t0.15",
        );
        let page = body(&content, LIMITS).unwrap().into_string();
        for part in ["2 chains", "0.35 – 0.45", "0.15", "2 values", "1 of 2 rows"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(page.contains("c0") && !page.contains("c1"), "{page}");
    }
}
