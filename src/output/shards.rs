//! Whether files of several runs belong together: made in one way, and all shards of one run.
//!
//! Shards carry the metadata `"shard": "i/n"` (1-based): sequence `k` of the whole run, from 0, is in shard `k mod n + 1`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::manifest::Manifest;

/// The key that tells a shard.
pub const SHARD: &str = "shard";

/// A file and how it was made.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// The file.
    pub path: &'a Path,
    /// How it was made.
    pub manifest: &'a Manifest,
}

/// Why files do not belong together.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
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
        /// The key of the metadata, or another word for what differs.
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
}

impl ShardError {
    /// `field` differs between two files.
    pub fn mismatch(first: &Path, second: &Path, field: &str, left: String, right: String) -> Self {
        ShardError::Mismatch {
            first: first.to_owned(),
            second: second.to_owned(),
            field: field.to_owned(),
            left,
            right,
        }
    }
}

/// Checks that two files were made in the same way; which shard they are and the keys in `own` may differ.
///
/// # Errors
/// [`ShardError::Mismatch`].
pub fn compare(first: Made<'_>, second: Made<'_>, own: &[&str]) -> Result<(), ShardError> {
    let of_file = ["input", "written", "rows_per_sequence"];
    let maps = (
        first.manifest.to_map().unwrap_or_default(),
        second.manifest.to_map().unwrap_or_default(),
    );
    let keys = maps.0.keys().chain(maps.1.keys());
    for key in keys.filter(|key| !own.contains(&key.as_str()) && !of_file.contains(&key.as_str())) {
        let (left, right) = (maps.0.get(key), maps.1.get(key));
        let same = if key == SHARD {
            left.is_some() == right.is_some()
        } else {
            left == right
        };
        if !same {
            let (left, right) = (shown(left), shown(right));
            return Err(ShardError::mismatch(
                first.path,
                second.path,
                key,
                left,
                right,
            ));
        }
    }
    Ok(())
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), Value::to_string)
}

/// The numbers of `files` in the order of their shards, all of which are there; `None` when the files are no shards.
///
/// # Errors
/// Shards that are missing, twice there, or of other runs.
pub fn order(files: &[Made<'_>]) -> Result<Option<Vec<usize>>, ShardError> {
    if files.iter().all(|file| file.manifest.shard.is_none()) {
        return Ok(None);
    }
    let mut numbered = files
        .iter()
        .enumerate()
        .map(|(at, file)| Ok((shard_of(*file)?, at)))
        .collect::<Result<Vec<_>, _>>()?;
    numbered.sort_unstable();
    check_shards(&numbered, files)?;
    Ok(Some(numbered.into_iter().map(|(_, at)| at).collect()))
}

fn check_shards(
    numbered: &[((usize, usize), usize)],
    files: &[Made<'_>],
) -> Result<(), ShardError> {
    for pair in numbered.windows(2) {
        let [((left, of_left), first), ((right, of_right), second)] = pair else {
            continue;
        };
        let (first, second) = (files[*first].path, files[*second].path);
        if of_left != of_right {
            let (left, right) = (format!("{left}/{of_left}"), format!("{right}/{of_right}"));
            return Err(ShardError::mismatch(first, second, SHARD, left, right));
        }
        if left == right {
            return Err(ShardError::DuplicateShard {
                first: first.to_owned(),
                second: second.to_owned(),
                shard: format!("{left}/{of_left}"),
            });
        }
    }
    let of = numbered.first().map_or(0, |((_, of), _)| *of);
    let missing: Vec<String> = (1..=of)
        .filter(|number| numbered.iter().all(|((known, _), _)| known != number))
        .map(|number| format!("{number}/{of}"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ShardError::MissingShards { missing, of })
    }
}

/// `i` and `n` of a file's `"shard": "i/n"`.
fn shard_of(file: Made<'_>) -> Result<(usize, usize), ShardError> {
    let value = file.manifest.shard.as_deref();
    value
        .and_then(|text| text.split_once('/'))
        .and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)))
        .filter(|(number, of)| (1..=*of).contains(number))
        .ok_or_else(|| ShardError::BadShard {
            path: file.path.to_owned(),
            value: shown(value.map(Value::from).as_ref()),
        })
}
