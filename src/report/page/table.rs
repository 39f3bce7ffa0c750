//! Tables of a run, as `tsv` with a header or as JSON lines of plain values: scores, sites, variants, contacts.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::ReportError;
use super::contacts::{Contact, ContactList, Measure};
use crate::io::stdio;

/// Names and cells, as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlainTable {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Cells, one a column.
    pub rows: Vec<Vec<String>>,
}

impl PlainTable {
    /// Where a column stands.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// A column's numbers; what is no number is NaN.
    pub fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        let column = self.column(name)?;
        let number = |row: &Vec<String>| row[column].parse().unwrap_or(f64::NAN);
        Some(self.rows.iter().map(number).collect())
    }
}

/// Reads tab-separated text with a header line.
pub(super) fn read_tsv(path: &Path) -> Result<PlainTable, ReportError> {
    let mut reader = ReaderBuilder::new()
        .delimiter(b'\t')
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
pub(super) fn read_lines(path: &Path) -> Result<Vec<Map<String, Value>>, ReportError> {
    let mut objects = Vec::new();
    for (line, text) in std::io::BufRead::lines(open(path)?).enumerate() {
        let text = text.map_err(|source| ReportError::Read {
            path: path.to_owned(),
            source,
        })?;
        if !text.trim().is_empty() {
            let object = serde_json::from_str(&text)
                .map_err(|error| ReportError::line(path, line as u64 + 1, error.to_string()))?;
            objects.push(object);
        }
    }
    Ok(objects)
}

/// Objects of plain values as a table; the first one names the columns.
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

/// Contacts of a table with `id`, `i`, `j` and `probability`, or `score`, which has no scale of its own: divided by the highest of the protein, 0 where
/// negative, as in CASP's RR. `None` for other tables.
pub(super) fn contacts(
    table: &PlainTable,
    path: &Path,
) -> Result<Option<Vec<ContactList>>, ReportError> {
    let [id, i, j] = ["id", "i", "j"].map(|name| table.column(name));
    let (probability, score) = (table.column("probability"), table.column("score"));
    let (Some(id), Some(i), Some(j), Some(value)) = (id, i, j, probability.or(score)) else {
        return Ok(None);
    };
    let highest = |id_: &str| {
        let of_it = table.rows.iter().filter(|row| row[id] == id_);
        of_it
            .filter_map(|row| row[value].parse().ok())
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

pub(super) fn open(path: &Path) -> Result<Box<dyn std::io::BufRead + Send>, ReportError> {
    stdio::open(path).map_err(|source| ReportError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(text: &str) -> Option<Vec<ContactList>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        std::fs::write(&path, text).unwrap();
        contacts(&read_tsv(&path).unwrap(), &path).unwrap()
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
}
