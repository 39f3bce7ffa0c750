//! One stored tensor as the bytes that lie in the file.

use std::borrow::Cow;

use half::{bf16, f16};

/// The number types that weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredDtype {
    /// IEEE single.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
}

impl StoredDtype {
    /// Bytes a value.
    pub fn size(self) -> usize {
        match self {
            StoredDtype::F32 => 4,
            StoredDtype::Bf16 | StoredDtype::F16 => 2,
        }
    }

    /// As in config.json and in provenance: `float32`, `bfloat16`, `float16`.
    pub fn as_str(self) -> &'static str {
        match self {
            StoredDtype::F32 => "float32",
            StoredDtype::Bf16 => "bfloat16",
            StoredDtype::F16 => "float16",
        }
    }

    /// One value from its little-endian bytes.
    fn read(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (StoredDtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (StoredDtype::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            (StoredDtype::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            _ => unreachable!("chunks are cut to the size of their type"),
        }
    }
}

/// A tensor of a checkpoint: little-endian, row-major, mapped from the file and not copied (but for the rare tensor that a pickle
/// stores transposed).
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// The stored type.
    pub dtype: StoredDtype,
    /// As in the file.
    pub shape: Vec<usize>,
    /// `shape.product() * dtype.size()` bytes, of any alignment.
    pub bytes: Cow<'a, [u8]>,
}

impl TensorView<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True where a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values widened to f32 one after the other; exact for every stored type.
    pub fn iter_f32(&self) -> impl ExactSizeIterator<Item = f32> + '_ {
        let dtype = self.dtype;
        self.bytes
            .chunks_exact(dtype.size())
            .map(move |chunk| dtype.read(chunk))
    }

    /// All values widened to f32.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        match self.dtype {
            // One loop a type, so that the compiler can turn each into wide loads.
            StoredDtype::F32 => self.convert(f32::from_le_bytes),
            StoredDtype::Bf16 => self.convert(|bytes| bf16::from_le_bytes(bytes).to_f32()),
            StoredDtype::F16 => self.convert(|bytes| f16::from_le_bytes(bytes).to_f32()),
        }
    }

    fn convert<const N: usize>(&self, read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        let (chunks, _) = self.bytes.as_chunks::<N>();
        chunks.iter().map(|bytes| read(*bytes)).collect()
    }
}

/// Little-endian bytes of values, rounded to nearest even where the type is narrower.
pub(super) fn encode(values: &[f32], dtype: StoredDtype) -> Vec<u8> {
    match dtype {
        StoredDtype::F32 => values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        StoredDtype::Bf16 => values
            .iter()
            .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
            .collect(),
        StoredDtype::F16 => values
            .iter()
            .flat_map(|value| f16::from_f32(*value).to_le_bytes())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_widens_exactly() {
        let values = [0.0, -1.5, 65504.0, 2.0_f32.powi(-14), -0.0];
        for dtype in [StoredDtype::F32, StoredDtype::Bf16, StoredDtype::F16] {
            let view = TensorView {
                dtype,
                shape: vec![5],
                bytes: Cow::Owned(encode(&values, dtype)),
            };
            let expected = match dtype {
                StoredDtype::Bf16 => [0.0, -1.5, 65536.0, 2.0_f32.powi(-14), -0.0],
                _ => values,
            };
            assert_eq!(view.to_f32_vec(), expected, "{dtype:?}");
            assert_eq!(view.iter_f32().collect::<Vec<_>>(), expected, "{dtype:?}");
        }
    }
}
