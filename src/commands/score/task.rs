//! What `score` was asked for: likelihoods, or which variants of which protein.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{WhatArgs, dms};
use crate::inference::score::{Variant, full_scan};
use crate::input::sequences::{Item, OnBad};
use crate::input::variants::read_variants;
use crate::sequence::Sequence;

/// One variant as it was given.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) variant: Variant,
    /// Where, for messages.
    pub(super) place: String,
    /// What was measured, in a deep mutational scan.
    pub(super) measured: Option<f64>,
}

/// What is scored.
pub(super) enum Task {
    /// Proteins, or their residues.
    Likelihood { per_residue: bool },
    /// Variants that were listed.
    List(List),
    /// All single substitutions.
    Scan,
}

/// Listed variants, by the protein's id and for every protein.
#[derive(Default)]
pub(super) struct List {
    by_id: HashMap<String, Vec<Listed>>,
    everywhere: Vec<Listed>,
    /// Ids that no protein had so far.
    unseen: HashSet<String>,
    hash: String,
    /// The proteins that deep mutational scans bring along.
    proteins: Option<Vec<Item>>,
    /// Lines left out.
    pub(super) left_out: u64,
}

impl Task {
    /// Reads what the arguments name.
    ///
    /// # Errors
    /// A table that cannot be read; under [`OnBad::Error`] also a line of it.
    pub(super) fn new(args: &WhatArgs, on_bad: OnBad) -> Result<Self> {
        let per_residue = args.per_residue;
        let mut list = List::default();
        if args.scan {
            return Ok(Task::Scan);
        } else if let Some(path) = &args.variants {
            for line in read_variants(path)? {
                let place = format!("{}, line {}", path.display(), line.line);
                list.add(line.id, &line.variant, place, on_bad)?;
            }
        } else if !args.variant.is_empty() {
            for text in &args.variant {
                list.add(None, text, "--variant".to_owned(), on_bad)?;
            }
        } else if !args.dms.is_empty() {
            for path in &args.dms {
                list.add_scan(dms::read(path, on_bad)?)?;
            }
        } else {
            return Ok(Task::Likelihood { per_residue });
        }
        list.close()?;
        Ok(Task::List(list))
    }

    /// For the manifest.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Task::Likelihood { .. } => "pseudo_log_likelihood",
            Task::List(_) => "variants",
            Task::Scan => "scan",
        }
    }

    pub(super) fn has_variants(&self) -> bool {
        !matches!(self, Task::Likelihood { .. })
    }

    /// A hash of all listed variants.
    pub(super) fn hash(&self) -> Option<&str> {
        match self {
            Task::List(list) => Some(&list.hash),
            _ => None,
        }
    }

    /// The output's columns.
    pub(super) fn columns(&self) -> &'static [&'static str] {
        match self {
            Task::Likelihood { per_residue: true } => {
                &["id", "position", "residue", "log_likelihood"]
            }
            Task::Likelihood { per_residue: false } => &[
                "id",
                "length",
                "scored",
                "log_likelihood",
                "pseudo_perplexity",
            ],
            Task::List(list) if list.proteins.is_some() => &["id", "variant", "score", "DMS_score"],
            Task::List(_) => &["id", "variant", "score"],
            Task::Scan => &["id", "variant", "position", "wild_type", "mutant", "score"],
        }
    }

    /// Proteins that need not be read.
    pub(super) fn take_proteins(&mut self) -> Option<Vec<Item>> {
        match self {
            Task::List(list) => list.proteins.take(),
            _ => None,
        }
    }

    /// The variants of a protein.
    pub(super) fn variants(&self, sequence: &Sequence) -> Vec<Listed> {
        match self {
            Task::Likelihood { .. } => Vec::new(),
            Task::Scan => full_scan(&sequence.residues)
                .into_iter()
                .map(|variant| Listed {
                    variant,
                    place: String::new(),
                    measured: None,
                })
                .collect(),
            Task::List(list) => {
                let own = list.by_id.get(&sequence.id);
                let own = own.map_or(&[][..], Vec::as_slice);
                [own, &list.everywhere].concat()
            }
        }
    }

    /// Notes that a protein of this id was there.
    pub(super) fn saw(&mut self, id: &str) {
        if let Task::List(list) = self {
            list.unseen.remove(id);
        }
    }
}

impl List {
    fn add(&mut self, id: Option<String>, text: &str, place: String, on_bad: OnBad) -> Result<()> {
        let variant = match text.parse() {
            Ok(variant) => variant,
            Err(error) if on_bad == OnBad::Skip => {
                tracing::warn!("skipped: {place}: {error}");
                self.left_out += 1;
                return Ok(());
            }
            Err(error) => return Err(error).context(place),
        };
        let listed = Listed {
            variant,
            place,
            measured: None,
        };
        match id {
            Some(id) => self.by_id.entry(id).or_default().push(listed),
            None => self.everywhere.push(listed),
        }
        Ok(())
    }

    fn add_scan(&mut self, scan: dms::Scan) -> Result<()> {
        let dms::Scan {
            protein,
            listed,
            left_out,
        } = scan;
        self.left_out += left_out;
        let proteins = self.proteins.get_or_insert_default();
        let (id, file) = (protein.id.clone(), protein.origin.file.clone());
        proteins.push(Item {
            index: proteins.len() as u64,
            sequence: protein,
        });
        if self.by_id.insert(id.clone(), listed).is_some() {
            bail!("{file}: another scan is called {id} too; rename one of the files");
        }
        Ok(())
    }

    /// After the last variant.
    fn close(&mut self) -> Result<()> {
        if self.by_id.is_empty() && self.everywhere.is_empty() {
            bail!("no variant is given; list at least one, such as A24G");
        }
        self.unseen = self.by_id.keys().cloned().collect();
        let mut ids: Vec<_> = self.by_id.iter().collect();
        ids.sort_by_key(|(id, _)| *id);
        let mut hash = Sha256::new();
        let none = String::new();
        for (id, listed) in ids.into_iter().chain([(&none, &self.everywhere)]) {
            for Listed {
                variant, measured, ..
            } in listed
            {
                hash.update(format!("{id}\t{variant}\t{measured:?}\n"));
            }
        }
        for byte in hash.finalize() {
            write!(self.hash, "{byte:02x}").expect("a string takes all that is written");
        }
        Ok(())
    }

    /// Ids that no protein had, in order.
    pub(super) fn unseen(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = self.unseen.iter().map(String::as_str).collect();
        ids.sort_unstable();
        ids
    }

    /// Variants listed under an id.
    pub(super) fn count(&self, id: &str) -> usize {
        self.by_id.get(id).map_or(0, Vec::len)
    }
}
