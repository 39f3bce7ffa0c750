//! Whether embedding files belong together.

use super::super::{Reader, Schema};
use super::MergeError;
use crate::output::shards::{self, Made, ShardError};

/// The schema that all inputs share, `shard` left out.
pub(super) fn common_schema(inputs: &[Reader]) -> Result<Schema, MergeError> {
    let [first, others @ ..] = inputs else {
        return Err(MergeError::NoInput);
    };
    for other in others {
        compare(first, other)?;
    }
    let mut schema = first.schema().clone();
    schema.metadata.shard = None;
    Ok(schema)
}

fn compare(first: &Reader, second: &Reader) -> Result<(), ShardError> {
    let (left, right) = (first.schema(), second.schema());
    let mismatch = |field: &str, left: String, right: String| {
        ShardError::mismatch(first.path(), second.path(), field, left, right)
    };
    if left.dtype != right.dtype {
        let [left, right] = [left, right].map(|schema| schema.dtype.name().to_owned());
        return Err(mismatch("dtype", left, right));
    }
    if left.columns != right.columns {
        let [left, right] =
            [left, right].map(|schema| serde_json::to_string(&schema.columns).unwrap_or_default());
        return Err(mismatch("columns", left, right));
    }
    shards::compare(made(first), made(second), &[])
}

fn made(reader: &Reader) -> Made<'_> {
    Made {
        path: reader.path(),
        manifest: &reader.schema().metadata,
    }
}

/// Puts shards in order and checks that all are there; false when the files are no shards.
pub(super) fn sort_shards(inputs: &mut Vec<Reader>) -> Result<bool, MergeError> {
    let files: Vec<Made<'_>> = inputs.iter().map(made).collect();
    let Some(order) = shards::order(&files)? else {
        return Ok(false);
    };
    let mut unsorted: Vec<Option<Reader>> = inputs.drain(..).map(Some).collect();
    inputs.extend(order.into_iter().filter_map(|at| unsorted[at].take()));
    Ok(true)
}
