//! Number types: how values are called, stored and read back.
//!
//! Every conversion to a narrower type rounds to nearest, ties to even; every conversion back to
//! single precision is exact. A flag that takes only some of these types says so at the command
//! line.
//!
//! ```
//! use ankh3::number::NumberType;
//!
//! let bytes = NumberType::Bf16.to_bytes(&[1.0, 0.1]);
//! assert_eq!(bytes.len(), 2 * NumberType::Bf16.size());
//! assert_eq!(NumberType::Bf16.to_values(&bytes), [1.0, NumberType::Bf16.round(0.1)]);
//! ```

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

/// The type of stored values or of the operands of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision; its largest finite value is 65504.
    F16,
    /// bfloat16: the range of single precision with 8 significant bits.
    Bf16,
}

impl NumberType {
    /// Every number type.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// The spelling on the command line and in metadata: `f32`, `f16` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// PyTorch's spelling, used by config.json: `float32`, `float16` or `bfloat16`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Bytes per value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The value that a file of this type holds in place of `value`.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// `values` as little-endian bytes of this type.
    pub fn to_bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Self::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                halves
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect()
            }
            Self::Bf16 => values
                .iter()
                .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
                .collect(),
        }
    }

    /// The values of little-endian `bytes` of this type.
    pub fn to_values(self, bytes: &[u8]) -> Vec<f32> {
        // One loop per type, so that the compiler can turn each into wide loads.
        match self {
            Self::F32 => collect(bytes, f32::from_le_bytes),
            Self::F16 => collect(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => collect(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        }
    }

    /// Fills `values` from little-endian `bytes` of this type.
    pub fn read_into(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => widen(bytes, f32::from_le_bytes, values),
            Self::F16 => widen(bytes, |b| f16::from_le_bytes(b).to_f32(), values),
            Self::Bf16 => widen(bytes, |b| bf16::from_le_bytes(b).to_f32(), values),
        }
    }

    /// One value from its little-endian bytes.
    ///
    /// # Panics
    /// If there are not [`NumberType::size`] bytes.
    pub fn read_one(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (Self::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            _ => unreachable!("chunks are cut to the size of their type"),
        }
    }
}

impl From<NumberType> for Dtype {
    fn from(number: NumberType) -> Self {
        match number {
            NumberType::F32 => Dtype::F32,
            NumberType::F16 => Dtype::F16,
            NumberType::Bf16 => Dtype::BF16,
        }
    }
}

fn collect<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|bytes| read(*bytes)).collect()
}

fn widen<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32, values: &mut [f32]) {
    let (chunks, _) = bytes.as_chunks::<N>();
    for (value, bytes) in values.iter_mut().zip(chunks) {
        *value = read(*bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back_is_rounding() {
        let values = [
            0.1,
            -3.5e-8,
            65504.0,
            -1.5,
            -0.0,
            2.0_f32.powi(-14),
            1e9,
            f32::NAN,
            f32::INFINITY,
        ];
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        for number in NumberType::ALL {
            let bytes = number.to_bytes(&values);
            assert_eq!(bytes.len(), values.len() * number.size());
            let expected = bits(&values.map(|value| number.round(value)));
            assert_eq!(bits(&number.to_values(&bytes)), expected, "{number:?}");
            let mut filled = [0.0; 9];
            number.read_into(&bytes, &mut filled);
            assert_eq!(bits(&filled), expected, "{number:?}");
            let one_by_one = bytes.chunks_exact(number.size());
            let one_by_one: Vec<f32> = one_by_one.map(|chunk| number.read_one(chunk)).collect();
            assert_eq!(bits(&one_by_one), expected, "{number:?}");
        }
    }

    #[test]
    fn rounding_keeps_what_the_type_can_hold() {
        assert_eq!(NumberType::F16.round(65504.0), 65504.0);
        assert_eq!(NumberType::F16.round(1e9), f32::INFINITY);
        assert_eq!(NumberType::Bf16.round(65504.0), 65536.0);
        assert_eq!(NumberType::F32.round(0.1), 0.1);
    }
}
