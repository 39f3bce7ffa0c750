//! FASTA files and tables of several runs into one, with the manifest that says how they were made.
//!
//! The manifests of shards tell how many rows each sequence has, none included, so rows are taken in turn without looking at what they say, and the result
//! is the bytes that one run without shards would have written. Files without `shard` are laid end to end in the order given.

mod part;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use part::Part;

use super::layout::RowCounts;
use super::manifest::{Manifest, write_manifest};
use super::shards::{self, Made, ShardError};
use crate::io::stdio::{Content, Output};

/// The manifest's key of a correlation for each protein: those of all files are told together.
const SPEARMAN: &str = "spearman";

/// Why files could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum TextMergeError {
    /// They do not belong together.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A shard whose manifest does not tell its rows.
    #[error("{}.json does not tell the rows of each sequence (rows_per_sequence), without which shards cannot be joined; make the shard again", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// A line that is no row of its file's format.
    #[error("{}: {row:?} is no row of it; the file was changed after it was written", path.display())]
    NotARow {
        /// The file.
        path: PathBuf,
        /// The row.
        row: String,
    },
    /// A file has more or fewer rows than its manifest says.
    #[error("{} has {found} rows than {}.json says; the two do not belong together, make the shard again", path.display(), path.display())]
    OtherRows {
        /// The file.
        path: PathBuf,
        /// `more` or `fewer`.
        found: &'static str,
    },
    /// A shard has fewer sequences than the others promise.
    #[error(
        "{} ends after {sequences} sequences, but {} goes on: one of the two is of another input", short.display(), long.display()
    )]
    Incomplete {
        /// The file that ended.
        short: PathBuf,
        /// Its sequences.
        sequences: u64,
        /// The file that has more.
        long: PathBuf,
    },
    /// An id came twice.
    #[error("{}: the id {id:?} came before, in this file or in one before it", path.display())]
    DuplicateId {
        /// The file in which it came again.
        path: PathBuf,
        /// The id.
        id: String,
    },
    /// The merged file could not be written.
    #[error("could not write the merged file: {0}")]
    Write(#[from] io::Error),
}

/// Merges `parts` into `output` and returns the rows written.
///
/// Keeps the ids in memory, nothing else.
///
/// # Errors
/// See [`TextMergeError`]; nothing is left under the name of `output` then.
pub fn merge(parts: Vec<Part>, output: &Path) -> Result<u64, TextMergeError> {
    let manifest = common_manifest(&parts)?;
    let files: Vec<Made<'_>> = parts.iter().map(Part::made).collect();
    let order = shards::order(&files)?;
    let mut merge = Merge {
        output: Output::create(output, Content::Text)?,
        ids: HashSet::new(),
        last: String::new(),
        rows: 0,
    };
    if let Some(first) = parts.first() {
        merge.output.write_all(&first.header)?;
    }
    match order {
        Some(order) => merge.interleave(parts, &order)?,
        None => merge.concatenate(parts)?,
    }
    merge.output.finish()?;
    write_manifest(output, &manifest)?;
    Ok(merge.rows)
}

/// How the merged file was made: as each of them, and no shard.
fn common_manifest(parts: &[Part]) -> Result<Manifest, TextMergeError> {
    let mut manifest = Manifest::default();
    let mut correlations = BTreeMap::new();
    for part in parts {
        let first = &parts[0];
        shards::compare(first.made(), part.made(), &[SPEARMAN])?;
        if first.header != part.header {
            let shown = |part: &Part| {
                let text = String::from_utf8_lossy(&part.header);
                Value::from(text.trim_end()).to_string()
            };
            let (left, right) = (shown(first), shown(part));
            return Err(
                ShardError::mismatch(&first.path, &part.path, "header", left, right).into(),
            );
        }
        let own = part
            .manifest
            .settings
            .get(SPEARMAN)
            .and_then(Value::as_object);
        if manifest == Manifest::default() || (correlations.is_empty() && own.is_some()) {
            manifest.clone_from(&part.manifest);
        }
        correlations.extend(own.cloned().unwrap_or_default());
    }
    manifest.shard = None;
    manifest.rows = None;
    if let Some(all) = manifest.settings.get_mut(SPEARMAN) {
        *all = Value::Object(correlations.into_iter().collect());
    }
    Ok(manifest)
}

struct Merge {
    output: Output,
    ids: HashSet<String>,
    /// The id of the last row of the same sequence; several rows may follow each other with one id.
    last: String,
    rows: u64,
}

impl Merge {
    fn concatenate(&mut self, parts: Vec<Part>) -> Result<(), TextMergeError> {
        let mut row = Vec::new();
        for mut part in parts {
            self.last.clear();
            while part.next_row(&mut row)? {
                self.write(&part, &row)?;
            }
        }
        Ok(())
    }

    /// A sequence of each in turn.
    fn interleave(&mut self, parts: Vec<Part>, order: &[usize]) -> Result<(), TextMergeError> {
        let mut parts: Vec<Option<Part>> = parts.into_iter().map(Some).collect();
        let mut sorted: Vec<Part> = order.iter().filter_map(|at| parts[*at].take()).collect();
        let counts: Vec<RowCounts> = sorted.iter().filter_map(|part| part.rows.clone()).collect();
        check_numbers(&sorted, &counts)?;
        let mut counts: Vec<_> = counts.iter().map(RowCounts::iter).collect();
        let mut row = Vec::new();
        'sequences: loop {
            for (part, counts) in sorted.iter_mut().zip(&mut counts) {
                let Some(rows) = counts.next() else {
                    break 'sequences;
                };
                self.last.clear();
                for _ in 0..rows {
                    if !part.next_row(&mut row)? {
                        return Err(other_rows(part, "fewer"));
                    }
                    self.write(part, &row)?;
                }
            }
        }
        for part in &mut sorted {
            if part.next_row(&mut row)? {
                return Err(other_rows(part, "more"));
            }
        }
        Ok(())
    }

    fn write(&mut self, part: &Part, row: &[u8]) -> Result<(), TextMergeError> {
        let id = part.id(row)?;
        if id != self.last {
            if !self.ids.insert(id.clone()) {
                return Err(TextMergeError::DuplicateId {
                    path: part.path.clone(),
                    id,
                });
            }
            self.last = id;
        }
        self.output.write_all(row)?;
        self.rows += 1;
        Ok(())
    }
}

fn other_rows(part: &Part, found: &'static str) -> TextMergeError {
    TextMergeError::OtherRows {
        path: part.path.clone(),
        found,
    }
}

/// The first shard has as many sequences as each other one, or one more; once there is one fewer, it stays so.
fn check_numbers(sorted: &[Part], counts: &[RowCounts]) -> Result<(), TextMergeError> {
    let numbers: Vec<u64> = counts.iter().map(RowCounts::sequences).collect();
    for (i, short) in numbers.iter().enumerate() {
        let goes_on = |(j, long): (usize, &u64)| *long > short + 1 || (j > i && long > short);
        if let Some(long) = numbers.iter().enumerate().position(goes_on) {
            return Err(TextMergeError::Incomplete {
                short: sorted[i].path.clone(),
                sequences: *short,
                long: sorted[long].path.clone(),
            });
        }
    }
    Ok(())
}
