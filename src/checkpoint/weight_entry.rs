//! Where a tensor lies in a weight file.

use crate::number::NumberType;

/// The type, the shape and the position of one stored tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WeightEntry {
    /// The number of the file.
    pub file: usize,
    /// The first byte of the tensor's storage in the file.
    pub start: usize,
    /// The stored type, or the name of an unsupported one.
    pub dtype: Result<NumberType, String>,
    pub shape: Vec<usize>,
    /// Strides in values where the tensor is not row-major.
    pub strides: Option<Vec<usize>>,
}
