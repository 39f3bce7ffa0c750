//! Tables of a run, as `tsv` with a header or as JSON lines of plain values: scores, sites, variants, contacts.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::ReportError;
use super::contacts::{Contact, ContactList};
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

/// Contacts of a table with `id`, `i`, `j` and `probability`; `None` for other tables.
pub(super) fn contacts(
    table: &PlainTable,
    path: &Path,
) -> Result<Option<Vec<ContactList>>, ReportError> {
    let columns = ["id", "i", "j", "probability"].map(|name| table.column(name));
    let [Some(id), Some(i), Some(j), Some(probability)] = columns else {
        return Ok(None);
    };
    let mut lists: Vec<ContactList> = Vec::new();
    for (number, row) in table.rows.iter().enumerate() {
        let contact = Contact::parse(&row[i], &row[j], &row[probability])
            .map_err(|what| ReportError::line(path, number as u64 + 2, what))?;
        match lists.last_mut().filter(|list| list.id == row[id]) {
            Some(list) => list.contacts.push(contact),
            None => lists.push(ContactList::new(row[id].clone(), vec![contact])),
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
