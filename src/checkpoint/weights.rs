//! The weight files of a checkpoint, mapped or part of this program, and the position of each
//! tensor in them.
//!
//! The first existing layout of four is read: `model.safetensors`, its shards by
//! `model.safetensors.index.json`, `pytorch_model.bin`, its shards by
//! `pytorch_model.bin.index.json`. Opening reads headers only; the operating system reads a page of
//! weights when the page is used.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::place::{ModelLocation, bundled_file, file_size, read_file, refuse_pointer};
use super::weight_entry::WeightEntry;
use super::{CheckpointError, pickle};
use crate::model::TensorView;
use crate::model::names::{EMBEDDING_TABLES, LM_HEAD, SHARED};
use crate::number::NumberType;

/// The largest size of `*.index.json` in bytes.
const MAX_INDEX: u64 = 4 << 20;

/// The largest header of a safetensors file in bytes. A model of 1000 tensors has about 100 kB.
const MAX_HEADER: u64 = 4 << 20;

/// The file format of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WeightFormat {
    /// Safetensors.
    Safetensors,
    /// A PyTorch pickle, read without executing anything.
    Pickle,
}

impl WeightFormat {
    fn single(self) -> &'static str {
        match self {
            WeightFormat::Safetensors => "model.safetensors",
            WeightFormat::Pickle => "pytorch_model.bin",
        }
    }

    fn index(self) -> &'static str {
        match self {
            WeightFormat::Safetensors => "model.safetensors.index.json",
            WeightFormat::Pickle => "pytorch_model.bin.index.json",
        }
    }
}

/// The bytes of a weight file.
#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Bundled(&'static [u8]),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Bundled(bytes) => bytes,
        }
    }
}

/// All weights of a checkpoint.
#[derive(Debug)]
pub(super) struct WeightFiles {
    dir: PathBuf,
    files: Vec<(PathBuf, Bytes)>,
    pub entries: BTreeMap<String, WeightEntry>,
}

/// `*.index.json`: the file of each tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Whether all weight files of one of the four layouts exist.
pub(super) fn are_complete(dir: &Path) -> bool {
    locate(dir).is_ok_and(|(_, files)| files.iter().all(|file| file.is_file()))
}

/// The files of the first existing layout.
pub(super) fn locate(dir: &Path) -> Result<(WeightFormat, Vec<PathBuf>), CheckpointError> {
    for format in [WeightFormat::Safetensors, WeightFormat::Pickle] {
        let single = dir.join(format.single());
        if file_size(&single)?.is_some() {
            return Ok((format, vec![single]));
        }
        let index = dir.join(format.index());
        if let Some(text) = read_file(&index, MAX_INDEX)? {
            return Ok((format, shards(dir, &index, &text)?));
        }
    }
    Err(CheckpointError::MissingFile {
        dir: dir.to_path_buf(),
        file: "model.safetensors or pytorch_model.bin (or the index of its shards)".to_string(),
        way_out: "fetch the checkpoint again",
    })
}

fn shards(dir: &Path, index: &Path, text: &[u8]) -> Result<Vec<PathBuf>, CheckpointError> {
    let parsed: Index = serde_json::from_slice(text)
        .map_err(|error| CheckpointError::damaged(index, format!("{error}; fetch it again")))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    // A shard lies beside its index; any other path would read (or fetch) files from elsewhere.
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        let message = format!("the shard `{name}` is not beside its index");
        return Err(CheckpointError::damaged(index, message));
    }
    Ok(names.iter().map(|name| dir.join(name)).collect())
}

impl WeightFiles {
    pub(super) fn open(place: &ModelLocation) -> Result<Self, CheckpointError> {
        let (format, files) = match place {
            ModelLocation::Directory(dir) => {
                let (format, paths) = locate(dir)?;
                let mapped = |path: PathBuf| Ok((path.clone(), Bytes::Mapped(map(dir, &path)?)));
                let files = paths.into_iter().map(mapped).collect::<Result<_, _>>()?;
                (format, files)
            }
            ModelLocation::Bundled(dir) => {
                let name = WeightFormat::Safetensors.single();
                let bytes = bundled_file(&dir.join(name)).unwrap_or_default();
                let files = vec![(place.path(name), Bytes::Bundled(bytes))];
                (WeightFormat::Safetensors, files)
            }
        };
        let mut lists = Vec::new();
        for (file, (path, bytes)) in files.iter().enumerate() {
            lists.extend(match format {
                WeightFormat::Safetensors => safetensors_entries(file, path, bytes)?,
                WeightFormat::Pickle => pickle::entries(file, path, bytes)?,
            });
        }
        Ok(WeightFiles {
            dir: place.name(),
            files,
            entries: without_aliases(lists),
        })
    }

    /// The stored name of the embedding table.
    ///
    /// # Errors
    /// Tables that differ: a T5 has one.
    pub(super) fn embedding_table(&self) -> Result<Option<&'static str>, CheckpointError> {
        let stored = |name: &&str| self.entries.contains_key(*name);
        let mut stored = EMBEDDING_TABLES.into_iter().filter(stored);
        let Some(first) = stored.next() else {
            return Ok(None);
        };
        for other in stored {
            if !self.are_equal(first, other) {
                return Err(CheckpointError::TwoTables {
                    dir: self.dir.clone(),
                    names: [first, other],
                });
            }
        }
        Ok(Some(first))
    }

    /// Drops an `lm_head.weight` that only repeats the embedding table of a model whose embeddings
    /// are tied: a head of its own would not be scaled.
    ///
    /// # Errors
    /// Two different embedding tables.
    pub(super) fn forget_tied_head(&mut self) -> Result<(), CheckpointError> {
        let table = self.embedding_table()?;
        if table.is_some_and(|table| self.are_equal(table, LM_HEAD)) {
            self.entries.remove(LM_HEAD);
        }
        Ok(())
    }

    /// Whether two stored tensors have the same type, shape and bytes.
    fn are_equal(&self, a: &str, b: &str) -> bool {
        let view = |name| {
            let entry = self.entries.get(name)?;
            self.view(name, entry).ok()
        };
        view(a)
            .zip(view(b))
            .is_some_and(|(a, b)| (a.dtype, &a.shape) == (b.dtype, &b.shape) && a.bytes == b.bytes)
    }

    /// The bytes of a tensor with the expected shape.
    pub(super) fn tensor(
        &self,
        name: &str,
        expected: &[usize],
    ) -> Result<TensorView<'_>, CheckpointError> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| CheckpointError::MissingTensor {
                dir: self.dir.clone(),
                name: name.to_string(),
                expected: expected.to_vec(),
            })?;
        if entry.shape != expected {
            return Err(CheckpointError::WrongShape {
                file: self.files[entry.file].0.clone(),
                name: name.to_string(),
                found: entry.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        self.view(name, entry)
    }

    /// The bytes of a tensor of any shape.
    pub(super) fn view(
        &self,
        name: &str,
        entry: &WeightEntry,
    ) -> Result<TensorView<'_>, CheckpointError> {
        let dtype = entry
            .dtype
            .clone()
            .map_err(|dtype| CheckpointError::UnsupportedDtype {
                file: self.files[entry.file].0.clone(),
                name: name.to_string(),
                shape: entry.shape.clone(),
                dtype,
            })?;
        Ok(TensorView {
            dtype,
            shape: entry.shape.clone(),
            bytes: self.bytes(entry, dtype),
        })
    }

    /// The bytes of a tensor of a supported type.
    pub(super) fn bytes(&self, entry: &WeightEntry, dtype: NumberType) -> Cow<'_, [u8]> {
        let storage = &self.files[entry.file].1[entry.start..];
        match &entry.strides {
            None => Cow::Borrowed(&storage[..entry.shape.iter().product::<usize>() * dtype.size()]),
            Some(strides) => Cow::Owned(gather(storage, dtype.size(), &entry.shape, strides)),
        }
    }

    /// Lets the operating system free the memory of a tensor's pages; pages that are used again are
    /// read from the file again.
    pub(super) fn release(&self, entry: &WeightEntry, dtype: NumberType) {
        let Bytes::Mapped(map) = &self.files[entry.file].1 else {
            return;
        };
        let length = entry.shape.iter().product::<usize>() * dtype.size();
        #[expect(
            unsafe_code,
            reason = "only dangerous for pages that were written to: this map is read-only, so each page comes back from the file as it was"
        )]
        // SAFETY: see the reason.
        let advice = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, entry.start, length)
        };
        if let Err(error) = advice {
            tracing::debug!("pages of a tensor stay in memory: {error}");
        }
    }

    /// The weight files with their sizes in bytes.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files
            .iter()
            .map(|(path, map)| (path.as_path(), map.len() as u64))
    }
}

fn map(dir: &Path, path: &Path) -> Result<Mmap, CheckpointError> {
    file_size(path)?;
    let file = File::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => CheckpointError::MissingFile {
            dir: dir.to_path_buf(),
            file: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            way_out: "its index names it as a shard: fetch the checkpoint again",
        },
        _ => CheckpointError::io(path)(source),
    })?;
    #[expect(
        unsafe_code,
        reason = "mapping is what makes 7 GB load at once. Sound while nobody truncates or rewrites the file: checkpoints are \
                  written to a temporary name and renamed, by us and by the hub's own tools, and never changed afterwards; the program \
                  ends with a message where one is truncated all the same (`io::signals`)"
    )]
    let map = unsafe { Mmap::map(&file) };
    let map = map.map_err(CheckpointError::io(path))?;
    refuse_pointer(path, &map)?;
    Ok(map)
}

fn safetensors_entries(
    file: usize,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<(String, WeightEntry)>, CheckpointError> {
    let damaged = |problem: String| {
        let message = format!("not a complete safetensors file ({problem}); fetch it again");
        CheckpointError::damaged(path, message)
    };
    let length = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    if let Some(length) = length.filter(|length| *length > MAX_HEADER) {
        return Err(damaged(format!("a header of {length} bytes")));
    }
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| damaged(error.to_string()))?;
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let entry = WeightEntry {
            file,
            // Eight bytes hold the header's length.
            start: 8 + header + info.data_offsets.0,
            dtype: stored_dtype(info.dtype),
            shape: info.shape.clone(),
            strides: None,
        };
        (name, entry)
    };
    Ok(metadata.tensors().into_iter().map(entry).collect())
}

fn stored_dtype(dtype: Dtype) -> Result<NumberType, String> {
    match dtype {
        Dtype::F32 => Ok(NumberType::F32),
        Dtype::BF16 => Ok(NumberType::Bf16),
        Dtype::F16 => Ok(NumberType::F16),
        other => Err(format!("{other:?}")),
    }
}

/// Keeps one name per tensor, `shared.weight` before all others: a pickle stores a tied tensor once
/// under several names, safetensors under one, and both forms of a checkpoint must have the same
/// names. `lm_head.weight` stays: whether it is tied is written in config.json
/// ([`WeightFiles::forget_tied_head`]).
fn without_aliases(mut list: Vec<(String, WeightEntry)>) -> BTreeMap<String, WeightEntry> {
    list.sort_by(|(a, _), (b, _)| (a != SHARED, a).cmp(&(b != SHARED, b)));
    let mut seen = HashSet::new();
    list.retain(|(name, entry)| {
        let is_empty = entry.shape.contains(&0);
        name == LM_HEAD || is_empty || seen.insert(entry.clone())
    });
    list.into_iter().collect()
}

/// A strided tensor as row-major bytes.
fn gather(storage: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut bytes = Vec::with_capacity(count * size);
    for index in 0..count {
        let mut rest = index;
        let mut position = 0;
        for (dimension, stride) in shape.iter().zip(strides).rev() {
            position += rest % dimension * stride;
            rest /= dimension;
        }
        bytes.extend_from_slice(&storage[position * size..(position + 1) * size]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather_transposes() {
        assert_eq!(
            gather(&[1, 2, 3, 4, 5, 6], 1, &[3, 2], &[1, 3]),
            [1, 4, 2, 5, 3, 6]
        );
        assert_eq!(gather(&[1, 2, 3, 4], 2, &[2, 1], &[1, 2]), [1, 2, 3, 4]);
    }
}
