//! The digest of all sequences of an input. Equal digests show that the files of several runs were
//! made from the same input.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Sequence;

/// The identity of an input: a hash of the ids and residues of all sequences in order, and their
/// numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDigest {
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Number of sequences.
    pub records: u64,
    /// Residues of all sequences.
    pub residues: u64,
}

/// An [`InputDigest`] that grows with every sequence read.
#[derive(Clone, Debug, Default)]
pub struct RunningDigest {
    hash: Sha256,
    records: u64,
    residues: u64,
}

impl RunningDigest {
    /// Adds the next sequence: its id and its residues as the command sees them, each after its
    /// length.
    pub fn add(&mut self, sequence: &Sequence) {
        for field in [sequence.id.as_bytes(), &sequence.residues] {
            self.hash.update((field.len() as u64).to_le_bytes());
            self.hash.update(field);
        }
        self.records += 1;
        self.residues += sequence.residues.len() as u64;
    }

    /// The digest of all sequences added so far.
    pub fn digest(&self) -> InputDigest {
        InputDigest {
            sha256: hex(&self.hash.clone().finalize()),
            records: self.records,
            residues: self.residues,
        }
    }
}

/// `bytes` as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Origin;

    fn digest(sequences: &[(&str, &str)]) -> InputDigest {
        let mut running = RunningDigest::default();
        for (id, residues) in sequences {
            running.add(&Sequence {
                id: (*id).to_owned(),
                description: String::new(),
                residues: residues.as_bytes().to_vec(),
                origin: Origin {
                    file: "a.fasta".into(),
                    record: 1,
                    line: 1,
                },
            });
        }
        running.digest()
    }

    #[test]
    fn only_ids_residues_and_order_count() {
        let whole = digest(&[("a", "MKT"), ("b", "GAV")]);
        assert_eq!((whole.records, whole.residues), (2, 6));
        assert_eq!(whole, digest(&[("a", "MKT"), ("b", "GAV")]));
        let others: [&[(&str, &str)]; 5] = [
            &[("b", "GAV"), ("a", "MKT")],
            &[("a", "MKT")],
            &[("a", "MKTb"), ("", "GAV")],
            &[("aM", "KT"), ("b", "GAV")],
            &[("a", "MKT"), ("b", "GAL")],
        ];
        for other in others {
            assert_ne!(whole.sha256, digest(other).sha256, "{other:?}");
        }
    }

    #[test]
    fn an_empty_input_has_the_hash_of_no_bytes() {
        assert!(digest(&[]).sha256.starts_with("e3b0c44298fc1c14"));
    }
}
