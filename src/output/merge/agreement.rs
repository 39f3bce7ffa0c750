//! Checks that files belong together: made in the same way, and all shards of one run or no shards.

use std::path::Path;

use serde_json::{Map, Value};

use super::MergeError;
use super::kernels::give_same_bytes;
use crate::output::manifest::{Manifest, in_words};

const SHARD: &str = "shard";

/// Keys whose values may differ from file to file, or are compared by rules of their own.
const OWN: [&str; 7] = [
    SHARD,
    "input",
    "written",
    "rows_per_sequence",
    "settings_sha256",
    "device",
    "kernels",
];

/// A file and how it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileManifest<'a> {
    pub(super) path: &'a Path,
    pub(super) manifest: &'a Manifest,
}

/// The result for files that belong together.
#[derive(Debug)]
pub(super) struct Agreement {
    /// How the merged file was made: as each of the files, and no shard.
    pub(super) manifest: Manifest,
    /// The files in the order of their shards; `None` where the files are no shards.
    pub(super) order: Option<Vec<usize>>,
}

/// Compares how `files` were made. Values under the keys `united` are objects with one entry per
/// protein of a file; the merged manifest has the entries of all files.
pub(super) fn agree(files: &[FileManifest<'_>], united: &[&str]) -> Result<Agreement, MergeError> {
    let [first, others @ ..] = files else {
        return Err(MergeError::NoInput);
    };
    for other in others {
        compare(*first, *other, united)?;
    }
    let order = order(files)?;
    if order.is_some() {
        compare_inputs(files)?;
    }
    let base = files.iter().find(|file| {
        let settings = &file.manifest.settings;
        united.iter().any(|key| settings.contains_key(*key))
    });
    let mut manifest = base.unwrap_or(first).manifest.clone();
    for key in united {
        unite(&mut manifest.settings, files, key);
    }
    let by_shard: Vec<&Manifest> = match &order {
        Some(order) => order.iter().map(|at| files[*at].manifest).collect(),
        None => files.iter().map(|file| file.manifest).collect(),
    };
    manifest.device = distinct(by_shard.iter().map(|manifest| &manifest.device));
    manifest.kernels = distinct(by_shard.iter().map(|manifest| &manifest.kernels));
    if by_shard
        .iter()
        .any(|other| other.input != manifest.input || other.input.is_none())
    {
        manifest.input = None;
    }
    (manifest.shard, manifest.rows, manifest.written) = (None, None, None);
    Ok(Agreement { manifest, order })
}

/// Checks that two files were made in the same way, apart from their shards.
fn compare(
    first: FileManifest<'_>,
    second: FileManifest<'_>,
    united: &[&str],
) -> Result<(), MergeError> {
    let mismatch = |key: &str, left: Option<&Value>, right: Option<&Value>| {
        let [left, right] = [left, right].map(|value| in_words(value.unwrap_or(&Value::Null)));
        MergeError::mismatch(first.path, second.path, key, left, right)
    };
    let (left, right) = (first.manifest.to_map()?, second.manifest.to_map()?);
    let mut keys = left.keys().chain(right.keys());
    let differs = |key: &str| {
        let is_own = OWN.contains(&key) || united.contains(&key);
        !is_own && left.get(key) != right.get(key)
    };
    if let Some(key) = keys.find(|key| differs(key)) {
        return Err(mismatch(key, left.get(key), right.get(key)));
    }
    match (&first.manifest.kernels, &second.manifest.kernels) {
        (Some(one), Some(other)) => compare_kernels(first, second, one, other)?,
        (None, None) => {}
        _ => {
            return Err(mismatch(
                "kernels",
                left.get("kernels"),
                right.get("kernels"),
            ));
        }
    }
    let digests = [&left, &right].map(|map| map.get("settings_sha256"));
    if let [Some(one), Some(other)] = digests
        && one != other
    {
        return Err(mismatch("settings_sha256", digests[0], digests[1]));
    }
    if left.contains_key(SHARD) != right.contains_key(SHARD) {
        return Err(mismatch(SHARD, left.get(SHARD), right.get(SHARD)));
    }
    Ok(())
}

fn compare_kernels(
    first: FileManifest<'_>,
    second: FileManifest<'_>,
    left: &str,
    right: &str,
) -> Result<(), MergeError> {
    let Manifest { dtype, weights, .. } = first.manifest;
    if give_same_bytes(dtype.as_deref(), weights.as_deref(), left, right) {
        return Ok(());
    }
    let dtype = dtype.as_deref().unwrap_or("an unknown number type");
    Err(MergeError::Kernels {
        first: first.path.to_owned(),
        second: second.path.to_owned(),
        left: left.to_owned(),
        right: right.to_owned(),
        numbers: match weights {
            Some(weights) => format!("{dtype} with {weights} weights"),
            None => dtype.to_owned(),
        },
    })
}

/// Checks that shards were made from the same input. Files of earlier versions have no digest of
/// the input.
fn compare_inputs(files: &[FileManifest<'_>]) -> Result<(), MergeError> {
    let known = files
        .iter()
        .filter_map(|file| Some((file, file.manifest.input.as_ref()?)));
    let known: Vec<_> = known.collect();
    if let Some((first, left)) = known.first()
        && let Some((second, right)) = known.iter().find(|(_, input)| input != left)
    {
        return Err(MergeError::Inputs {
            first: first.path.to_owned(),
            second: second.path.to_owned(),
            left: Box::new((*left).clone()),
            right: Box::new((*right).clone()),
        });
    }
    let unknown = files.len() - known.len();
    if unknown > 0 {
        tracing::warn!(
            "{unknown} of {} files have no digest of their input (an earlier version wrote them), so it cannot be checked that the input was the same",
            files.len()
        );
    }
    Ok(())
}

/// The entries of all files under `key`, in the order of their names.
fn unite(settings: &mut Map<String, Value>, files: &[FileManifest<'_>], key: &str) {
    let Some(all) = settings.get_mut(key) else {
        return;
    };
    let objects = files
        .iter()
        .filter_map(|file| file.manifest.settings.get(key)?.as_object());
    let mut entries: Map<String, Value> = objects
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    entries.sort_keys();
    *all = Value::Object(entries);
}

/// The different values in order of their first appearance, separated by commas.
fn distinct<'a>(values: impl Iterator<Item = &'a Option<String>>) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in values.flatten().flat_map(|value| value.split(", ")) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.join(", "))
}

/// The numbers of `files` in the order of their shards, which must be complete; `None` if the files
/// are no shards.
fn order(files: &[FileManifest<'_>]) -> Result<Option<Vec<usize>>, MergeError> {
    if files.iter().all(|file| file.manifest.shard.is_none()) {
        return Ok(None);
    }
    let mut numbered = files
        .iter()
        .enumerate()
        .map(|(at, file)| Ok((shard_of(*file)?, at)))
        .collect::<Result<Vec<_>, MergeError>>()?;
    numbered.sort_unstable();
    check_shards(&numbered, files)?;
    Ok(Some(numbered.into_iter().map(|(_, at)| at).collect()))
}

fn check_shards(
    numbered: &[((usize, usize), usize)],
    files: &[FileManifest<'_>],
) -> Result<(), MergeError> {
    for pair in numbered.windows(2) {
        let [((left, of_left), first), ((right, of_right), second)] = pair else {
            continue;
        };
        let (first, second) = (files[*first].path, files[*second].path);
        if of_left != of_right {
            let (left, right) = (format!("{left}/{of_left}"), format!("{right}/{of_right}"));
            return Err(MergeError::mismatch(first, second, SHARD, left, right));
        }
        if left == right {
            return Err(MergeError::DuplicateShard {
                first: first.to_owned(),
                second: second.to_owned(),
                shard: format!("{left}/{of_left}"),
            });
        }
    }
    // The numbers are different and at most `of`, so if there are `of` numbers, none is missing. A
    // huge `of` in a manifest costs no loop.
    let of = numbered.first().map_or(0, |((_, of), _)| *of);
    if numbered.len() == of {
        return Ok(());
    }
    let missing = (1..=of).filter(|number| numbered.iter().all(|((known, _), _)| known != number));
    Err(MergeError::MissingShards {
        missing: missing
            .take(20)
            .map(|number| format!("{number}/{of}"))
            .collect(),
        of,
    })
}

/// `i` and `n` of a file's `"shard": "i/n"`.
fn shard_of(file: FileManifest<'_>) -> Result<(usize, usize), MergeError> {
    let value = file.manifest.shard.as_deref();
    value
        .and_then(|text| text.split_once('/'))
        .and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)))
        .filter(|(number, of)| (1..=*of).contains(number))
        .ok_or_else(|| MergeError::InvalidShard {
            path: file.path.to_owned(),
            value: in_words(&value.map_or(Value::Null, Value::from)),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::digest::InputDigest;

    fn shard(number: usize, kernels: &str, dtype: &str) -> Manifest {
        Manifest {
            dtype: Some(dtype.to_owned()),
            device: Some("cpu".to_owned()),
            kernels: Some(kernels.to_owned()),
            shard: Some(format!("{number}/2")),
            input: Some(InputDigest {
                sha256: "0123456789abcdef".to_owned(),
                records: 5,
                residues: 60,
            }),
            written: Some(3),
            ..Manifest::default()
        }
    }

    fn agreed(first: &Manifest, second: &Manifest) -> Result<Agreement, MergeError> {
        let file = |name: &'static str, manifest| FileManifest {
            path: Path::new(name),
            manifest,
        };
        agree(&[file("a", first), file("b", second)], &["spearman"])
    }

    #[test]
    fn different_inputs_name_both_files() {
        let (first, mut second) = (shard(1, "amx", "f32"), shard(2, "amx", "f32"));
        second.input = Some(InputDigest {
            sha256: "ffff".to_owned(),
            records: 6,
            residues: 61,
        });
        assert_eq!(
            agreed(&first, &second).unwrap_err().to_string(),
            "a and b cannot be merged: they were made from different inputs, the first from 5 sequences of 60 residues (sha256 0123456789ab…), \
             the second from 6 sequences of 61 residues (sha256 ffff…)"
        );
        second.input = None;
        assert_eq!(agreed(&first, &second).unwrap().manifest.input, None);
    }

    #[test]
    fn kernels_that_give_the_same_bytes_are_both_named() {
        let (second, first) = (shard(2, "avx512", "f32"), shard(1, "amx", "f32"));
        let Agreement { manifest, order } = agreed(&second, &first).unwrap();
        assert_eq!(manifest.kernels.as_deref(), Some("amx, avx512"));
        assert_eq!(manifest.device.as_deref(), Some("cpu"));
        assert_eq!((manifest.shard, manifest.written), (None, None));
        assert_eq!(manifest.input, first.input);
        assert_eq!(order, Some(vec![1, 0]));
        let error = agreed(&shard(1, "amx", "bf16"), &shard(2, "avx512", "bf16"));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("amx and avx512") && error.contains("ANKH3_CPU_ISA="),
            "{error}"
        );
    }

    #[test]
    fn results_about_own_proteins_are_united() {
        let (mut first, second) = (shard(2, "amx", "f32"), shard(1, "amx", "f32"));
        let mut third = second.clone();
        let of = |names: [&str; 2]| {
            let entries = names.map(|name| (name.to_owned(), Value::from(0.5)));
            Value::Object(entries.into_iter().collect())
        };
        (first.settings).insert("spearman".to_owned(), of(["d", "b"]));
        assert_eq!(agreed(&second, &first).unwrap().manifest.settings.len(), 1);
        (third.settings).insert("spearman".to_owned(), of(["c", "a"]));
        let manifest = agreed(&first, &third).unwrap().manifest;
        let united = manifest.settings["spearman"].as_object().unwrap();
        assert_eq!(united.keys().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_hostile_number_of_shards_is_an_error_at_once() {
        let mut manifest = shard(1, "amx", "f32");
        manifest.shard = Some(format!("1/{}", usize::MAX));
        let file = FileManifest {
            path: Path::new("a"),
            manifest: &manifest,
        };
        assert!(matches!(
            agree(&[file], &[]),
            Err(MergeError::MissingShards { .. })
        ));
    }
}
