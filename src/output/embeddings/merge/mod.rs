//! Several embedding files into one.
//!
//! Shards of one run carry the metadata `"shard": "i/n"` (1-based): record `k` of the whole run,
//! from 0, is in shard `k mod n + 1`. Merging all `n` of them, given in any order, takes records
//! in turn and writes the bytes that one unsharded run would have written. Files without `shard`
//! are joined in the order given.

use std::collections::HashSet;
use std::path::PathBuf;

mod agreement;
mod error;

pub use error::MergeError;

use super::{Destination, EmbeddingRecord, Format, Reader, Schema, Writer};
use agreement::{common_schema, sort_shards};

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
