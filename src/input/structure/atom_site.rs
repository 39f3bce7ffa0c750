//! The loop `_atom_site` of mmCIF: where its items are, and the atom of a row.

use super::amino_acids;
use super::cif::{CifRow, Value};
use super::observed::{AtomRow, KeptAtom, ResidueNumber};
use super::text::{Fault, coordinate};
use crate::shown::shown;

/// An item that the authors' names or numbers stand in for.
#[derive(Clone, Copy)]
pub(super) struct Either {
    pub(super) label: Option<usize>,
    pub(super) author: Option<usize>,
}

impl Either {
    /// The columns of `label_NAME` and `auth_NAME`; an error where both are missing.
    fn find(row: &CifRow<'_>, name: &str) -> Result<Self, Fault> {
        let column = |prefix: &str| column(row, &format!("{prefix}_{name}"));
        let found = Self {
            label: column("label"),
            author: column("auth"),
        };
        if found.label.or(found.author).is_none() {
            let what = format!("neither label_{name} nor auth_{name}");
            return Err(lacks(row, &what));
        }
        Ok(found)
    }

    pub(super) fn label_first<'a>(self, row: &CifRow<'a>) -> Option<&'a str> {
        known(row, self.label).or_else(|| known(row, self.author))
    }

    pub(super) fn author_first<'a>(self, row: &CifRow<'a>) -> Option<&'a str> {
        known(row, self.author).or_else(|| known(row, self.label))
    }
}

/// Where the items of `_atom_site` are.
pub(super) struct Columns {
    pub(super) group: Option<usize>,
    pub(super) model: Option<usize>,
    pub(super) atom: Either,
    pub(super) component: Either,
    pub(super) asym: Either,
    pub(super) number: Either,
    pub(super) insertion: Option<usize>,
    pub(super) alternative: Option<usize>,
    pub(super) occupancy: Option<usize>,
    pub(super) entity: Option<usize>,
    pub(super) position: [usize; 3],
}

impl Columns {
    /// The columns of a row's loop.
    ///
    /// # Errors
    /// Where the loop lacks an item that every atom needs.
    pub(super) fn find(row: &CifRow<'_>) -> Result<Self, Fault> {
        let place = |name: &str| column(row, name).ok_or_else(|| lacks(row, &format!("no {name}")));
        Ok(Self {
            group: column(row, "group_pdb"),
            model: column(row, "pdbx_pdb_model_num"),
            atom: Either::find(row, "atom_id")?,
            component: Either::find(row, "comp_id")?,
            asym: Either::find(row, "asym_id")?,
            number: Either::find(row, "seq_id")?,
            insertion: column(row, "pdbx_pdb_ins_code"),
            alternative: column(row, "label_alt_id"),
            occupancy: column(row, "occupancy"),
            entity: column(row, "label_entity_id"),
            position: [place("cartn_x")?, place("cartn_y")?, place("cartn_z")?],
        })
    }
}

pub(super) fn column(row: &CifRow<'_>, name: &str) -> Option<usize> {
    row.items.iter().position(|item| item == name)
}

pub(super) fn known<'a>(row: &CifRow<'a>, column: Option<usize>) -> Option<&'a str> {
    row.values[column?].known()
}

/// The loop lacks an item.
fn lacks(row: &CifRow<'_>, what: &str) -> Fault {
    let line = row.values.first().map_or(0, |value| value.line);
    Fault::line(
        line,
        format!("the loop _atom_site before this row has {what}"),
    )
}

/// A value that cannot be read.
fn unreadable(value: &Value, name: &str, wanted: &str) -> Fault {
    let text = shown(value.known().unwrap_or("?"));
    Fault::at(
        value.line,
        value.column,
        format!("{name} is `{text}`, not {wanted}"),
    )
}

/// The known value of a column as a whole number.
pub(super) fn integer(
    row: &CifRow<'_>,
    column: Option<usize>,
    name: &str,
) -> Result<Option<i64>, Fault> {
    let Some(text) = known(row, column) else {
        return Ok(None);
    };
    let value = &row.values[column.expect("it has a value")];
    let number = text
        .parse()
        .map_err(|_| unreadable(value, name, "a whole number"));
    number.map(Some)
}

/// The atom of a row; none where its coordinates are unknown.
pub(super) fn kept<'a>(
    row: &CifRow<'a>,
    columns: &Columns,
    atom: KeptAtom,
    name: &'a str,
) -> Result<Option<AtomRow<'a>>, Fault> {
    let mut position = [0.0; 3];
    for (axis, column) in columns.position.into_iter().enumerate() {
        let value = &row.values[column];
        let Some(text) = value.known() else {
            return Ok(None);
        };
        // A standard uncertainty may follow in parentheses.
        let number = text.split_once('(').map_or(text, |(number, _)| number);
        let number = coordinate(number);
        position[axis] = number.ok_or_else(|| unreadable(value, "a coordinate", "a number"))?;
    }
    let is_alternative = known(row, columns.alternative).is_some();
    let label = integer(row, columns.number.label, "label_seq_id")?;
    let author = known(row, columns.number.author).unwrap_or_default();
    let insertion = known(row, columns.insertion).unwrap_or_default();
    let number = label.map_or_else(
        || ResidueNumber::Author(format!("{author} {insertion}")),
        ResidueNumber::Label,
    );
    let group = known(row, columns.group);
    let is_hetero = match group {
        Some(group) => group.eq_ignore_ascii_case("HETATM"),
        None => amino_acids::standard(name).is_none(),
    };
    Ok(Some(AtomRow {
        line: row.values.first().map_or(0, |value| value.line),
        atom,
        position,
        occupancy: occupancy(row, columns, is_alternative)?,
        is_alternative,
        name,
        number,
        author: author.parse().ok(),
        is_hetero,
    }))
}

/// The occupancy, 1 where it is unknown; it must be a number only where it decides.
fn occupancy(row: &CifRow<'_>, columns: &Columns, is_alternative: bool) -> Result<f32, Fault> {
    let Some(text) = known(row, columns.occupancy) else {
        return Ok(1.0);
    };
    let number = text.split_once('(').map_or(text, |(number, _)| number);
    match coordinate(number) {
        Some(occupancy) => Ok(occupancy),
        None if is_alternative => {
            let value = &row.values[columns.occupancy.expect("it has a value")];
            Err(unreadable(value, "the occupancy", "a number"))
        }
        None => Ok(1.0),
    }
}
