//! A text file to merge: its manifest, and its rows, one sequence at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::agreement::FileManifest;
use super::{MergeError, MergeSource};
use crate::io::BUFFER;
use crate::output::layout::{RowCounts, TextFormat};
use crate::output::manifest::{self, Manifest};

/// A FASTA file, table or contact list with the manifest beside it.
pub struct TextFile {
    path: PathBuf,
    manifest: Manifest,
    format: TextFormat,
    /// Rows of the sequences to come; `None` for a file that is not a shard.
    counts: Option<Box<dyn Iterator<Item = u64>>>,
    /// The header line of tab- and comma-separated tables, with its line break.
    pub(super) header: Vec<u8>,
    reader: BufReader<File>,
    /// Rows read so far.
    rows: u64,
    /// Rows that the file must have, if its manifest has the number.
    written: Option<u64>,
    /// A row that was read ahead.
    next: Option<(String, Vec<u8>)>,
}

/// The rows of one sequence.
pub(super) struct TextPiece {
    /// The ids of the rows, each once.
    pub(super) ids: Vec<String>,
    /// The rows.
    pub(super) bytes: Vec<u8>,
    /// Number of rows.
    pub(super) rows: u64,
}

impl TextFile {
    /// Opens `path`; `None` if there is no `FILE.json` beside it with the format of a text file.
    ///
    /// # Errors
    /// Files that cannot be read, and manifests that are invalid.
    pub fn open(path: &Path) -> Result<Option<Self>, MergeError> {
        let of_manifest = |source| MergeError::ReadText {
            path: manifest::beside(path),
            source,
        };
        let json: Option<Map<String, Value>> = manifest::read_beside(path).map_err(of_manifest)?;
        // A JSON file without a text format belongs to another kind of file and is not an error.
        let Some(json) = json.filter(|json| json.get("format").is_some_and(is_text_format)) else {
            return Ok(None);
        };
        let manifest: Manifest = serde_json::from_value(Value::Object(json))
            .map_err(|error| of_manifest(error.into()))?;
        let Some(format) = manifest.format else {
            return Ok(None);
        };
        let rows = manifest.rows.clone().filter(|_| manifest.shard.is_some());
        if manifest.shard.is_some() && rows.is_none() {
            return Err(MergeError::NoRows {
                path: path.to_owned(),
            });
        }
        let total = rows.as_ref().and_then(RowCounts::total);
        let file = File::open(path).map_err(|source| MergeError::ReadText {
            path: path.to_owned(),
            source,
        })?;
        let mut text = TextFile {
            path: path.to_owned(),
            format,
            written: manifest.written.or(total),
            counts: rows.map(|rows| Box::new(rows.iter()) as Box<dyn Iterator<Item = u64>>),
            manifest,
            header: Vec::new(),
            reader: BufReader::with_capacity(BUFFER, file),
            rows: 0,
            next: None,
        };
        if matches!(format, TextFormat::Tsv | TextFormat::Csv) {
            text.header = text.read_row()?;
        }
        Ok(Some(text))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file is, in words.
    pub fn kind(&self) -> &'static str {
        match self.format {
            TextFormat::Fasta => "FASTA file",
            TextFormat::Tsv => "tab-separated table",
            TextFormat::Csv => "comma-separated table",
            TextFormat::Jsonl => "table of JSON lines",
            TextFormat::Rr => "contact list",
        }
    }

    pub(super) fn made(&self) -> FileManifest<'_> {
        FileManifest {
            path: &self.path,
            manifest: &self.manifest,
        }
    }

    /// The next row with its line breaks; empty at the end of the file.
    fn read_row(&mut self) -> Result<Vec<u8>, MergeError> {
        let mut row = Vec::new();
        match self.read_lines(&mut row) {
            Ok(true) => Ok(row),
            Ok(false) => Err(MergeError::CutOff {
                path: self.path.clone(),
            }),
            Err(source) => Err(MergeError::ReadText {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// Appends the lines of one row: one line, a FASTA record up to the next `>`, or a contact list
    /// up to its `END`. False if the file is truncated inside the row.
    fn read_lines(&mut self, row: &mut Vec<u8>) -> io::Result<bool> {
        self.reader.read_until(b'\n', row)?;
        match self.format {
            TextFormat::Fasta => {
                while !matches!(self.reader.fill_buf()?.first(), None | Some(b'>')) {
                    self.reader.read_until(b'\n', row)?;
                }
            }
            TextFormat::Rr => {
                let mut start = 0;
                while !row.is_empty() && &row[start..] != b"END\n" {
                    start = row.len();
                    if self.reader.read_until(b'\n', row)? == 0 {
                        return Ok(false);
                    }
                }
            }
            TextFormat::Tsv | TextFormat::Csv | TextFormat::Jsonl => {}
        }
        Ok(row.is_empty() || row.ends_with(b"\n"))
    }

    /// The next row and its id; `None` at the end of the file.
    fn next_row(&mut self) -> Result<Option<(String, Vec<u8>)>, MergeError> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        let row = self.read_row()?;
        if row.is_empty() {
            return Ok(None);
        }
        self.rows += 1;
        let id = id_of(self.format, &row).ok_or_else(|| MergeError::NotARow {
            path: self.path.clone(),
            row: String::from_utf8_lossy(&row).trim_end().to_owned(),
        })?;
        Ok(Some((id, row)))
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// A truncated file, or a number of rows that differs from the manifest.
    pub fn check(mut self) -> Result<(), MergeError> {
        self.check_count()
    }

    /// Rejects a file whose number of rows differs from its manifest. Called after the last
    /// sequence.
    fn check_count(&mut self) -> Result<(), MergeError> {
        while self.next_row()?.is_some() {}
        let Some(written) = self.written else {
            tracing::warn!(
                "{}.json does not say how many rows the file must have, so it cannot be checked that none is missing",
                self.path.display()
            );
            return Ok(());
        };
        if self.rows == written {
            return Ok(());
        }
        Err(MergeError::Count {
            path: self.path.clone(),
            found: self.rows,
            written,
        })
    }
}

impl MergeSource for TextFile {
    type Piece = TextPiece;

    fn path(&self) -> &Path {
        &self.path
    }

    /// In a shard, the manifest has the number of rows of the next sequence. In other files,
    /// adjacent rows with the same id are a piece.
    fn next_piece(&mut self) -> Result<Option<TextPiece>, MergeError> {
        let expected = match &mut self.counts {
            Some(counts) => match counts.next() {
                Some(rows) => Some(rows),
                None => return self.check_count().map(|()| None),
            },
            None => None,
        };
        let mut piece = TextPiece {
            ids: Vec::new(),
            bytes: Vec::new(),
            rows: 0,
        };
        while expected.is_none_or(|rows| piece.rows < rows) {
            let Some((id, row)) = self.next_row()? else {
                break;
            };
            if piece.ids.last() != Some(&id) {
                if expected.is_none() && piece.rows > 0 {
                    self.next = Some((id, row));
                    break;
                }
                piece.ids.push(id);
            }
            piece.bytes.extend(row);
            piece.rows += 1;
        }
        let is_whole = expected.map_or(piece.rows > 0, |rows| piece.rows == rows);
        if is_whole {
            return Ok(Some(piece));
        }
        self.check_count()?;
        match expected {
            // Its rows are as many as `written` says, but not as many as those of its sequences.
            Some(_) => Err(MergeError::NoRows {
                path: self.path.clone(),
            }),
            None => Ok(None),
        }
    }
}

fn is_text_format(value: &Value) -> bool {
    TextFormat::deserialize(value).is_ok()
}

/// The id of a row of the given format.
fn id_of(format: TextFormat, row: &[u8]) -> Option<String> {
    let word = |text: &[u8]| {
        let end = text.iter().position(u8::is_ascii_whitespace);
        String::from_utf8_lossy(&text[..end.unwrap_or(text.len())]).into_owned()
    };
    match format {
        TextFormat::Jsonl => id_of_object(row),
        TextFormat::Fasta => row.strip_prefix(b">").map(word),
        TextFormat::Tsv => first_cell(row, b'\t'),
        TextFormat::Csv => first_cell(row, b','),
        TextFormat::Rr => {
            let mut lines = row.split(|byte| *byte == b'\n');
            lines
                .find_map(|line| line.strip_prefix(b"TARGET "))
                .map(word)
        }
    }
}

fn id_of_object(row: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct WithId {
        id: String,
    }
    serde_json::from_slice::<WithId>(row).ok().map(|row| row.id)
}

fn first_cell(row: &[u8], separator: u8) -> Option<String> {
    let mut reader = csv::ReaderBuilder::new();
    reader.has_headers(false).delimiter(separator);
    let mut cells = reader.from_reader(row).into_records();
    let cells = cells.next()?.ok().filter(|cells| cells.len() > 1)?;
    cells.get(0).map(str::to_owned)
}
