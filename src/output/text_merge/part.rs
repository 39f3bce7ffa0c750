//! One file to be merged: its manifest, and its rows one after the other.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::TextMergeError;
use crate::io::stdio::BUFFER;
use crate::output::layout::{RowCounts, TextFormat};
use crate::output::manifest::Manifest;
use crate::output::shards::Made;

/// A FASTA file or table with the manifest beside it.
pub struct Part {
    pub(super) path: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) format: TextFormat,
    /// Of a shard: the rows of each sequence.
    pub(super) rows: Option<RowCounts>,
    /// Of tab- and comma-separated tables, with its line break.
    pub(super) header: Vec<u8>,
    reader: BufReader<File>,
}

impl Part {
    /// Opens `path`; `None` where no `FILE.json` beside it tells of a FASTA file or table.
    ///
    /// # Errors
    /// Files that cannot be read, and manifests that are none.
    pub fn open(path: &Path) -> Result<Option<Self>, TextMergeError> {
        let read = |error| TextMergeError::Read {
            path: path.to_owned(),
            source: error,
        };
        let Some(manifest) = Manifest::read_beside(path).map_err(read)? else {
            return Ok(None);
        };
        let Some(format) = manifest.format else {
            return Ok(None);
        };
        let mut part = Part {
            rows: rows(path, &manifest)?,
            path: path.to_owned(),
            manifest,
            format,
            header: Vec::new(),
            reader: BufReader::with_capacity(BUFFER, File::open(path).map_err(read)?),
        };
        if matches!(format, TextFormat::Tsv | TextFormat::Csv) {
            let mut header = Vec::new();
            part.next_row(&mut header)?;
            part.header = header;
        }
        Ok(Some(part))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self.format {
            TextFormat::Fasta => "FASTA file",
            TextFormat::Tsv => "tab-separated table",
            TextFormat::Csv => "comma-separated table",
            TextFormat::Jsonl => "table of JSON lines",
            TextFormat::Rr => "contact list",
        }
    }

    pub(super) fn made(&self) -> Made<'_> {
        Made {
            path: &self.path,
            manifest: &self.manifest,
        }
    }

    /// Reads the next row to `row`, with its line breaks; false at the end.
    pub(super) fn next_row(&mut self, row: &mut Vec<u8>) -> Result<bool, TextMergeError> {
        row.clear();
        let read = self.read_row(row);
        read.map_err(|source| TextMergeError::Read {
            path: self.path.clone(),
            source,
        })
    }

    fn read_row(&mut self, row: &mut Vec<u8>) -> io::Result<bool> {
        self.reader.read_until(b'\n', row)?;
        if self.format == TextFormat::Fasta {
            while self
                .reader
                .fill_buf()?
                .first()
                .is_some_and(|byte| *byte != b'>')
            {
                self.reader.read_until(b'\n', row)?;
            }
        }
        Ok(!row.is_empty())
    }

    /// The id of a row, which [`Part::next_row`] gave.
    pub(super) fn id(&self, row: &[u8]) -> Result<String, TextMergeError> {
        let id = match self.format {
            TextFormat::Jsonl => id_of_object(row),
            TextFormat::Fasta => row.strip_prefix(b">").map(|header| {
                let end = header.iter().position(u8::is_ascii_whitespace);
                String::from_utf8_lossy(&header[..end.unwrap_or(header.len())]).into_owned()
            }),
            TextFormat::Tsv => first_cell(row, b'\t'),
            TextFormat::Rr => None,
            TextFormat::Csv => first_cell(row, b','),
        };
        id.ok_or_else(|| TextMergeError::NotARow {
            path: self.path.clone(),
            row: String::from_utf8_lossy(row).trim_end().to_owned(),
        })
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

/// The rows of each sequence, which a shard's manifest tells.
fn rows(path: &Path, manifest: &Manifest) -> Result<Option<RowCounts>, TextMergeError> {
    if manifest.shard.is_none() {
        return Ok(None);
    }
    manifest
        .rows
        .clone()
        .map(Some)
        .ok_or_else(|| TextMergeError::NoRows {
            path: path.to_owned(),
        })
}
