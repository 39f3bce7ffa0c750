//! Recognises a file by its first bytes, never by its name alone, and reads it.

use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::results::{ResultContent, ResultFile};
use super::sequences;
use super::table::{self, PlainTable};
use crate::io::whole_lines::WholeLines;
use crate::output::embeddings::EmbeddingFormat;
use crate::output::embeddings::inspect::observe;
use crate::output::manifest::{Manifest, beside};
use crate::output::merge::TextFile;
use crate::report::contact_map::{Contact, read_rr};
use crate::report::error::ReportError;
use crate::report::file::{open, read_text, unreadable};
use crate::report::training_log::{self, TrainingLog};
use crate::sequence::digest::hex;

/// Reads one file of a run.
///
/// # Errors
/// A file that cannot be read, is damaged, or is nothing that a report shows.
pub fn result_file(path: &Path) -> Result<ResultFile, ReportError> {
    let (bytes, sha256) = size_and_hash(path).map_err(unreadable(path))?;
    let content = content(path)?;
    let provenance = match &content {
        ResultContent::Embeddings(summary, _) if summary.metadata != Manifest::default() => Some(
            Value::Object(summary.metadata.to_map().map_err(unreadable(path))?),
        ),
        ResultContent::Manifest => manifest(path)?,
        _ => {
            let beside = beside(path);
            if beside.is_file() {
                manifest(&beside)?
            } else {
                None
            }
        }
    };
    Ok(ResultFile {
        name: path.display().to_string(),
        bytes,
        sha256,
        provenance,
        content,
    })
}

/// The files to read, and the files of a folder that are no results. The files of a folder are in
/// the order of their names; `FILE.json` is not among them where `FILE` is.
///
/// # Errors
/// A folder that cannot be read.
pub fn gather(given: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<PathBuf>), ReportError> {
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for path in given {
        if path.is_dir() {
            let entries = fs::read_dir(path).map_err(unreadable(path))?;
            let mut names = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(unreadable(path))?;
            names.retain(|name| name.is_file());
            names.sort();
            for name in names {
                match content_kind(&name) {
                    Ok(Kind::Unknown) | Err(_) => others.push(name),
                    Ok(_) => files.push(name),
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    let is_beside = |path: &PathBuf| files.iter().any(|file| beside(file) == *path);
    let results: Vec<PathBuf> = files
        .iter()
        .filter(|path| !is_beside(path))
        .cloned()
        .collect();
    Ok((results, others))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fasta,
    Contacts,
    Embeddings,
    /// A table with this separator.
    Table(u8),
    Lines,
    Log,
    Object,
    Recipe,
    Unknown,
}

/// Looks at the first 64 KiB of the decompressed file.
fn content_kind(path: &Path) -> Result<Kind, ReportError> {
    let mut start = Vec::new();
    open(path)?
        .take(1 << 16)
        .read_to_end(&mut start)
        .map_err(unreadable(path))?;
    let text = String::from_utf8_lossy(&start);
    let first = text.lines().next().unwrap_or_default();
    if let Some(kind) = separated_kind(first) {
        return Ok(kind);
    }
    let is_recipe = path.extension().is_some_and(|e| e == "toml");
    Ok(match first {
        _ if first.starts_with('>') || text.trim_start().starts_with('>') => Kind::Fasta,
        _ if first.starts_with("PFRMAT") || first.starts_with("TARGET") => Kind::Contacts,
        _ if is_recipe => Kind::Recipe,
        _ if first.starts_with('{') => json_kind(first),
        _ if EmbeddingFormat::detect(path).is_ok_and(EmbeddingFormat::is_binary) => {
            Kind::Embeddings
        }
        _ if first.split_ascii_whitespace().count() >= 3 && is_contact(first) => Kind::Contacts,
        _ => Kind::Unknown,
    })
}

/// The kind of a file with this header: tables begin with a column `id` or, where they hold
/// measures, `set`.
fn separated_kind(header: &str) -> Option<Kind> {
    for separator in ['\t', ','] {
        let names: Vec<&str> = header.split(separator).collect();
        if names.len() < 2 || !matches!(names[0], "id" | "set") {
            continue;
        }
        let is_value = |name: &&str| name.contains('.') && names[1] == "length";
        return Some(if separator == '\t' && names.last().is_some_and(is_value) {
            Kind::Embeddings
        } else {
            Kind::Table(separator as u8)
        });
    }
    None
}

fn is_contact(line: &str) -> bool {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let last = words.last().copied().unwrap_or_default();
    Contact::parse(words[0], words[1], last).is_ok()
}

/// A complete object on the first line starts JSON lines, of embeddings where it holds lists of
/// numbers; otherwise the whole file is one object.
fn json_kind(first: &str) -> Kind {
    match serde_json::from_str::<Map<String, Value>>(first) {
        Ok(object) if training_log::is_line(&object) => Kind::Log,
        Ok(object) if object.contains_key("id") || object.contains_key("set") => {
            if object.values().any(Value::is_array) {
                Kind::Embeddings
            } else {
                Kind::Lines
            }
        }
        // Only embeddings have lines longer than the part that was read.
        Err(_) if first.len() > 1000 => Kind::Embeddings,
        _ => Kind::Object,
    }
}

/// Checks that a text file ends with a line break and has as many rows as its manifest says.
fn check_whole(path: &Path) -> Result<(), ReportError> {
    io::copy(&mut WholeLines::new(open(path)?), &mut io::sink()).map_err(unreadable(path))?;
    let text = TextFile::open(path).map_err(Box::new)?;
    let checked = text.map_or(Ok(()), TextFile::check);
    Ok(checked.map_err(Box::new)?)
}

fn content(path: &Path) -> Result<ResultContent, ReportError> {
    let kind = content_kind(path)?;
    if matches!(
        kind,
        Kind::Fasta | Kind::Contacts | Kind::Table(_) | Kind::Lines
    ) {
        check_whole(path)?;
    }
    Ok(match kind {
        Kind::Fasta => ResultContent::Sequences(sequences::read(path)?),
        Kind::Contacts => ResultContent::Contacts(read_rr(path)?),
        Kind::Embeddings => {
            let mut lengths = Vec::new();
            let summary = observe(path, |record| {
                lengths.push((record.id.clone(), record.length));
            })?;
            ResultContent::Embeddings(Box::new(summary), lengths)
        }
        Kind::Table(separator) => of_table(table::read_separated(path, separator)?, path)?,
        Kind::Lines => of_table(table::of_objects(&table::read_objects(path)?), path)?,
        Kind::Log => ResultContent::Training(TrainingLog::read(path)?),
        Kind::Object => ResultContent::Manifest,
        Kind::Recipe => ResultContent::Recipe(read_text(path)?),
        Kind::Unknown => return Err(ReportError::Unknown(path.to_owned())),
    })
}

fn of_table(plain: PlainTable, path: &Path) -> Result<ResultContent, ReportError> {
    Ok(match table::contacts(&plain, path)? {
        Some(lists) => ResultContent::Contacts(lists),
        None if plain.is_of_measures() => ResultContent::Measures(plain),
        None => ResultContent::Table(plain),
    })
}

fn manifest(path: &Path) -> Result<Option<Value>, ReportError> {
    let reader = open(path)?;
    serde_json::from_reader(reader)
        .map(Some)
        .map_err(|error| ReportError::line(path, error.line() as u64, error.to_string()))
}

fn size_and_hash(path: &Path) -> io::Result<(u64, String)> {
    let mut reader = io::BufReader::with_capacity(1 << 20, File::open(path)?);
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    loop {
        let buffer = reader.fill_buf()?;
        let read = buffer.len();
        if read == 0 {
            break;
        }
        hasher.update(buffer);
        bytes += read as u64;
        reader.consume(read);
    }
    Ok((bytes, hex(&hasher.finalize())))
}
