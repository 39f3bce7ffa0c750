//! Embeddings as little-endian bytes. A finite value that becomes infinite in a narrower number
//! type is an error, because the value would be lost in silence.

use std::io;

use half::f16;

use super::error::invalid_data;
use crate::number::NumberType;

/// `values` rounded to half precision.
pub(super) fn to_f16(values: &[f32]) -> io::Result<Vec<f16>> {
    values
        .iter()
        .map(|&value| Ok(f16::from_f32(checked(value, NumberType::F16)?)))
        .collect()
}

/// `value`, if it stays finite in `dtype`.
fn checked(value: f32, dtype: NumberType) -> io::Result<f32> {
    if value.is_finite() && !dtype.round(value).is_finite() {
        return Err(invalid_data(format!(
            "the value {value:?} is too large for {}; use --out-dtype f32",
            dtype.name()
        )));
    }
    Ok(value)
}

/// The values as a file of `dtype` holds them, in single precision.
pub(super) fn rounded(values: &[f32], dtype: NumberType) -> io::Result<Vec<f32>> {
    values
        .iter()
        .map(|&value| round_one(value, dtype))
        .collect()
}

/// One value as a file of `dtype` holds it.
pub(super) fn round_one(value: f32, dtype: NumberType) -> io::Result<f32> {
    Ok(dtype.round(checked(value, dtype)?))
}

/// The bytes of `values` in `dtype`, little-endian.
pub(super) fn to_bytes(values: &[f32], dtype: NumberType) -> io::Result<Vec<u8>> {
    for &value in values {
        checked(value, dtype)?;
    }
    Ok(dtype.to_bytes(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back_is_rounding() {
        let values = [0.1, -3.5e-8, 65504.0, 1.0, f32::NAN, f32::INFINITY];
        for dtype in NumberType::ALL {
            let back = dtype.to_values(&to_bytes(&values, dtype).unwrap());
            let expected = rounded(&values, dtype).unwrap();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(&expected), "{dtype:?}");
        }
    }

    #[test]
    fn a_value_beyond_half_precision_is_an_error() {
        let error = to_bytes(&[70000.0], NumberType::F16)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "the value 70000.0 is too large for f16; use --out-dtype f32"
        );
        assert!(to_f16(&[1e9]).is_err());
    }
}
