//! Values to little-endian bytes of an [`OutDtype`] and back.

use std::io;

use half::{bf16, f16};

use super::OutDtype;
use super::error::invalid_data;

/// `values` rounded to half precision (to nearest, ties to even). A finite value that becomes an
/// infinity is an error: it would be lost in silence.
pub(super) fn to_f16(values: &[f32]) -> io::Result<Vec<f16>> {
    values
        .iter()
        .map(|&value| checked(value, f16::from_f32(value), OutDtype::F16))
        .collect()
}

fn checked<T: Copy + Into<f32>>(value: f32, rounded: T, dtype: OutDtype) -> io::Result<T> {
    if value.is_finite() && !rounded.into().is_finite() {
        return Err(invalid_data(format!(
            "the value {value:?} is too large for {}; use --out-dtype f32",
            dtype.name()
        )));
    }
    Ok(rounded)
}

/// The values as a file of `dtype` holds them, in single precision again.
pub(super) fn rounded(values: &[f32], dtype: OutDtype) -> io::Result<Vec<f32>> {
    values
        .iter()
        .map(|&value| round_one(value, dtype))
        .collect()
}

/// One value as a file of `dtype` holds it.
pub(super) fn round_one(value: f32, dtype: OutDtype) -> io::Result<f32> {
    match dtype {
        OutDtype::F32 => Ok(value),
        OutDtype::F16 => Ok(checked(value, f16::from_f32(value), dtype)?.to_f32()),
        OutDtype::Bf16 => Ok(checked(value, bf16::from_f32(value), dtype)?.to_f32()),
    }
}

/// The bytes of `values` in `dtype`, little-endian.
pub(super) fn to_bytes(values: &[f32], dtype: OutDtype) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len() * dtype.size());
    for &value in values {
        match dtype {
            OutDtype::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
            OutDtype::F16 => {
                bytes.extend(checked(value, f16::from_f32(value), dtype)?.to_le_bytes());
            }
            OutDtype::Bf16 => {
                bytes.extend(checked(value, bf16::from_f32(value), dtype)?.to_le_bytes());
            }
        }
    }
    Ok(bytes)
}

/// The values of little-endian `bytes` in `dtype`.
pub(super) fn from_bytes(bytes: &[u8], dtype: OutDtype) -> Vec<f32> {
    match dtype {
        OutDtype::F32 => {
            let (chunks, _) = bytes.as_chunks::<4>();
            chunks
                .iter()
                .map(|&chunk| f32::from_le_bytes(chunk))
                .collect()
        }
        OutDtype::F16 => {
            let (chunks, _) = bytes.as_chunks::<2>();
            chunks
                .iter()
                .map(|&chunk| f16::from_le_bytes(chunk).to_f32())
                .collect()
        }
        OutDtype::Bf16 => {
            let (chunks, _) = bytes.as_chunks::<2>();
            chunks
                .iter()
                .map(|&chunk| bf16::from_le_bytes(chunk).to_f32())
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back_is_rounding() {
        let values = [0.1, -3.5e-8, 65504.0, 1.0, f32::NAN, f32::INFINITY];
        for dtype in [OutDtype::F32, OutDtype::F16, OutDtype::Bf16] {
            let back = from_bytes(&to_bytes(&values, dtype).unwrap(), dtype);
            let expected = rounded(&values, dtype).unwrap();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(&expected), "{dtype:?}");
        }
    }

    #[test]
    fn a_value_beyond_half_precision_is_an_error() {
        let error = to_bytes(&[70000.0], OutDtype::F16).unwrap_err().to_string();
        assert_eq!(
            error,
            "the value 70000.0 is too large for f16; use --out-dtype f32"
        );
        assert!(to_f16(&[1e9]).is_err());
    }
}
