//! Greedy filling of masked residues.
//!
//! [`FillOrder::Left`] is the official scheme: the encoder reads all masks of a protein at once,
//! each as its own sentinel, and one decoder sequence fills them left-to-right, with forced
//! sentinels:
//!
//! ```text
//! encoder_input  [NLU] M <extra_id_0> A Y <extra_id_1> L </s>
//! decoder_input  <start> <extra_id_0> r_0 <extra_id_1>
//! r_k = argmax p(· | encoder_input, r_0 … r_{k-1}),   over the allowed residues
//! ```
//!
//! So a site sees the residues chosen at the sites on its left, and the reported probabilities are
//! conditioned on these residues.
//!
//! [`FillOrder::Certain`] fills one site at a time. After each run of the whole scheme, the site
//! whose best residue has the highest probability gets that residue (the leftmost of equals), and
//! the protein is encoded again with it. `n` masks cost `n` encodings instead of one.
//!
//! Where a protein has more masks than the vocabulary has sentinels, the first masks are filled
//! first, and all others are unknown residues (`X`) until their round.

mod decode;

use super::masked::{MaskedError, MaskedModel};
use super::residues::most_probable;
use crate::sequence::MASK;

/// The order in which the masks of a protein are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum FillOrder {
    /// From left to right, all masks in one pass
    #[default]
    Left,
    /// One mask at a time, the most certain first; the protein is encoded again after each
    Certain,
}

/// One filled mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Position of the residue, from 0.
    pub position: usize,
    /// The most probable allowed residue when the site was filled.
    pub residue: u8,
    /// Log-probabilities of the allowed residues when the site was filled.
    pub log_probs: Vec<f64>,
}

impl Site {
    /// The `k` most probable columns with their log-probabilities, best first; of equals the first
    /// column first.
    pub fn top(&self, k: usize) -> Vec<(usize, f64)> {
        let mut columns: Vec<(usize, f64)> = self.log_probs.iter().copied().enumerate().collect();
        columns.sort_by(|a, b| b.1.total_cmp(&a.1));
        columns.truncate(k);
        columns
    }
}

/// A protein with its masks filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// All residues; no [`MASK`] is left.
    pub residues: Vec<u8>,
    /// Sites in the order in which they were filled.
    pub sites: Vec<Site>,
}

/// A masked model that fills masks.
pub struct Filler<'a> {
    model: MaskedModel<'a>,
    order: FillOrder,
}

/// A protein that is being filled.
struct Work {
    filled: Filled,
    finite: bool,
}

impl Work {
    /// The first `most` positions that are still masked.
    fn open(&self, most: usize) -> Vec<usize> {
        let residues = self.filled.residues.iter().enumerate();
        residues
            .filter(|(_, residue)| **residue == MASK)
            .map(|(position, _)| position)
            .take(most)
            .collect()
    }

    fn fill(&mut self, site: Site) {
        self.filled.residues[site.position] = site.residue;
        self.filled.sites.push(site);
    }
}

impl<'a> Filler<'a> {
    /// A filler that takes the most probable residues of `model`.
    pub fn new(model: MaskedModel<'a>, order: FillOrder) -> Self {
        Self { model, order }
    }

    /// The masked model.
    pub fn model(&self) -> &MaskedModel<'a> {
        &self.model
    }

    /// Passes that left-to-right filling of `masks` masks takes: 1 unless there are more masks than
    /// sentinels.
    pub fn rounds(&self, masks: usize) -> usize {
        masks.div_ceil(self.model.num_sentinels())
    }

    /// Fills every [`MASK`] of every protein, in order; `None` where the network's result is NaN or
    /// infinite. A protein without a mask is returned unchanged.
    ///
    /// # Errors
    /// A residue that the vocabulary cannot encode, or the network's failure.
    pub fn fill(&self, proteins: &[&[u8]]) -> Result<Vec<Option<Filled>>, MaskedError> {
        let begin = |residues: &&[u8]| Work {
            filled: Filled {
                residues: residues.to_vec(),
                sites: Vec::new(),
            },
            finite: true,
        };
        let mut works: Vec<Work> = proteins.iter().map(begin).collect();
        while self.advance(&mut works)? {}
        Ok(works
            .into_iter()
            .map(|work| work.finite.then_some(work.filled))
            .collect())
    }

    /// One pass over every protein that still has masks; false when there is none.
    fn advance(&self, works: &mut [Work]) -> Result<bool, MaskedError> {
        let mut left: Vec<(&mut Work, decode::MaskedCopy)> = Vec::new();
        for work in works.iter_mut().filter(|work| work.finite) {
            let sites = work.open(self.model.num_sentinels());
            if sites.is_empty() {
                continue;
            }
            let encoding = self.model.encode_open(&work.filled.residues, &sites)?;
            let token_ids = encoding.token_ids;
            left.push((work, decode::MaskedCopy { token_ids, sites }));
        }
        let copies: Vec<&decode::MaskedCopy> = left.iter().map(|(_, copy)| copy).collect();
        let answers = decode::greedy(&self.model, &copies)?;
        let any = !left.is_empty();
        for ((work, copy), answer) in left.into_iter().zip(answers) {
            match answer {
                Some(log_probs) => self.take(work, &copy.sites, log_probs),
                None => work.finite = false,
            }
        }
        Ok(any)
    }

    /// Fills all `sites`, or only the most certain one.
    fn take(&self, work: &mut Work, sites: &[usize], log_probs: Vec<Vec<f64>>) {
        let letters = self.model.residues().letters();
        let site = |(&position, log_probs): (&usize, Vec<f64>)| Site {
            position,
            residue: letters[most_probable(&log_probs)],
            log_probs,
        };
        let found = sites.iter().zip(log_probs).map(site);
        match self.order {
            FillOrder::Left => found.for_each(|site| work.fill(site)),
            FillOrder::Certain => {
                let certainty = |site: &Site| site.log_probs[most_probable(&site.log_probs)];
                let best = found.reduce(|best, site| {
                    if certainty(&site) > certainty(&best) {
                        site
                    } else {
                        best
                    }
                });
                work.fill(best.expect("a protein without an open site is not asked about"));
            }
        }
    }
}
