//! The kind of a file by its first bytes, never by its name alone; and its content.

use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Content, ReportError, Source, contacts, sequences, table, training};
use crate::output::embeddings::EmbeddingFormat;
use crate::output::embeddings::inspect::observe;
use crate::output::manifest::{Manifest, beside};
use crate::sequence::digest::hex;

/// Reads one file of a run.
///
/// # Errors
/// A file that cannot be read, is damaged, or is nothing that a report shows.
pub fn source(path: &Path) -> Result<Source, ReportError> {
    let fail = |source| ReportError::Read {
        path: path.to_owned(),
        source,
    };
    let (bytes, sha256) = size_and_hash(path).map_err(fail)?;
    let content = content(path)?;
    let provenance = match &content {
        Content::Embeddings(summary, _) if summary.metadata != Manifest::default() => {
            Some(Value::Object(summary.metadata.to_map().map_err(fail)?))
        }
        Content::Manifest => manifest(path)?,
        _ => {
            let beside = beside(path);
            if beside.is_file() {
                manifest(&beside)?
            } else {
                None
            }
        }
    };
    Ok(Source {
        name: path.display().to_string(),
        bytes,
        sha256,
        provenance,
        content,
    })
}

/// The files to read: a folder's in order of their names, without those that only go with another one (`FILE.json` with `FILE`), and what a folder
/// has besides results, which is listed second.
///
/// # Errors
/// A folder that cannot be read.
pub fn gather(given: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<PathBuf>), ReportError> {
    let (mut files, mut left_out) = (Vec::new(), Vec::new());
    for path in given {
        if path.is_dir() {
            let fail = |source| ReportError::Read {
                path: path.clone(),
                source,
            };
            let entries = fs::read_dir(path).map_err(fail)?;
            let mut names = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(fail)?;
            names.retain(|name| name.is_file());
            names.sort();
            for name in names {
                match content_kind(&name) {
                    Ok(Kind::Unknown) | Err(_) => left_out.push(name),
                    Ok(_) => files.push(name),
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    let goes_along = |path: &PathBuf| files.iter().any(|file| beside(file) == *path);
    let alone: Vec<PathBuf> = files
        .iter()
        .filter(|path| !goes_along(path))
        .cloned()
        .collect();
    Ok((alone, left_out))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fasta,
    Contacts,
    Embeddings,
    Table,
    Lines,
    Object,
    Recipe,
    Unknown,
}

/// By the first kilobytes, decompressed.
fn content_kind(path: &Path) -> Result<Kind, ReportError> {
    let mut start = Vec::new();
    table::open(path)?
        .take(1 << 16)
        .read_to_end(&mut start)
        .map_err(|source| ReportError::Read {
            path: path.to_owned(),
            source,
        })?;
    let text = String::from_utf8_lossy(&start);
    let first = text.lines().next().unwrap_or_default();
    let words: Vec<&str> = first.split('\t').collect();
    let is_recipe = path.extension().is_some_and(|e| e == "toml");
    Ok(match first {
        _ if first.starts_with('>') || text.trim_start().starts_with('>') => Kind::Fasta,
        _ if first.starts_with("PFRMAT") || first.starts_with("TARGET") => Kind::Contacts,
        _ if words.len() > 1 && words[0] == "id" => {
            let width = |name: &&str| name.contains('.') && words[1] == "length";
            if words.last().is_some_and(width) {
                Kind::Embeddings
            } else {
                Kind::Table
            }
        }
        _ if is_recipe => Kind::Recipe,
        _ if first.starts_with('{') => json_kind(first),
        _ if EmbeddingFormat::detect(path).is_ok_and(EmbeddingFormat::is_binary) => {
            Kind::Embeddings
        }
        _ if first.split_ascii_whitespace().count() >= 3 && is_contact(first) => Kind::Contacts,
        _ => Kind::Unknown,
    })
}

fn is_contact(line: &str) -> bool {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let last = words.last().copied().unwrap_or_default();
    contacts::Contact::parse(words[0], words[1], last).is_ok()
}

/// A whole object on the first line begins JSON lines: embeddings where it holds lists of numbers. Else the file is one object.
fn json_kind(first: &str) -> Kind {
    match serde_json::from_str::<Map<String, Value>>(first) {
        Ok(object) if training::is_log(&object) => Kind::Lines,
        Ok(object) if object.contains_key("id") => {
            if object.values().any(Value::is_array) {
                Kind::Embeddings
            } else {
                Kind::Lines
            }
        }
        // A line longer than what was looked at: embeddings.
        Err(_) if first.len() > 1000 => Kind::Embeddings,
        _ => Kind::Object,
    }
}

fn content(path: &Path) -> Result<Content, ReportError> {
    Ok(match content_kind(path)? {
        Kind::Fasta => Content::Sequences(sequences::read(path)?),
        Kind::Contacts => Content::Contacts(contacts::read_rr(path)?),
        Kind::Embeddings => {
            let mut lengths = Vec::new();
            let summary = observe(path, |record| {
                lengths.push((record.id.clone(), record.length));
            })?;
            Content::Embeddings(Box::new(summary), lengths)
        }
        Kind::Table => of_table(table::read_tsv(path)?, path)?,
        Kind::Lines => {
            let lines = table::read_lines(path)?;
            if lines.first().is_some_and(training::is_log) {
                Content::Training(training::read(path, &lines)?)
            } else {
                of_table(table::of_objects(&lines), path)?
            }
        }
        Kind::Object => Content::Manifest,
        Kind::Recipe => {
            let mut text = String::new();
            table::open(path)?
                .read_to_string(&mut text)
                .map_err(|source| ReportError::Read {
                    path: path.to_owned(),
                    source,
                })?;
            Content::Recipe(text)
        }
        Kind::Unknown => return Err(ReportError::Unknown(path.to_owned())),
    })
}

fn of_table(plain: table::PlainTable, path: &Path) -> Result<Content, ReportError> {
    Ok(match table::contacts(&plain, path)? {
        Some(lists) => Content::Contacts(lists),
        None => Content::Table(plain),
    })
}

fn manifest(path: &Path) -> Result<Option<Value>, ReportError> {
    let reader = table::open(path)?;
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
