//! Several embedding files into one.
//!
//! Shards of one run carry the metadata `"shard": "i/n"` (1-based): record `k` of the whole run,
//! from 0, is in shard `k mod n + 1`. Merging all `n` of them, given in any order, takes records
//! in turn and writes the bytes that one unsharded run would have written. Files without `shard`
//! are joined in the order given.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Destination, EmbeddingError, EmbeddingRecord, Format, Reader, Schema, Writer};

const SHARD: &str = "shard";

/// Why files could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Nothing to merge.
    #[error("there are no files to merge")]
    NoInput,
    /// Two files were not made in the same way.
    #[error(
        "{} and {} cannot be merged: {field} is {left} in the first, {right} in the second",
        first.display(), second.display()
    )]
    Mismatch {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// `columns`, `dtype` or the key of the metadata.
        field: String,
        /// Its value in `first`, as JSON.
        left: String,
        /// Its value in `second`, as JSON.
        right: String,
    },
    /// A file's `shard` is not `i/n` with 1 ≤ i ≤ n.
    #[error("{}: its shard {value} is not of the form i/n with 1 ≤ i ≤ n", path.display())]
    BadShard {
        /// The file.
        path: PathBuf,
        /// What it says, as JSON.
        value: String,
    },
    /// A shard is not among the files.
    #[error("shard {} is missing; give all {of} files of the run", missing.join(", "))]
    MissingShards {
        /// Those that are missing, as `i/n`.
        missing: Vec<String>,
        /// Shards in the run.
        of: usize,
    },
    /// Two files are the same shard.
    #[error("{} and {} are both shard {shard}", first.display(), second.display())]
    DuplicateShard {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// `i/n`.
        shard: String,
    },
    /// A shard has fewer records than the others promise.
    #[error(
        "{} ends after {records} records, but {} goes on: one of the two is not complete; rerun it \
         (or its --resume)",
        short.display(), long.display()
    )]
    Incomplete {
        /// The file that ended.
        short: PathBuf,
        /// Its records.
        records: u64,
        /// A file with a record that should not be there.
        long: PathBuf,
    },
    /// An id came twice.
    #[error("{}: the id {id:?} came before, in {}", path.display(), before.display())]
    DuplicateId {
        /// The file in which it came again.
        path: PathBuf,
        /// The id.
        id: String,
        /// The first of the files that have it.
        before: PathBuf,
    },
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] EmbeddingError),
    /// The merged file could not be written.
    #[error("could not write the merged file: {0}")]
    Write(#[from] io::Error),
}

/// What a merge wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// Records written.
    pub records: u64,
    /// The schema written: the common one, without `shard`.
    pub schema: Schema,
}

/// Merges `inputs` into `destination`, whatever format each of them has.
///
/// Keeps the ids in memory, nothing else.
///
/// # Errors
/// See [`MergeError`]; nothing is left at a file destination then.
pub fn merge(
    mut inputs: Vec<Reader>,
    format: Format,
    destination: Destination,
) -> Result<Merged, MergeError> {
    let schema = common_schema(&inputs)?;
    let sharded = sort_shards(&mut inputs)?;
    let mut sink = Sink {
        writer: Writer::create(format, &schema, destination)?,
        paths: inputs.iter().map(|input| input.path().to_owned()).collect(),
        ids: HashSet::new(),
        of_file: vec![0; inputs.len()],
    };
    if sharded {
        interleave(&mut inputs, &mut sink)?;
    } else {
        concatenate(&mut inputs, &mut sink)?;
    }
    sink.writer.finish()?;
    Ok(Merged {
        records: sink.of_file.iter().sum(),
        schema,
    })
}

struct Sink {
    writer: Writer,
    paths: Vec<PathBuf>,
    ids: HashSet<String>,
    of_file: Vec<u64>,
}

impl Sink {
    fn write(&mut self, file: usize, record: EmbeddingRecord) -> Result<(), MergeError> {
        if self.ids.contains(&record.id) {
            return Err(self.duplicate(file, record.id));
        }
        self.writer.write(&record)?;
        self.of_file[file] += 1;
        self.ids.insert(record.id);
        Ok(())
    }

    /// Looks again for who had the id first: remembering it for all would take memory that only
    /// this error needs.
    fn duplicate(&self, file: usize, id: String) -> MergeError {
        let has_id = |path: &&PathBuf| {
            Reader::open(path)
                .is_ok_and(|mut records| records.any(|record| record.is_ok_and(|r| r.id == id)))
        };
        let before = self
            .paths
            .iter()
            .find(has_id)
            .unwrap_or(&self.paths[file])
            .clone();
        MergeError::DuplicateId {
            path: self.paths[file].clone(),
            id,
            before,
        }
    }
}

fn concatenate(inputs: &mut [Reader], sink: &mut Sink) -> Result<(), MergeError> {
    for (file, input) in inputs.iter_mut().enumerate() {
        for record in input {
            sink.write(file, record?)?;
        }
    }
    Ok(())
}

/// One record of each in turn; when one ends, no other may go on.
fn interleave(inputs: &mut [Reader], sink: &mut Sink) -> Result<(), MergeError> {
    let mut ended: Option<usize> = None;
    loop {
        for file in 0..inputs.len() {
            match (inputs[file].next().transpose()?, ended) {
                (Some(record), None) => sink.write(file, record)?,
                (Some(_), Some(short)) => {
                    return Err(MergeError::Incomplete {
                        short: inputs[short].path().to_owned(),
                        records: sink.of_file[short],
                        long: inputs[file].path().to_owned(),
                    });
                }
                (None, _) => ended = ended.or(Some(file)),
            }
        }
        if ended.is_some() {
            // Those before the one that ended first must have ended too: their next record would
            // belong after a record that does not exist.
            return end_of_all(inputs, ended, sink);
        }
    }
}

fn end_of_all(inputs: &mut [Reader], ended: Option<usize>, sink: &Sink) -> Result<(), MergeError> {
    let short = ended.unwrap_or(0);
    for file in 0..short {
        if inputs[file].next().transpose()?.is_some() {
            return Err(MergeError::Incomplete {
                short: inputs[short].path().to_owned(),
                records: sink.of_file[short],
                long: inputs[file].path().to_owned(),
            });
        }
    }
    Ok(())
}

/// The schema that all inputs share, `shard` left out.
fn common_schema(inputs: &[Reader]) -> Result<Schema, MergeError> {
    let [first, others @ ..] = inputs else {
        return Err(MergeError::NoInput);
    };
    for other in others {
        compare(first, other)?;
    }
    let mut schema = first.schema().clone();
    schema.metadata.shift_remove(SHARD);
    Ok(schema)
}

fn compare(first: &Reader, second: &Reader) -> Result<(), MergeError> {
    let (left, right) = (first.schema(), second.schema());
    let mismatch = |field: &str, left: String, right: String| MergeError::Mismatch {
        first: first.path().to_owned(),
        second: second.path().to_owned(),
        field: field.to_owned(),
        left,
        right,
    };
    if left.dtype != right.dtype {
        return Err(mismatch(
            "dtype",
            left.dtype.name().into(),
            right.dtype.name().into(),
        ));
    }
    if left.columns != right.columns {
        let [left, right] =
            [left, right].map(|schema| serde_json::to_string(&schema.columns).unwrap_or_default());
        return Err(mismatch("columns", left, right));
    }
    let keys = left.metadata.keys().chain(right.metadata.keys());
    for key in keys {
        let (left, right) = (left.metadata.get(key), right.metadata.get(key));
        let same = if key == SHARD {
            left.is_some() == right.is_some()
        } else {
            left == right
        };
        if !same {
            return Err(mismatch(key, shown(left), shown(right)));
        }
    }
    Ok(())
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), Value::to_string)
}

/// Puts shards in order and checks that all are there; false when the files are no shards.
fn sort_shards(inputs: &mut Vec<Reader>) -> Result<bool, MergeError> {
    if inputs
        .iter()
        .all(|input| !input.schema().metadata.contains_key(SHARD))
    {
        return Ok(false);
    }
    let mut numbered = Vec::new();
    for input in inputs.drain(..) {
        let (number, of) = shard_of(input.path(), input.schema())?;
        numbered.push((number, of, input));
    }
    numbered.sort_by_key(|(number, ..)| *number);
    check_shards(&numbered)?;
    inputs.extend(numbered.into_iter().map(|(.., input)| input));
    Ok(true)
}

fn check_shards(numbered: &[(usize, usize, Reader)]) -> Result<(), MergeError> {
    for pair in numbered.windows(2) {
        let [(left, of_left, first), (right, of_right, second)] = pair else {
            continue;
        };
        let (first, second) = (first.path().to_owned(), second.path().to_owned());
        if of_left != of_right {
            let (left, right) = (format!("{left}/{of_left}"), format!("{right}/{of_right}"));
            return Err(MergeError::Mismatch {
                first,
                second,
                field: SHARD.into(),
                left,
                right,
            });
        }
        if left == right {
            let shard = format!("{left}/{of_left}");
            return Err(MergeError::DuplicateShard {
                first,
                second,
                shard,
            });
        }
    }
    let of = numbered.first().map_or(0, |(_, of, _)| *of);
    let missing: Vec<String> = (1..=of)
        .filter(|number| numbered.iter().all(|(known, ..)| known != number))
        .map(|number| format!("{number}/{of}"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(MergeError::MissingShards { missing, of })
    }
}

/// `i` and `n` of a file's `"shard": "i/n"`.
fn shard_of(path: &Path, schema: &Schema) -> Result<(usize, usize), MergeError> {
    let value = schema.metadata.get(SHARD);
    value
        .and_then(Value::as_str)
        .and_then(|text| text.split_once('/'))
        .and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)))
        .filter(|(number, of)| (1..=*of).contains(number))
        .ok_or_else(|| MergeError::BadShard {
            path: path.to_owned(),
            value: shown(value),
        })
}
