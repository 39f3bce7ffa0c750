//! Encoding of tensors as stored bytes. Decoding, [`TensorView`], belongs to the model.

use half::{bf16, f16};

pub use crate::model::{StoredDtype, TensorView};

/// The little-endian bytes of `values`, rounded to nearest even where the type is narrower than
/// f32.
pub fn encode(values: &[f32], dtype: StoredDtype) -> Vec<u8> {
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
    use std::borrow::Cow;

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
