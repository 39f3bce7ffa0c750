//! Tables of variants: lines of id and variant, lines of a variant alone, and the deep mutational
//! scans of ProteinGym.
//!
//! The separator is a tab if the first line has one, else a comma. Blank lines and lines that begin
//! with `#` are ignored.

use std::path::Path;

use csv::StringRecord;

use super::lines::{Line, Lines};
use super::table_error::TableError;
use crate::io::stdio;

/// The byte order mark that some programs write at the start of a text file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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

/// Reads lines of id and variant, or lines of a variant alone. The first line may be a header: any
/// columns of which the first is `id`, or a single column `variant`, `variants` or `mutant`.
///
/// # Errors
/// A file that cannot be read, or a line with more than two columns.
pub fn read_variants(path: &Path) -> Result<Vec<VariantLine>, TableError> {
    let mut lines = Vec::new();
    for (number, (line, record)) in records(path)?.into_iter().enumerate() {
        let fields: Vec<&str> = record.iter().collect();
        let (id, variant) = match fields[..] {
            ["id", ..] | ["variant" | "variants" | "mutant"] if number == 0 => continue,
            [variant] => (None, variant),
            [id, variant] => (Some(id.to_owned()), variant),
            _ => {
                let what = format!(
                    "{} columns; write `id<tab>variant`, or one variant such as A24G:H30L",
                    fields.len()
                );
                return Err(line_error(path, line, what));
            }
        };
        lines.push(VariantLine {
            id,
            variant: variant.to_owned(),
            line,
        });
    }
    Ok(lines)
}

/// Reads a deep mutational scan of ProteinGym: columns `mutant`, `mutated_sequence` and `DMS_score`
/// among others.
///
/// # Errors
/// A file that cannot be read, lacks a column, or has a measurement that is not a number.
pub fn read_dms(path: &Path) -> Result<Vec<DmsLine>, TableError> {
    let mut records = records(path)?.into_iter();
    let Some((_, header)) = records.next() else {
        return Err(line_error(path, 1, "the file is empty".to_owned()));
    };
    let column = |name: &str| {
        let found = header.iter().position(|field| field == name);
        found.ok_or_else(|| {
            let what = format!("no column `{name}`; a deep mutational scan of ProteinGym has mutant, mutated_sequence and DMS_score");
            line_error(path, 1, what)
        })
    };
    let [mutant, sequence, score] = [
        column("mutant")?,
        column("mutated_sequence")?,
        column("DMS_score")?,
    ];
    records
        .map(|(line, record)| {
            let field = |column: usize, name: &str| {
                let field = record.get(column).filter(|field| !field.is_empty());
                field.ok_or_else(|| line_error(path, line, format!("no {name}")))
            };
            let measured = field(score, "DMS_score")?;
            Ok(DmsLine {
                mutant: field(mutant, "mutant")?.to_owned(),
                mutated_sequence: field(sequence, "mutated_sequence")?
                    .to_ascii_uppercase()
                    .into_bytes(),
                score: measured
                    .parse()
                    .ok()
                    .filter(|score: &f64| score.is_finite())
                    .ok_or_else(|| {
                        line_error(
                            path,
                            line,
                            format!("DMS_score `{measured}` is not a number; remove the line"),
                        )
                    })?,
                line,
            })
        })
        .collect()
}

fn line_error(path: &Path, line: u64, what: String) -> TableError {
    let path = path.to_owned();
    TableError::Line { path, line, what }
}

/// All lines but blank ones and comments, each with its number.
fn records(path: &Path) -> Result<Vec<(u64, StringRecord)>, TableError> {
    let io_error = |source| TableError::Io {
        path: path.to_owned(),
        source,
    };
    let mut lines = Lines::new(stdio::open(path).map_err(io_error)?);
    let (mut records, mut buffer, mut delimiter) = (Vec::new(), Vec::new(), None);
    while lines.next_line(&mut buffer, usize::MAX).map_err(io_error)? != Line::End {
        let line = lines.number();
        let text = match buffer.strip_prefix(BYTE_ORDER_MARK) {
            Some(text) if line == 1 => text,
            _ => &buffer,
        };
        if text.trim_ascii().is_empty() || text[0] == b'#' {
            continue;
        }
        let has_tab = text.contains(&b'\t');
        let delimiter = *delimiter.get_or_insert(if has_tab { b'\t' } else { b',' });
        // Each line is parsed alone, because the line numbers of `csv` leave out blank lines and
        // comments.
        let record =
            parse(text, delimiter).map_err(|error| line_error(path, line, error.to_string()))?;
        if record.iter().any(|field| !field.is_empty()) {
            records.push((line, record));
        }
    }
    Ok(records)
}

fn parse(line: &[u8], delimiter: u8) -> Result<StringRecord, csv::Error> {
    let mut record = StringRecord::new();
    csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .buffer_capacity(line.len())
        .from_reader(line)
        .read_record(&mut record)?;
    Ok(record)
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
        let lines = read_variants(file(text).path()).unwrap();
        lines
            .into_iter()
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
            ("", vec![]),
        ];
        for (text, expected) in table {
            assert_eq!(variants(text), expected, "{text:?}");
        }
        let error = read_variants(file("a\tA1G\tA2G\n").path()).unwrap_err();
        assert!(error.to_string().contains("line 1: 3 columns"), "{error}");
    }

    #[test]
    fn scans_are_read_by_the_names_of_their_columns() {
        let text = "DMS_score,mutant,other,mutated_sequence\n-1.5,A2G,x,mgk\n0,A2C:K3R,,MCR\n";
        let lines = read_dms(file(text).path()).unwrap();
        assert_eq!(lines[0].mutated_sequence, b"MGK");
        assert_eq!(
            (lines[1].mutant.as_str(), lines[1].score, lines[1].line),
            ("A2C:K3R", 0.0, 3)
        );
        for (text, what) in [
            ("", "empty"),
            ("mutant,DMS_score\nA1G,1\n", "no column `mutated_sequence`"),
            (
                "mutant,mutated_sequence,DMS_score\nA1G,G,\n",
                "line 2: no DMS_score",
            ),
            (
                "mutant,mutated_sequence,DMS_score\nA1G,G,high\n",
                "`high` is not a number",
            ),
            (
                "mutant,mutated_sequence,DMS_score\nA1G,G,NaN\n",
                "`NaN` is not a number",
            ),
        ] {
            let error = read_dms(file(text).path()).unwrap_err().to_string();
            assert!(error.contains(what), "{text:?}: {error}");
        }
    }
}
