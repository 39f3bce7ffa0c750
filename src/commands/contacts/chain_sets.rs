//! The chains that contacts are learnt from and evaluated on.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::structures;
use crate::commands::heads;
use crate::probe::features::Protein;
use crate::probe::native::KnownChain;
use crate::sequence::counted;

/// The files of training, validation and test structures.
pub(crate) struct StructureFiles<'a> {
    pub(crate) train: &'a [PathBuf],
    pub(crate) valid: &'a [PathBuf],
    pub(crate) test: &'a [PathBuf],
    /// Chains to train on, at most.
    pub(crate) limit: Option<usize>,
}

/// Training, validation and test chains.
pub(super) struct ChainSets {
    pub(super) train: Vec<KnownChain>,
    pub(super) valid: Vec<KnownChain>,
    pub(super) test: Vec<KnownChain>,
    /// For the description of the head.
    pub(super) data: Map<String, Value>,
}

impl ChainSets {
    pub(super) fn read(files: &StructureFiles<'_>) -> Result<Self> {
        let mut data = Map::new();
        for (name, paths) in [
            ("train", files.train),
            ("valid", files.valid),
            ("test", files.test),
        ] {
            data.insert(name.to_owned(), json!(heads::names(paths)));
        }
        let train = structures::read(files.train, files.limit)?;
        data.insert("train_chains".to_owned(), json!(train.len()));
        let residues: usize = train.iter().map(|chain| chain.residues.len()).sum();
        tracing::info!(
            "training on {} of {residues} residues",
            counted(train.len(), "chain")
        );
        Ok(Self {
            train,
            valid: structures::read(files.valid, None)?,
            test: structures::read(files.test, None)?,
            data,
        })
    }

    /// The validation and the test set by name.
    pub(super) fn evaluated(&self) -> [(&'static str, &[KnownChain]); 2] {
        [("valid", &self.valid), ("test", &self.test)]
    }
}

/// The chains as proteins that a head reads.
pub(super) fn proteins(chains: &[KnownChain]) -> Vec<Protein<'_>> {
    let each = chains.iter().map(|chain| Protein {
        name: &chain.name,
        residues: &chain.residues,
    });
    each.collect()
}
