//! Tables of variants: lines of id and variant, lines of a variant alone, wider tables with a
//! header, and the deep mutational scans of ProteinGym.

use std::path::Path;

use super::table::{HeaderRule, SeparatedRow, SeparatedTable};
use super::table_error::TableError;

/// Names of the column of variants, in the order in which they are looked for.
const VARIANT_NAMES: [&str; 8] = [
    "variant",
    "variants",
    "mutant",
    "mutants",
    "mutation",
    "mutations",
    "hgvs_pro",
    "hgvsp",
];

/// Names of the column of the protein's id, in the order in which they are looked for.
const ID_NAMES: [&str; 4] = ["id", "protein", "protein_id", "sequence_id"];

/// Names of the columns of a deep mutational scan.
const DMS_NAMES: [&str; 3] = ["mutant", "mutated_sequence", "DMS_score"];

/// One line of a table of variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantLine {
    /// The id of the protein; `None` for a table with a single column, which applies to every
    /// protein.
    pub id: Option<String>,
    /// The variant as written, such as `A24G:H30L`.
    pub variant: String,
    /// Number of the line, from 1.
    pub line: u64,
}

/// One line of a deep mutational scan.
#[derive(Clone, Debug, PartialEq)]
pub struct DmsLine {
    /// The variant as written, such as `A24G:H30L`.
    pub mutant: String,
    /// The whole sequence of the mutant.
    pub mutated_sequence: Vec<u8>,
    /// The measured value.
    pub score: f64,
    /// Number of the line, from 1.
    pub line: u64,
}

/// The rows of a table, each read or an error of its own.
pub type TableRows<T> = Vec<Result<T, TableError>>;

/// Reads a table of variants. Without a header, a line is a variant, or an id and a variant. With a
/// header, the columns of ids and variants are found by name; without a column of ids every protein
/// has the variants.
///
/// # Errors
/// A file that cannot be read or has a header without a column of variants. An invalid row is an
/// error of its own.
pub fn read_variants(path: &Path) -> Result<TableRows<VariantLine>, TableError> {
    let wanted: Vec<&str> = ID_NAMES.into_iter().chain(VARIANT_NAMES).collect();
    let mut table = SeparatedTable::open(path, &wanted, HeaderRule::IfNamed)?;
    let columns = variant_columns(&table)?;
    if let (Some(names), Some((None, variant))) = (table.header(), columns) {
        tracing::info!(
            "{}: no column of ids ({}), so the variants in column {} are those of every protein",
            path.display(),
            ID_NAMES.join(", "),
            names[variant]
        );
    }
    let mut rows = Vec::new();
    while let Some(row) = table.next_row()? {
        rows.push(variant_line(&table, &row, columns));
    }
    Ok(rows)
}

/// The columns of the id and of the variant, in a table with a header.
fn variant_columns(table: &SeparatedTable) -> Result<Option<(Option<usize>, usize)>, TableError> {
    let Some(names) = table.header() else {
        return Ok(None);
    };
    let mut id = None;
    for name in ID_NAMES {
        id = id.or(table.column(name)?);
    }
    // `id` and one other column, whatever its name.
    let only_other = match (id, names) {
        (Some(id), [_, _]) if names[id].eq_ignore_ascii_case(ID_NAMES[0]) => Some(1 - id),
        _ => None,
    };
    let variant = match (table.one_of(&VARIANT_NAMES), only_other) {
        (Err(_), Some(other)) => other,
        (found, _) => found?,
    };
    Ok(Some((id, variant)))
}

fn variant_line(
    table: &SeparatedTable,
    row: &SeparatedRow,
    columns: Option<(Option<usize>, usize)>,
) -> Result<VariantLine, TableError> {
    let (id, variant) = match (columns, row.len()) {
        (Some(columns), _) => {
            table.check_width(row)?;
            columns
        }
        (None, 1) => (None, 0),
        (None, 2) => (Some(0), 1),
        (None, fields) => {
            let what = format!(
                "{fields} columns and no header; write `id<tab>variant`, one variant such as A24G:H30L, or a header with the columns id and variant"
            );
            return Err(table.error(row.line, what));
        }
    };
    let id = id.map(|column| table.filled(row, column)).transpose()?;
    Ok(VariantLine {
        id: id.map(str::to_owned),
        variant: table.filled(row, variant)?.to_owned(),
        line: row.line,
    })
}

/// Reads a deep mutational scan of ProteinGym: columns `mutant`, `mutated_sequence` and `DMS_score`
/// among others.
///
/// # Errors
/// A file that cannot be read or lacks a column. A row without a variant, a sequence or a
/// measurement is an error of its own.
pub fn read_dms(path: &Path) -> Result<TableRows<DmsLine>, TableError> {
    let mut table = SeparatedTable::open(path, &DMS_NAMES, HeaderRule::Always)?;
    let [mutant, sequence, score] = DMS_NAMES.map(|name| table.one_of(&[name]));
    let columns = [mutant?, sequence?, score?];
    let mut rows = Vec::new();
    while let Some(row) = table.next_row()? {
        rows.push(dms_line(&table, &row, columns));
    }
    Ok(rows)
}

fn dms_line(
    table: &SeparatedTable,
    row: &SeparatedRow,
    [mutant, sequence, score]: [usize; 3],
) -> Result<DmsLine, TableError> {
    table.check_width(row)?;
    let measured = table.filled(row, score)?;
    let number = table.decimal_mark().number(measured);
    Ok(DmsLine {
        mutant: table.filled(row, mutant)?.to_owned(),
        mutated_sequence: table
            .filled(row, sequence)?
            .to_ascii_uppercase()
            .into_bytes(),
        score: number.ok_or_else(|| {
            table.field_error(row, score, format!("`{measured}` is not a number"))
        })?,
        line: row.line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn variants(text: &str) -> Vec<(Option<String>, String, u64)> {
        let rows = read_variants(file(text).path()).unwrap();
        rows.into_iter()
            .map(Result::unwrap)
            .map(|line| (line.id, line.variant, line.line))
            .collect()
    }

    #[test]
    fn tables_with_and_without_header_and_ids() {
        let a = |line| (Some("a".to_owned()), "A24G:H30L".to_owned(), line);
        let bare = |line| (None, "A24G:H30L".to_owned(), line);
        let table = [
            ("id\tvariants\na\tA24G:H30L\n", vec![a(2)]),
            ("\u{feff}id,variant\r\na , A24G:H30L\r\n", vec![a(2)]),
            ("id,variant\r\ra,A24G:H30L", vec![a(3)]),
            ("# made by hand\n\na\tA24G:H30L", vec![a(3)]),
            ("A24G:H30L\n\nA24G:H30L\n", vec![bare(1), bare(3)]),
            ("variants\nA24G:H30L\n", vec![bare(2)]),
            ("id,change\na,A24G:H30L\n", vec![a(2)]),
            ("protein\tmutant\na\tA24G:H30L\n", vec![a(2)]),
            ("Mutation;score;Protein\nA24G:H30L;0,5;a\n;;\n", vec![a(2)]),
            (",mutant,score\n0,A24G:H30L,0.5\n", vec![bare(2)]),
            (
                "id\tvariant\tposition\tmutant\na\tA24G:H30L\t24\tG\n",
                vec![a(2)],
            ),
            ("", vec![]),
        ];
        for (text, expected) in table {
            assert_eq!(variants(text), expected, "{text:?}");
        }
        let several = |text| variants(text)[0].1.clone();
        for text in ["p\tK2A,T3S\n", "p;K2A,T3S\n", "mutant\nK2A,T3S\n"] {
            assert_eq!(several(text), "K2A,T3S", "{text:?}");
        }
    }

    #[test]
    fn an_invalid_row_leaves_the_others() {
        let text = "id,variant\na,A1G\nb\n,A1G\nc,\nd,A2G\n";
        let rows = read_variants(file(text).path()).unwrap();
        let ids: Vec<_> = rows.iter().flatten().map(|line| line.line).collect();
        assert_eq!(ids, [2, 6]);
        let errors = rows.into_iter().filter_map(Result::err);
        let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
        for (error, what) in errors.iter().zip([
            "line 3: 1 field where the header has 2",
            "line 4, column id: empty",
            "line 5, column variant: empty",
        ]) {
            assert!(error.ends_with(what), "{error}");
        }
        let rows = read_variants(file("a\tA1G\tA2G\n").path()).unwrap();
        let error = rows[0].as_ref().unwrap_err().to_string();
        assert!(error.contains("line 1: 3 columns and no header"), "{error}");
        let error = read_variants(file("protein,a,b\np,A1G,1\n").path()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("line 1: no column `variant` or"), "{error}");
    }

    #[test]
    fn scans_are_read_by_the_names_of_their_columns() {
        let text = "DMS_score,mutant,other,mutated_sequence\n-1.5,A2G,x,mgk\n0,A2C:K3R,,MCR\n";
        let read = |text: &str| read_dms(file(text).path()).unwrap();
        let rows: Vec<DmsLine> = read(text).into_iter().map(Result::unwrap).collect();
        assert_eq!(rows[0].mutated_sequence, b"MGK");
        assert_eq!(
            (rows[1].mutant.as_str(), rows[1].score, rows[1].line),
            ("A2C:K3R", 0.0, 3)
        );
        let semicolons = text
            .replace(',', ";")
            .replace("-1.5", "-1,5")
            .replace('\n', "\r\n");
        let units = std::iter::once(0xfeff).chain(semicolons.encode_utf16());
        let bytes: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        let utf16 = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(utf16.path(), bytes).unwrap();
        let again = read_dms(utf16.path()).unwrap();
        let again: Vec<DmsLine> = again.into_iter().map(Result::unwrap).collect();
        assert_eq!(again, rows);
        for (text, what) in [
            ("", "line 1: the file is empty"),
            ("mutant,DMS_score\nA1G,1\n", "no column `mutated_sequence`"),
        ] {
            let error = read_dms(file(text).path()).unwrap_err().to_string();
            assert!(error.contains(what), "{text:?}: {error}");
        }
        let text = "mutant,mutated_sequence,DMS_score\nA1G,G,\nA1G,G,high\nA1G,G,NaN\nA1G,G,\"0,5\"\n,G,1\nA1G,G\n";
        let errors = [
            "line 2, column DMS_score: empty",
            "line 3, column DMS_score: `high` is not a number",
            "line 4, column DMS_score: `NaN` is not a number",
            "line 5, column DMS_score: `0,5` is not a number",
            "line 6, column mutant: empty",
            "line 7: 2 fields where the header has 3",
        ];
        for (row, what) in read(text).into_iter().zip(errors) {
            let error = row.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
