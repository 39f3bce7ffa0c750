//! The target of `score`: likelihoods, or effects of variants.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::WhatArgs;
use super::dms::{self, DeepMutationalScan, ListedVariant, unless_skipped};
use crate::inference::score::{Variant, full_scan};
use crate::input::sequences::OnBad;
use crate::input::variants::read_variants;
use crate::sequence::Sequence;

/// The likelihoods or variants to score.
pub(super) enum ScoreTarget {
    /// Proteins, or their residues.
    Likelihood { per_residue: bool },
    /// Variants that were listed.
    List(VariantList),
    /// All single substitutions.
    Scan,
}

/// Listed variants, by the protein's id and for every protein.
#[derive(Default)]
pub(super) struct VariantList {
    by_id: HashMap<String, Vec<ListedVariant>>,
    everywhere: Vec<ListedVariant>,
    hash: String,
    /// The proteins of deep mutational scans.
    proteins: Option<Vec<Sequence>>,
    /// Number of lines left out.
    left_out: u64,
}

impl ScoreTarget {
    /// Reads what the arguments name.
    ///
    /// # Errors
    /// A table that cannot be read; under [`OnBad::Error`] also a line of it.
    pub(super) fn new(args: &WhatArgs, on_bad: OnBad) -> Result<Self> {
        let per_residue = args.per_residue;
        let mut list = VariantList::default();
        if args.scan {
            return Ok(ScoreTarget::Scan);
        } else if let Some(path) = &args.variants {
            for line in read_variants(path)? {
                let left_out = &mut list.left_out;
                let Some(line) = unless_skipped(line.map_err(Into::into), on_bad, left_out)? else {
                    continue;
                };
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
            return Ok(ScoreTarget::Likelihood { per_residue });
        }
        list.close()?;
        Ok(ScoreTarget::List(list))
    }

    /// For the manifest.
    pub(super) fn name(&self) -> &'static str {
        match self {
            ScoreTarget::Likelihood { .. } => "pseudo_log_likelihood",
            ScoreTarget::List(_) => "variants",
            ScoreTarget::Scan => "scan",
        }
    }

    pub(super) fn has_variants(&self) -> bool {
        !matches!(self, ScoreTarget::Likelihood { .. })
    }

    /// A hash of all listed variants.
    pub(super) fn hash(&self) -> Option<&str> {
        match self {
            ScoreTarget::List(list) => Some(&list.hash),
            _ => None,
        }
    }

    /// The columns of the output.
    pub(super) fn columns(&self) -> &'static [&'static str] {
        match self {
            ScoreTarget::Likelihood { per_residue: true } => {
                &["id", "position", "residue", "log_likelihood"]
            }
            ScoreTarget::Likelihood { per_residue: false } => &[
                "id",
                "length",
                "scored",
                "log_likelihood",
                "pseudo_perplexity",
            ],
            ScoreTarget::List(list) if list.proteins.is_some() => {
                &["id", "variant", "score", "DMS_score"]
            }
            ScoreTarget::List(_) => &["id", "variant", "score"],
            ScoreTarget::Scan => &["id", "variant", "position", "wild_type", "mutant", "score"],
        }
    }

    /// The proteins of deep mutational scans, which are scored instead of FASTA input.
    pub(super) fn proteins(&self) -> Option<Vec<Sequence>> {
        match self {
            ScoreTarget::List(list) => list.proteins.clone(),
            _ => None,
        }
    }

    /// Lines of the variants' files that were left out.
    pub(super) fn left_out(&self) -> u64 {
        match self {
            ScoreTarget::List(list) => list.left_out,
            _ => 0,
        }
    }

    /// The ids for which variants are listed.
    pub(super) fn ids(&self) -> HashSet<String> {
        match self {
            ScoreTarget::List(list) => list.by_id.keys().cloned().collect(),
            _ => HashSet::new(),
        }
    }

    /// Variants listed under an id.
    pub(super) fn count(&self, id: &str) -> usize {
        match self {
            ScoreTarget::List(list) => list.by_id.get(id).map_or(0, Vec::len),
            _ => 0,
        }
    }

    /// The variants of a protein.
    pub(super) fn variants(&self, sequence: &Sequence) -> Vec<ListedVariant> {
        match self {
            ScoreTarget::Likelihood { .. } => Vec::new(),
            ScoreTarget::Scan => full_scan(&sequence.residues)
                .into_iter()
                .map(|variant| ListedVariant {
                    variant,
                    place: String::new(),
                    measured: None,
                })
                .collect(),
            ScoreTarget::List(list) => {
                let own = list.by_id.get(&sequence.id);
                let own = own.map_or(&[][..], Vec::as_slice);
                [own, &list.everywhere].concat()
            }
        }
    }
}

impl VariantList {
    fn add(&mut self, id: Option<String>, text: &str, place: String, on_bad: OnBad) -> Result<()> {
        let variant = text.parse::<Variant>().with_context(|| place.clone());
        let Some(variant) = unless_skipped(variant, on_bad, &mut self.left_out)? else {
            return Ok(());
        };
        let listed = ListedVariant {
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

    fn add_scan(&mut self, scan: DeepMutationalScan) -> Result<()> {
        let DeepMutationalScan {
            protein,
            listed,
            left_out,
        } = scan;
        self.left_out += left_out;
        let proteins = self.proteins.get_or_insert_default();
        let (id, file) = (protein.id.clone(), protein.origin.file.clone());
        proteins.push(protein);
        if self.by_id.insert(id.clone(), listed).is_some() {
            bail!("{file}: another scan has the same name {id}; rename one of the files");
        }
        Ok(())
    }

    /// After the last variant.
    fn close(&mut self) -> Result<()> {
        if self.by_id.is_empty() && self.everywhere.is_empty() {
            bail!("no variant is given; list at least one, such as A24G");
        }
        let mut ids: Vec<_> = self.by_id.iter().collect();
        ids.sort_by_key(|(id, _)| *id);
        let mut hash = Sha256::new();
        let none = String::new();
        for (id, listed) in ids.into_iter().chain([(&none, &self.everywhere)]) {
            for ListedVariant {
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
}
