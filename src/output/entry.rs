//! Results as entries of the journal, each bound to the sequence it was computed from: embeddings, and any other bytes.

use std::io;

use sha2::{Digest, Sha256};

use super::embeddings::EmbeddingRecord;
use crate::sequence::Sequence;

/// A hash of id and residues, by which an entry belongs to its sequence.
fn seal(sequence: &Sequence) -> [u8; 32] {
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
    let mut bytes = Vec::with_capacity(values);
    for column in &record.values {
        bytes.extend((column.len() as u64).to_le_bytes());
        bytes.extend(column.iter().flat_map(|value| value.to_le_bytes()));
    }
    sealed(&bytes, sequence)
}

/// An entry of any `result` computed from `sequence`.
pub fn sealed(result: &[u8], sequence: &Sequence) -> Vec<u8> {
    [&seal(sequence), result].concat()
}

/// The result that [`sealed`] was given.
///
/// # Errors
/// Bytes that were computed from another sequence.
pub fn unsealed<'a>(bytes: &'a [u8], sequence: &Sequence) -> io::Result<&'a [u8]> {
    let (found, result) = bytes
        .split_at_checked(32)
        .ok_or_else(|| invalid("a journal entry is too short"))?;
    if found != seal(sequence) {
        return Err(invalid("the journal's entry belongs to another sequence"));
    }
    Ok(result)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The bytes for `sequence` when its result was rejected: no column at all.
pub fn encode_rejection(sequence: &Sequence) -> Vec<u8> {
    seal(sequence).to_vec()
}

/// The record that [`encode`] was given; `None` where the result was rejected.
///
/// # Errors
/// Bytes that were computed from another sequence.
pub fn decode(bytes: &[u8], sequence: &Sequence) -> io::Result<Option<EmbeddingRecord>> {
    let mut rest = unsealed(bytes, sequence)?;
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
    Ok((!values.is_empty()).then(|| EmbeddingRecord {
        id: sequence.id.clone(),
        length: sequence.residues.len(),
        values,
    }))
}
