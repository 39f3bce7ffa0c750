//! PyTorch's `.bin`: a zip archive of one pickle and the raw storages that the pickle names, read
//! without executing code.
//!
//! `candle_core::pickle` interprets the pickle. It knows only the opcodes of a state dict and
//! builds only a list of names, shapes and offsets. `torch.save` stores the storages uncompressed,
//! so their bytes are used directly in the map.

use std::io::Cursor;
use std::path::Path;

use candle_core::DType;
use candle_core::pickle::{TensorInfo, read_pth_tensor_info};
use zip::{CompressionMethod, ZipArchive};

use super::CheckpointError;
use super::weights::WeightEntry;
use crate::number::NumberType;

/// The positions of the tensors of a `.bin` in its map.
pub(super) fn entries(
    file: usize,
    path: &Path,
    map: &[u8],
) -> Result<Vec<(String, WeightEntry)>, CheckpointError> {
    let damaged = |message: String| CheckpointError::damaged(path, message);
    if !map.starts_with(b"PK") {
        return Err(damaged(
            "not a zip archive: the file is incomplete, or was saved by a PyTorch before 1.6; fetch it again, or load it in PyTorch \
             and save it as safetensors"
                .to_string(),
        ));
    }
    let infos = read_pth_tensor_info(path, false, None)
        .map_err(|error| damaged(format!("cannot read the pickle ({error}); fetch it again")))?;
    let mut archive = ZipArchive::new(Cursor::new(map)).map_err(|error| {
        damaged(format!(
            "not a complete zip archive ({error}); fetch it again"
        ))
    })?;
    let mut list = Vec::with_capacity(infos.len());
    for info in infos {
        let entry = entry(file, &info, &mut archive)
            .map_err(|message| damaged(format!("tensor `{}`: {message}", info.name)))?;
        list.push((info.name, entry));
    }
    Ok(list)
}

fn entry(
    file: usize,
    info: &TensorInfo,
    archive: &mut ZipArchive<Cursor<&[u8]>>,
) -> Result<WeightEntry, String> {
    let storage = archive
        .by_name(&info.path)
        .map_err(|error| format!("{error}; fetch it again"))?;
    if storage.compression() != CompressionMethod::Stored {
        return Err("its storage is compressed; load it in PyTorch and save it again".to_string());
    }
    let start = storage
        .data_start()
        .ok_or("its storage has no position in the archive")?;
    let layout = &info.layout;
    let shape = layout.dims().to_vec();
    // candle counts the offset of a pickled tensor in bytes, but its strides in values.
    let length = extent(&shape, layout.stride()).saturating_mul(info.dtype.size_in_bytes());
    let end = layout.start_offset().saturating_add(length);
    if end as u64 > storage.size() {
        return Err(format!(
            "shape {shape:?} reaches beyond its storage; fetch it again"
        ));
    }
    Ok(WeightEntry {
        file,
        start: start as usize + layout.start_offset(),
        dtype: stored_dtype(info.dtype),
        strides: (!layout.is_contiguous()).then(|| layout.stride().to_vec()),
        shape,
    })
}

/// Values from the first to the last of a strided tensor.
fn extent(shape: &[usize], strides: &[usize]) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    // Saturating, because the numbers come from the file, and an absurd number must end as an
    // error.
    let steps = shape
        .iter()
        .zip(strides)
        .map(|(size, stride)| (size - 1).saturating_mul(*stride));
    steps.fold(1, usize::saturating_add)
}

fn stored_dtype(dtype: DType) -> Result<NumberType, String> {
    match dtype {
        DType::F32 => Ok(NumberType::F32),
        DType::BF16 => Ok(NumberType::Bf16),
        DType::F16 => Ok(NumberType::F16),
        other => Err(format!("{other:?}")),
    }
}
