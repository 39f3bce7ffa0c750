//! Tables of a run: scores, sites, variants, contacts and evaluations as tab- or comma-separated
//! text with a header, or as JSON lines of plain values.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use crate::report::contact_map::{Contact, ContactList, Measure};
use crate::report::error::ReportError;
use crate::report::file::{open, read_text};

/// Column names and cells as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlainTable {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Cells, one per column.
    pub rows: Vec<Vec<String>>,
}

impl PlainTable {
    /// The index of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// The numbers of a column; NaN where a cell is not a number.
    pub fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        let column = self.column(name)?;
        let number = |row: &Vec<String>| row[column].parse().unwrap_or(f64::NAN);
        Some(self.rows.iter().map(number).collect())
    }

    /// The text of a cell; empty where there is no such column.
    pub fn text<'a>(&self, row: &'a [String], name: &str) -> &'a str {
        let cell = self.column(name).and_then(|column| row.get(column));
        cell.map_or("", String::as_str)
    }

    /// The number in a cell; `None` where it is missing or not finite.
    pub fn number(&self, row: &[String], name: &str) -> Option<f64> {
        let number: Option<f64> = self.text(row, name).parse().ok();
        number.filter(|number| number.is_finite())
    }

    /// Whether this is a table of `probe evaluate` or `contacts evaluate`.
    pub fn is_of_measures(&self) -> bool {
        let has = |name: &&str| self.column(name).is_some();
        let probe = ["set", "measure", "value", "low", "high"];
        let contacts = ["set", "id", "range", "measure", "precision", "low", "high"];
        probe.iter().all(has) || contacts.iter().all(has)
    }
}

/// Reads separated text with a header line.
pub(super) fn read_separated(path: &Path, separator: u8) -> Result<PlainTable, ReportError> {
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .from_reader(open(path)?);
    let cells = |record: &StringRecord| record.iter().map(str::to_owned).collect();
    let fail = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        ReportError::line(path, line, error.to_string())
    };
    let columns = cells(reader.headers().map_err(fail)?);
    let rows = reader
        .records()
        .map(|record| record.map(|record| cells(&record)).map_err(fail))
        .collect::<Result<_, _>>()?;
    Ok(PlainTable { columns, rows })
}

/// Reads JSON lines, each an object.
pub(super) fn read_objects(path: &Path) -> Result<Vec<Map<String, Value>>, ReportError> {
    let text = read_text(path)?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line)
                .map_err(|error| ReportError::line(path, number as u64 + 1, error.to_string()))
        })
        .collect()
}

/// Objects of plain values as a table; the columns are those of the first object.
pub(super) fn of_objects(objects: &[Map<String, Value>]) -> PlainTable {
    let columns: Vec<String> = objects
        .first()
        .map(|object| object.keys().cloned().collect())
        .unwrap_or_default();
    let cell = |object: &Map<String, Value>, name: &String| match object.get(name) {
        None | Some(Value::Null) => "NaN".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let row = |object| columns.iter().map(|name| cell(object, name)).collect();
    let rows = objects.iter().map(row).collect();
    PlainTable { columns, rows }
}

/// Contacts of a table with the columns `id`, `i`, `j` and `probability` or `score`; `None` for
/// other tables. Scores have no scale of their own: they are divided by the highest of the protein,
/// and negative ones become 0, as in RR.
pub(super) fn contacts(
    table: &PlainTable,
    path: &Path,
) -> Result<Option<Vec<ContactList>>, ReportError> {
    let [id, i, j] = ["id", "i", "j"].map(|name| table.column(name));
    let (probability, score) = (table.column("probability"), table.column("score"));
    let (Some(id), Some(i), Some(j), Some(value)) = (id, i, j, probability.or(score)) else {
        return Ok(None);
    };
    let highest = |protein: &str| {
        let rows = table.rows.iter().filter(|row| row[id] == protein);
        rows.filter_map(|row| row[value].parse().ok())
            .fold(0.0, f64::max)
    };
    let (mut lists, mut scale): (Vec<ContactList>, Option<f64>) = (Vec::new(), None);
    for (number, row) in table.rows.iter().enumerate() {
        if lists.last().is_none_or(|list| list.id != row[id]) {
            lists.push(ContactList::new(row[id].clone(), Vec::new()));
            scale = probability.is_none().then(|| highest(&row[id]));
            if let (Some(_), Some(list)) = (scale, lists.last_mut()) {
                list.measure = Measure::Score;
            }
        }
        let contact = match scale {
            Some(scale) => Contact::scaled(&row[i], &row[j], &row[value], scale),
            None => Contact::parse(&row[i], &row[j], &row[value]),
        };
        let contact = contact.map_err(|what| ReportError::line(path, number as u64 + 2, what))?;
        if let Some(list) = lists.last_mut() {
            list.contacts.push(contact);
        }
    }
    Ok(Some(lists))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(text: &str) -> Option<Vec<ContactList>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        std::fs::write(&path, text).unwrap();
        contacts(&read_separated(&path, b'\t').unwrap(), &path).unwrap()
    }

    #[test]
    fn scores_are_scaled_and_probabilities_left_alone() {
        let values = |text: &str| -> Vec<f64> {
            let lists = lists(text).unwrap();
            let all = lists.iter().flat_map(|list| &list.contacts);
            all.map(|contact| contact.probability).collect()
        };
        let rows = "a\t1\t9\t0.8\na\t2\t9\t0.4\nb\t1\t8\t0.5\n";
        assert_eq!(
            values(&format!("id\ti\tj\tprobability\n{rows}")),
            [0.8, 0.4, 0.5]
        );
        let rows = "a\t1\t9\t4\na\t2\t9\t-1\nb\t1\t8\t0.5\n";
        assert_eq!(values(&format!("id\ti\tj\tscore\n{rows}")), [1.0, 0.0, 1.0]);
        assert_eq!(lists("id\tscore\na\t1\n"), None);
    }

    #[test]
    fn tables_of_evaluations_are_recognised_by_their_columns() {
        let is_of_measures = |header: &str| {
            let columns = header.split(' ').map(str::to_owned).collect();
            let rows = Vec::new();
            PlainTable { columns, rows }.is_of_measures()
        };
        assert!(is_of_measures(
            "set measure value low high proteins counted"
        ));
        assert!(is_of_measures(
            "set id length range measure precision low high separation_only"
        ));
        assert!(!is_of_measures("id variant score measured"));
    }
}
