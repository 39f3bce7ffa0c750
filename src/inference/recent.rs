//! A cache of recent embeddings, so that equal sequences are computed once. Bounded by memory, not
//! by count.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::pooling::EmbeddingColumns;

/// The largest number of bytes of the cache: results, keys and what the containers need for each.
const LIMIT: usize = 128 << 20;

type Key = [u8; 32];

/// Recent embeddings; the oldest is removed first.
#[derive(Default)]
pub(super) struct Recent {
    results: HashMap<Key, Arc<EmbeddingColumns>>,
    order: VecDeque<Key>,
    bytes: usize,
}

fn key(residues: &[u8]) -> Key {
    Sha256::digest(residues).into()
}

/// The bytes that an entry takes: its values, each vector and the counted pointer with the
/// allocator's header, the key in both containers, and the free places of the containers, which
/// double when they are full.
fn size(columns: &EmbeddingColumns) -> usize {
    const ALLOCATION: usize = 16;
    const ENTRY: usize = size_of::<(Key, Arc<EmbeddingColumns>)>() + 1 + size_of::<Key>();
    let vectors = columns
        .iter()
        .map(|column| column.capacity() * size_of::<f32>() + size_of::<Vec<f32>>() + ALLOCATION);
    let counted = size_of::<EmbeddingColumns>() + 2 * size_of::<usize>() + 2 * ALLOCATION;
    vectors.sum::<usize>() + counted + 2 * ENTRY
}

impl Recent {
    pub(super) fn get(&self, residues: &[u8]) -> Option<Arc<EmbeddingColumns>> {
        self.results.get(&key(residues)).cloned()
    }

    pub(super) fn insert(&mut self, residues: &[u8], columns: &Arc<EmbeddingColumns>) {
        let key = key(residues);
        if self.results.insert(key, columns.clone()).is_some() {
            return;
        }
        self.order.push_back(key);
        self.bytes += size(columns);
        while self.bytes > LIMIT {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.bytes -= self
                .results
                .remove(&oldest)
                .map_or(0, |columns| size(&columns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_results_of_many_proteins_stay_within_the_limit() {
        let mut recent = Recent::default();
        for number in 0..600_000_u32 {
            recent.insert(&number.to_le_bytes(), &Arc::new(vec![vec![0.5; 8]]));
        }
        let kept = recent.results.len();
        assert_eq!(kept, recent.order.len());
        assert!(recent.bytes <= LIMIT && recent.bytes / kept > 250, "{kept}");
        assert!(kept < 600_000, "{kept}");
        assert!(recent.get(&599_999_u32.to_le_bytes()).is_some());
        assert!(recent.get(&0_u32.to_le_bytes()).is_none());
    }
}
