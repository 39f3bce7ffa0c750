//! The hash that identifies a model in metadata and for `--resume`: a hash of everything in the
//! directory that influences a result.
//!
//! SHA-256 over the configuration, the vocabulary, and for each tensor in the order of names its
//! name, type, shape and content. Weights of up to 64 MiB are hashed completely. Of larger weights,
//! tensors above 64 KiB are sampled: eight evenly spaced blocks of 4 KiB, including the first and
//! the last byte. Training, merging or another revision changes practically every value, so a
//! sample distinguishes two sets of weights, in the time of some thousand page reads instead of the
//! many seconds for 7 GB. A change of a few chosen values may not change the hash; checksums of the
//! files verify every byte. The same weights as pickle and as safetensors have the same hash.

use sha2::{Digest, Sha256};

use super::{Checkpoint, CheckpointError};
use crate::sequence::digest::hex;

const WHOLE_MODEL: usize = 64 << 20;
const WHOLE_TENSOR: usize = 64 << 10;
const BLOCKS: usize = 8;
const BLOCK: usize = 4 << 10;

pub(super) fn model_hash(checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    let mut hash = Sha256::new();
    let config = serde_json::to_vec(&checkpoint.config).expect("numbers and names serialise");
    field(&mut hash, &config);
    for piece in checkpoint.tokenizer.pieces() {
        field(&mut hash, piece.as_bytes());
    }
    let weights = &checkpoint.weights;
    let stored: u64 = weights.files().map(|(_, size)| size).sum();
    for (name, entry) in &weights.entries {
        let Ok(dtype) = entry.dtype else { continue };
        field(&mut hash, name.as_bytes());
        field(&mut hash, dtype.torch_name().as_bytes());
        field(&mut hash, format!("{:?}", entry.shape).as_bytes());
        let bytes = weights.view(name, entry)?.bytes;
        if stored <= WHOLE_MODEL as u64 {
            hash.update(&bytes);
        } else {
            sample(&bytes, |block| hash.update(block));
        }
        weights.release(entry, dtype);
    }
    Ok(hex(&hash.finalize()))
}

/// Hashes a field with its length, so that different lists of fields never give the same bytes.
fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn sample(bytes: &[u8], mut take: impl FnMut(&[u8])) {
    if bytes.len() <= WHOLE_TENSOR {
        return take(bytes);
    }
    let last = bytes.len() - BLOCK;
    for block in 0..BLOCKS {
        let start = last / (BLOCKS - 1) * block + last % (BLOCKS - 1) * block / (BLOCKS - 1);
        take(&bytes[start..start + BLOCK]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_spans_the_tensor() {
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
        let mut blocks = Vec::new();
        sample(&bytes, |block| blocks.push(block.to_vec()));
        assert_eq!(blocks.len(), BLOCKS);
        assert_eq!(blocks[0], bytes[..BLOCK]);
        assert_eq!(blocks[BLOCKS - 1], bytes[bytes.len() - BLOCK..]);
        let mut whole = Vec::new();
        sample(&bytes[..WHOLE_TENSOR], |block| {
            whole.extend_from_slice(block);
        });
        assert_eq!(whole, bytes[..WHOLE_TENSOR]);
    }
}
