//! Results as entries of the journal, each with a hash of the sequence that it was computed from.

use std::io;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::sequence::Sequence;

/// A result that the journal can keep.
pub trait JournalEntry: Sized {
    /// The result as bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// The result whose bytes [`JournalEntry::to_bytes`] returned.
    ///
    /// # Errors
    /// Bytes of another kind of result, or damaged bytes.
    fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError>;
}

/// The bytes of an entry are not those of the result that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an entry of the journal is damaged; delete the .resume file")]
pub struct EntryError;

/// Hash of the parts of a sequence that an output may have: id, description and residues.
fn seal(sequence: &Sequence) -> [u8; 32] {
    let mut hash = Sha256::new();
    for text in [&sequence.id, &sequence.description] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(&sequence.residues);
    hash.finalize().into()
}

/// The entry of a `result` that was computed from `sequence`.
pub fn sealed(result: &[u8], sequence: &Sequence) -> Vec<u8> {
    [&seal(sequence), result].concat()
}

/// The result in an entry made by [`sealed`] from the same sequence.
///
/// # Errors
/// Bytes that were computed from another sequence.
pub fn unsealed<'a>(bytes: &'a [u8], sequence: &Sequence) -> io::Result<&'a [u8]> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let (found, result) = bytes
        .split_at_checked(32)
        .ok_or_else(|| invalid("a journal entry is too short"))?;
    if found != seal(sequence) {
        return Err(invalid("a journal entry belongs to another sequence"));
    }
    Ok(result)
}

/// A list of numbers, for example scores.
impl JournalEntry for Vec<f64> {
    fn to_bytes(&self) -> Vec<u8> {
        self.iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(EntryError);
        }
        Ok(numbers
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes))
            .collect())
    }
}

/// Columns of values, each with its length in front.
impl JournalEntry for Vec<Vec<f32>> {
    fn to_bytes(&self) -> Vec<u8> {
        let size = self.iter().map(|column| 8 + 4 * column.len()).sum();
        let mut bytes = Vec::with_capacity(size);
        for column in self {
            bytes.extend((column.len() as u64).to_le_bytes());
            bytes.extend(column.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut rest = bytes;
        let mut columns = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<8>() {
            let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| EntryError)?;
            let length = length.checked_mul(4).ok_or(EntryError)?;
            let (column, after) = after.split_at_checked(length).ok_or(EntryError)?;
            let (values, _) = column.as_chunks::<4>();
            columns.push(
                values
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes))
                    .collect(),
            );
            rest = after;
        }
        if rest.is_empty() {
            Ok(columns)
        } else {
            Err(EntryError)
        }
    }
}

impl<T: JournalEntry> JournalEntry for Arc<T> {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_ref().to_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        T::from_bytes(bytes).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_as_bytes_and_back() {
        let columns = vec![vec![1.5, f32::MIN_POSITIVE], Vec::new(), vec![-0.0]];
        let bytes = columns.to_bytes();
        assert_eq!(Vec::<Vec<f32>>::from_bytes(&bytes), Ok(columns));
        for length in [1, 7, 9, bytes.len() - 1] {
            assert_eq!(
                Vec::<Vec<f32>>::from_bytes(&bytes[..length]),
                Err(EntryError)
            );
        }
    }
}
