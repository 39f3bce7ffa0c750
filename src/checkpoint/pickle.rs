//! PyTorch's `.bin`: a zip archive of one pickle and the raw arrays that the pickle names, read
//! without executing code ([`super::state_dict`]).
//!
//! `torch.save` stores the arrays uncompressed, so their bytes are used directly in the map.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use super::CheckpointError;
use super::state_dict::{self, StoredTensor};
use super::weight_entry::WeightEntry;
use crate::number::NumberType;

/// The first bytes of a file in the format before PyTorch 1.6: a pickled number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The positions of the tensors of a `.bin` in its map.
pub(super) fn entries(
    file: usize,
    path: &Path,
    map: &[u8],
) -> Result<Vec<(String, WeightEntry)>, CheckpointError> {
    let damaged = |message: String| CheckpointError::damaged(path, message);
    if map.starts_with(LEGACY) {
        return Err(damaged(format!(
            "the format of PyTorch before 1.6, which is not read; convert it once in Python: `import torch; \
             p = \"{}\"; torch.save(torch.load(p, weights_only=True, map_location=\"cpu\"), p)`",
            path.display()
        )));
    }
    let mut archive = Archive::open(map).map_err(damaged)?;
    let pickle = archive.pickle().map_err(damaged)?;
    let tensors = state_dict::read(pickle).map_err(|message| {
        damaged(format!(
            "not a dictionary of tensors: {message}; fetch it again, or load it in PyTorch and save its tensors as safetensors"
        ))
    })?;
    let mut list = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let entry = archive.entry(file, tensor);
        let entry = entry.map_err(|message| damaged(format!("tensor `{name}`: {message}")))?;
        list.push((name.to_owned(), entry));
    }
    Ok(list)
}

/// A zip archive in a map.
struct Archive<'a> {
    map: &'a [u8],
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// The folder of all files, with its slash.
    folder: String,
    /// The arrays found so far, by their keys.
    arrays: HashMap<&'a str, Range<usize>>,
}

impl<'a> Archive<'a> {
    fn open(map: &'a [u8]) -> Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(map))
            .map_err(|error| format!("not a complete zip archive ({error}); fetch it again"))?;
        Ok(Archive {
            map,
            zip,
            folder: String::new(),
            arrays: HashMap::new(),
        })
    }

    /// The bytes of the one pickle, `FOLDER/data.pkl`.
    fn pickle(&mut self) -> Result<&'a [u8], String> {
        let is_pickle = |name: &Cow<'_, str>| name == "data.pkl" || name.ends_with("/data.pkl");
        let name = self.zip.file_names().flatten().find(is_pickle);
        let name = name
            .map(Cow::into_owned)
            .ok_or("a zip archive without `data.pkl`: no file of PyTorch's")?;
        name.trim_end_matches("data.pkl")
            .clone_into(&mut self.folder);
        if let Some(order) = self.file("byteorder")?
            && self.map[order].starts_with(b"big")
        {
            let message =
                "stored in big-endian order; load it in PyTorch and save it as safetensors";
            return Err(message.to_owned());
        }
        let range = self.file("data.pkl")?.ok_or("its pickle is missing")?;
        Ok(&self.map[range])
    }

    /// The bytes of a file in the map; `None` without such a file.
    fn file(&mut self, name: &str) -> Result<Option<Range<usize>>, String> {
        let name = format!("{}{name}", self.folder);
        let Some(index) = self.zip.index_for_name(&name) else {
            return Ok(None);
        };
        let found = self.zip.by_index(index);
        let found = found.map_err(|error| format!("{error}; fetch it again"))?;
        if found.compression() != CompressionMethod::Stored {
            return Err("compressed; load it in PyTorch and save it again".to_owned());
        }
        let outside = "outside of the archive; fetch it again";
        let start = found.data_start().ok_or(outside)?;
        let end = start.checked_add(found.size()).ok_or(outside)?;
        if end > self.map.len() as u64 {
            return Err(outside.to_owned());
        }
        Ok(Some(start as usize..end as usize))
    }

    /// The bytes of an array.
    fn array(&mut self, key: &'a str) -> Result<Range<usize>, String> {
        if let Some(found) = self.arrays.get(key) {
            return Ok(found.clone());
        }
        let found = self.file(&format!("data/{key}"))?;
        let found = found.ok_or("its values are missing; fetch it again")?;
        self.arrays.insert(key, found.clone());
        Ok(found)
    }

    fn entry(&mut self, file: usize, tensor: StoredTensor<'a>) -> Result<WeightEntry, String> {
        let StoredTensor {
            array,
            offset,
            shape,
            strides,
        } = tensor;
        let bytes = self.array(array.key)?;
        let dtype = stored_dtype(array.class);
        // A type that is not read has no size here: nothing will use its position.
        let size = dtype.as_ref().map_or(1, |dtype| dtype.size());
        let fits = |values: usize| {
            values
                .checked_mul(size)
                .is_some_and(|all| all <= bytes.len())
        };
        let values = checked_product(&shape).filter(|values| *values <= array.values);
        let end = extent(&shape, &strides).and_then(|extent| extent.checked_add(offset));
        let end = end.filter(|end| *end <= array.values);
        let (Some(_), Some(_), true) = (values, end, fits(array.values)) else {
            return Err(format!(
                "shape {shape:?} reaches beyond its {} stored values; fetch it again",
                array.values
            ));
        };
        Ok(WeightEntry {
            file,
            start: bytes.start + offset * size,
            dtype,
            strides: (!is_row_major(&shape, &strides)).then_some(strides),
            shape,
        })
    }
}

/// Number of values; `None` where the numbers are absurd.
fn checked_product(shape: &[usize]) -> Option<usize> {
    // Zeros are left out, so that `[0, 2^40, 2^40]` is absurd, too.
    let mut sizes = shape.iter().filter(|size| **size > 0);
    let product = sizes.try_fold(1_usize, |product, size| product.checked_mul(*size))?;
    Some(if shape.contains(&0) { 0 } else { product })
}

/// Values from the first to the last of a strided tensor; `None` where the numbers are absurd.
fn extent(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.len() != strides.len() {
        return None;
    }
    if shape.contains(&0) {
        return Some(0);
    }
    let mut sizes = shape.iter().zip(strides);
    sizes.try_fold(1_usize, |extent, (size, stride)| {
        extent.checked_add((size - 1).checked_mul(*stride)?)
    })
}

/// Whether the values lie one after the other in the order of the rows; `shape` has a
/// [`checked_product`].
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    for (size, stride) in shape.iter().zip(strides).rev() {
        if *size != 1 && *stride != expected {
            return shape.contains(&0);
        }
        expected *= size;
    }
    true
}

/// The type of PyTorch's class of arrays.
fn stored_dtype(class: &str) -> Result<NumberType, String> {
    match class {
        "FloatStorage" => Ok(NumberType::F32),
        "BFloat16Storage" => Ok(NumberType::Bf16),
        "HalfStorage" => Ok(NumberType::F16),
        other => Err(other.chars().take(40).collect()),
    }
}
