//! A cache of recent embeddings, so that equal sequences are computed once. Bounded by memory, not
//! by count.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::pooling::EmbeddingColumns;

/// The largest number of bytes of cached results.
const LIMIT: usize = 256 << 20;

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

fn size(columns: &EmbeddingColumns) -> usize {
    columns.iter().map(|column| column.len() * 4).sum()
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
