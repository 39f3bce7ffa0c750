//! An embedding as an entry of the journal: bound to the sequence it was computed from.

use std::io;

use sha2::{Digest, Sha256};

use super::embeddings::EmbeddingRecord;
use crate::sequence::Sequence;

/// What ties an entry of any kind to its sequence: a hash of id and residues.
pub fn seal(sequence: &Sequence) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((sequence.id.len() as u64).to_le_bytes());
    hash.update(&sequence.id);
    hash.update(&sequence.residues);
    hash.finalize().into()
}

/// The bytes of a record computed from `sequence`.
pub fn encode(record: &EmbeddingRecord, sequence: &Sequence) -> Vec<u8> {
    let values: usize = record
        .values
        .iter()
        .map(|column| 8 + 4 * column.len())
        .sum();
    let mut bytes = Vec::with_capacity(32 + values);
    bytes.extend(seal(sequence));
    for column in &record.values {
        bytes.extend((column.len() as u64).to_le_bytes());
        bytes.extend(column.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// The record that [`encode`] was given.
///
/// # Errors
/// Bytes that were computed from another sequence.
pub fn decode(bytes: &[u8], sequence: &Sequence) -> io::Result<EmbeddingRecord> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let (found, mut rest) = bytes
        .split_at_checked(32)
        .ok_or_else(|| invalid("a journal entry is too short"))?;
    if found != seal(sequence) {
        return Err(invalid("the journal's entry belongs to another sequence"));
    }
    let mut values = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length))
            .ok()
            .and_then(|length| length.checked_mul(4));
        let column = length.and_then(|length| after.split_at_checked(length));
        let (column, after) = column.ok_or_else(|| invalid("a journal entry is cut off"))?;
        let (floats, _) = column.as_chunks::<4>();
        values.push(
            floats
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
        );
        rest = after;
    }
    Ok(EmbeddingRecord {
        id: sequence.id.clone(),
        length: sequence.residues.len(),
        values,
    })
}
