//! Tables as people have them: fields separated by tabs, commas or semicolons, some in quotes, with
//! or without a header; UTF-8 or UTF-16, any line end, compressed or not.
//!
//! The first line decides about the separator: one that splits the line into columns that are
//! looked for, else a tab, a semicolon or a comma, whichever it has, in this order. A first line
//! `sep=;`, as spreadsheets write it, names the separator. Blank lines and lines that begin with
//! `#` are ignored, and so are rows whose fields are all empty.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use csv::ByteRecord;

use super::decoded::{self, DecodedText};
use super::table_error::TableError;

/// The separators with their names in messages, in the order in which they are tried.
const SEPARATORS: [(u8, &str); 3] = [(b'\t', "tabs"), (b';', "semicolons"), (b',', "commas")];

/// The separator of tables with one column: no text has this control character.
const NONE: u8 = 0x1f;

/// Whether the first row of a table holds the names of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderRule {
    /// The first row is the header.
    Always,
    /// The first row is the header if one of its fields is the name of a column that is looked for.
    IfNamed,
}

/// How decimal numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecimalMark {
    /// `0.5`.
    #[default]
    Point,
    /// `0,5` or `0.5`: tables with semicolons come from countries that write a decimal comma.
    Comma,
}

impl DecimalMark {
    /// The number of a field; `None` if it is not a finite number.
    pub fn number(self, text: &str) -> Option<f64> {
        let text = match self {
            DecimalMark::Comma if !text.contains('.') => text.replacen(',', ".", 1),
            _ => text.to_owned(),
        };
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }
}

/// The rows of a separated table.
pub(super) struct SeparatedTable {
    path: PathBuf,
    rows: csv::Reader<io::Chain<Cursor<Vec<u8>>, DecodedText>>,
    separator: u8,
    /// Names of the columns; `None` for a table without a header.
    header: Option<Vec<String>>,
    /// The line of the header, or 1.
    header_line: u64,
    /// The first row of a table without a header.
    first: Option<SeparatedRow>,
}

/// One row of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct SeparatedRow {
    record: ByteRecord,
    /// Number of the line on which the row begins, from 1.
    pub(super) line: u64,
}

impl SeparatedTable {
    /// Opens a table; `wanted` are names of columns that are looked for.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn open(
        path: &Path,
        wanted: &[&str],
        header: HeaderRule,
    ) -> Result<Self, TableError> {
        let text = decoded::open(path).map_err(|source| io_error(path, source))?;
        Self::of(path, text, wanted, header)
    }

    /// The table in a text of which nothing was read; `path` is its name in messages.
    ///
    /// # Errors
    /// As [`SeparatedTable::open`].
    pub(super) fn of(
        path: &Path,
        mut text: DecodedText,
        wanted: &[&str],
        header: HeaderRule,
    ) -> Result<Self, TableError> {
        let failed = |source| io_error(path, source);
        let mut head = Vec::new();
        let mut separator = None;
        while separator.is_none() {
            let line = text.next_line().map_err(failed)?;
            let trimmed = line.trim_ascii();
            separator = match trimmed {
                _ if line.is_empty() => Some(NONE),
                [] => None,
                _ if line[0] == b'#' => None,
                [b's', b'e', b'p', b'=', named] => Some(*named),
                line => Some(separator_of(line, wanted)),
            };
            // A line that names the separator is blank to the reader of rows.
            let is_named = trimmed.starts_with(b"sep=") && trimmed.len() == 5;
            head.extend_from_slice(if is_named { b"\n" } else { line });
        }
        let separator = separator.unwrap_or(NONE);
        let rows = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(separator)
            .comment(Some(b'#'))
            .from_reader(Cursor::new(head).chain(text));
        let mut table = Self {
            path: path.to_owned(),
            rows,
            separator,
            header: None,
            header_line: 1,
            first: None,
        };
        table.take_header(wanted, header)?;
        Ok(table)
    }

    fn take_header(&mut self, wanted: &[&str], rule: HeaderRule) -> Result<(), TableError> {
        let Some(first) = self.next_row()? else {
            return match rule {
                HeaderRule::Always => Err(self.error(1, "the file is empty")),
                HeaderRule::IfNamed => Ok(()),
            };
        };
        let names: Vec<String> = first
            .record
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        let is_wanted = |name: &String| wanted.iter().any(|wanted| is_same(name, wanted));
        if rule == HeaderRule::Always || names.iter().any(is_wanted) {
            (self.header, self.header_line) = (Some(names), first.line);
        } else {
            self.first = Some(first);
        }
        Ok(())
    }

    /// Names of the columns; `None` for a table without a header.
    pub(super) fn header(&self) -> Option<&[String]> {
        self.header.as_deref()
    }

    /// How numbers are written.
    pub(super) fn decimal_mark(&self) -> DecimalMark {
        if self.separator == b';' {
            DecimalMark::Comma
        } else {
            DecimalMark::Point
        }
    }

    /// The place of the column `name`, if the table has it; upper and lower case are the same if no
    /// column has exactly this name.
    ///
    /// # Errors
    /// Two columns of this name.
    pub(super) fn column(&self, name: &str) -> Result<Option<usize>, TableError> {
        let names = self.header.as_deref().unwrap_or_default();
        let places = |is_it: &dyn Fn(&String) -> bool| -> Vec<usize> {
            let all = names.iter().enumerate();
            all.filter(|(_, column)| is_it(column))
                .map(|(place, _)| place)
                .collect()
        };
        let exact = places(&|column| column == name);
        let found = if exact.is_empty() {
            places(&|column| is_same(column, name))
        } else {
            exact
        };
        match found[..] {
            [] => Ok(None),
            [place] => Ok(Some(place)),
            _ => {
                let what = format!("{} columns are called `{name}`; rename them", found.len());
                Err(self.error(self.header_line, what))
            }
        }
    }

    /// The place of the first of these columns that the table has.
    ///
    /// # Errors
    /// A table with none of them.
    pub(super) fn one_of(&self, names: &[&str]) -> Result<usize, TableError> {
        for name in names {
            if let Some(place) = self.column(name)? {
                return Ok(place);
            }
        }
        let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let there = self.header.as_deref().unwrap_or_default().join(", ");
        let split = SEPARATORS.iter().find(|(byte, _)| *byte == self.separator);
        let columns = match split {
            Some((_, split)) => format!("the columns are {there} (separated by {split})"),
            None => format!("the only column is {there} (no tab, comma or semicolon in it)"),
        };
        let what = format!("no column {}; {columns}", quoted.join(" or "));
        Err(self.error(self.header_line, what))
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn next_row(&mut self) -> Result<Option<SeparatedRow>, TableError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let mut record = ByteRecord::new();
        while self.rows.read_byte_record(&mut record).map_err(|error| {
            let line = error.position().map_or(1, csv::Position::line);
            match error.into_kind() {
                csv::ErrorKind::Io(source) => io_error(&self.path, source),
                kind => self.error(line, format!("not a row of a table: {kind:?}")),
            }
        })? {
            if record.iter().all(|field| field.trim_ascii().is_empty()) {
                continue;
            }
            // The reader's line is the one after the row; the row's own position is before blank
            // lines and comments.
            let breaks = record.iter().flatten().filter(|byte| **byte == b'\n');
            let line = (self.rows.position().line() - 1).saturating_sub(breaks.count() as u64);
            return Ok(Some(SeparatedRow { record, line }));
        }
        Ok(None)
    }

    /// Checks that a row has as many fields as the header.
    ///
    /// # Errors
    /// Any other number of fields.
    pub(super) fn check_width(&self, row: &SeparatedRow) -> Result<(), TableError> {
        let (width, found) = (self.header().map_or(0, <[String]>::len), row.record.len());
        if found == width {
            return Ok(());
        }
        let fields = if found == 1 { "field" } else { "fields" };
        let what = format!("{found} {fields} where the header has {width}");
        Err(self.error(row.line, what))
    }

    /// The text of a field without blanks around it; empty where the row is too short.
    ///
    /// # Errors
    /// Text that is not UTF-8.
    pub(super) fn field<'r>(
        &self,
        row: &'r SeparatedRow,
        column: usize,
    ) -> Result<&'r str, TableError> {
        let bytes = row.record.get(column).unwrap_or_default();
        std::str::from_utf8(bytes).map(str::trim).map_err(|_| {
            self.field_error(row, column, "not UTF-8; save the table as UTF-8".to_owned())
        })
    }

    /// The text of a field that must not be empty.
    ///
    /// # Errors
    /// An empty field; text that is not UTF-8.
    pub(super) fn filled<'r>(
        &self,
        row: &'r SeparatedRow,
        column: usize,
    ) -> Result<&'r str, TableError> {
        match self.field(row, column)? {
            "" => Err(self.field_error(row, column, "empty".to_owned())),
            text => Ok(text),
        }
    }

    /// An error of a line.
    pub(super) fn error(&self, line: u64, what: impl Into<String>) -> TableError {
        TableError::Line {
            path: self.path.clone(),
            line,
            what: what.into(),
        }
    }

    /// An error of a field.
    pub(super) fn field_error(
        &self,
        row: &SeparatedRow,
        column: usize,
        what: String,
    ) -> TableError {
        let name = self.header().and_then(|names| names.get(column));
        TableError::Field {
            path: self.path.clone(),
            line: row.line,
            column: name.cloned().unwrap_or_else(|| (column + 1).to_string()),
            what,
        }
    }
}

impl SeparatedRow {
    /// Number of fields.
    pub(super) fn len(&self) -> usize {
        self.record.len()
    }
}

fn io_error(path: &Path, source: io::Error) -> TableError {
    TableError::Io {
        path: path.to_owned(),
        source,
    }
}

fn is_same(name: &str, wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted)
}

/// The separator of a table with this first line.
fn separator_of(line: &[u8], wanted: &[&str]) -> u8 {
    let mut in_quotes = false;
    let outside = line.iter().filter(|byte| {
        in_quotes ^= **byte == b'"';
        !in_quotes
    });
    let outside: Vec<u8> = outside.copied().collect();
    let possible = SEPARATORS.map(|(separator, _)| separator);
    let possible = possible.iter().filter(|byte| outside.contains(byte));
    let names = |separator: u8| {
        let fields = line.split(|byte| *byte == separator);
        let named = |field: &[u8]| {
            let name = String::from_utf8_lossy(field);
            let name = name.trim().trim_matches('"');
            wanted.iter().any(|wanted| is_same(name, wanted))
        };
        fields.filter(|field| named(field)).count()
    };
    // Of several with the same number of names, the first one.
    let best = possible.copied().rev().max_by_key(|byte| names(*byte));
    best.unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &[u8], rule: HeaderRule) -> (tempfile::NamedTempFile, SeparatedTable) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let table = SeparatedTable::open(file.path(), &["mutant", "score"], rule).unwrap();
        (file, table)
    }

    /// All rows: the line, and the fields.
    fn rows(text: &str, rule: HeaderRule) -> Vec<(u64, Vec<String>)> {
        let (_file, mut table) = open(text.as_bytes(), rule);
        let mut rows = Vec::new();
        while let Some(row) = table.next_row().unwrap() {
            let fields = (0..row.len()).map(|at| table.field(&row, at).unwrap().to_owned());
            rows.push((row.line, fields.collect()));
        }
        rows
    }

    #[test]
    fn the_first_line_decides_about_the_separator() {
        for (line, separator) in [
            ("mutant\tscore", b'\t'),
            ("mutant,score", b','),
            ("mutant;score", b';'),
            ("mutant,name;of;it,score", b','),
            ("a,b;mutant;score", b';'),
            ("\"a;b\",c", b','),
            ("p;K2A,T3S", b';'),
            ("p\tK2A,T3S", b'\t'),
            ("K2A", NONE),
        ] {
            let found = separator_of(line.as_bytes(), &["mutant", "score"]);
            assert_eq!(found, separator, "{line}");
        }
    }

    #[test]
    fn rows_have_the_lines_of_the_file() {
        let row = |line, fields: [&str; 2]| (line, fields.map(str::to_owned).to_vec());
        let text = "\n# by hand\nmutant;x\n\nA1G; 0,5\n#A2G;1\n;\n\"A3G\nA4G\";\"2\"\"\"\nA5G;3";
        let expected = [
            row(5, ["A1G", "0,5"]),
            row(8, ["A3G\nA4G", "2\""]),
            row(10, ["A5G", "3"]),
        ];
        for end in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', end);
            assert_eq!(rows(&text, HeaderRule::Always), expected, "{end:?}");
        }
        assert_eq!(
            rows("sep=;\nmutant;x,y\nA1G;2\n", HeaderRule::Always),
            [row(3, ["A1G", "2"])]
        );
        assert_eq!(
            rows("a,A1G\nb,A2G", HeaderRule::IfNamed),
            [row(1, ["a", "A1G"]), row(2, ["b", "A2G"])]
        );
    }

    #[test]
    fn columns_are_found_by_name_or_the_error_lists_them() {
        let (_file, table) = open(b"Mutant;a;b;b\n", HeaderRule::Always);
        assert_eq!(table.column("mutant").unwrap(), Some(0));
        assert_eq!(table.column("c").unwrap(), None);
        let error = table.column("b").unwrap_err().to_string();
        assert!(error.ends_with("line 1: 2 columns are called `b`; rename them"));
        let error = table.one_of(&["x", "y"]).unwrap_err().to_string();
        let expected =
            "no column `x` or `y`; the columns are Mutant, a, b, b (separated by semicolons)";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn fields_that_are_not_utf8_are_named() {
        let (_file, mut table) = open(b"x,mutant,score\n\xfc,A1G,\xfc\n", HeaderRule::Always);
        let row = table.next_row().unwrap().unwrap();
        assert_eq!(table.field(&row, 1).unwrap(), "A1G");
        let error = table.field(&row, 2).unwrap_err().to_string();
        assert!(error.contains("line 2, column score: not UTF-8"), "{error}");
    }

    #[test]
    fn decimal_commas_are_for_tables_with_semicolons() {
        let table = [
            (DecimalMark::Comma, "-0,5", Some(-0.5)),
            (DecimalMark::Comma, "0.5", Some(0.5)),
            (DecimalMark::Comma, "1,5e-3", Some(0.0015)),
            (DecimalMark::Comma, "1.234,5", None),
            (DecimalMark::Comma, "1,234,5", None),
            (DecimalMark::Point, "0,5", None),
            (DecimalMark::Point, "0.5", Some(0.5)),
            (DecimalMark::Point, "NaN", None),
            (DecimalMark::Point, "inf", None),
        ];
        for (mark, text, number) in table {
            assert_eq!(mark.number(text), number, "{text}");
        }
    }
}
