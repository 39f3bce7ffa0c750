//! Whether files belong together: one way of making, and all shards of one run.

use std::path::Path;

use serde_json::Value;

use super::super::{Reader, Schema};
use super::MergeError;

const SHARD: &str = "shard";

/// The schema that all inputs share, `shard` left out.
pub(super) fn common_schema(inputs: &[Reader]) -> Result<Schema, MergeError> {
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
pub(super) fn sort_shards(inputs: &mut Vec<Reader>) -> Result<bool, MergeError> {
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
