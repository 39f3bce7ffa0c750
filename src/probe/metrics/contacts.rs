//! Precision of predicted contacts: the share of the L, L/2 or L/5 highest-scoring pairs that
//! touch. L is the number of resolved residues; pairs with an unresolved residue are left out.

use crate::inference::contacts::PairMap;
use crate::probe::native::{KnownChain, Native};

/// A range of separations in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// 6 to 11.
    Short,
    /// 12 to 23.
    Medium,
    /// 24 and more.
    Long,
}

impl Range {
    /// All ranges, from near to far.
    pub const ALL: [Self; 3] = [Self::Short, Self::Medium, Self::Long];

    /// The name of the range.
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Medium => "medium",
            Self::Long => "long",
        }
    }

    /// Whether a separation is in the range.
    pub fn has(self, separation: usize) -> bool {
        match self {
            Self::Short => (6..12).contains(&separation),
            Self::Medium => (12..24).contains(&separation),
            Self::Long => separation >= 24,
        }
    }
}

/// Divisors of L: P@L, P@L/2, P@L/5.
pub const PARTS: [usize; 3] = [1, 2, 5];

/// The precision of the top `L / part` pairs of a range, at least one; equal scores in the order of
/// the pairs. Where the range has fewer pairs, all of them count; none where the range has no pair.
pub fn precision(map: &PairMap, native: &Native, range: Range, part: usize) -> Option<f64> {
    let mut pairs = ranked(map, native, range);
    pairs.truncate((native.resolved() / part).max(1));
    let hits = pairs.iter().filter(|touch| **touch).count();
    (!pairs.is_empty()).then(|| hits as f64 / pairs.len() as f64)
}

/// Whether the residues of each pair touch, from the highest score of the range down.
fn ranked(map: &PairMap, native: &Native, range: Range) -> Vec<bool> {
    let n = native.length();
    let mut pairs: Vec<(f32, bool)> = (0..n)
        .flat_map(|i| (i + 1..n).map(move |j| (i, j)))
        .filter(|(i, j)| range.has(j - i))
        .filter_map(|(i, j)| Some((map.get(i, j), native.touch(i, j)?)))
        .collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    pairs.into_iter().map(|(_, touch)| touch).collect()
}

/// P@L, P@L/2, P@L/5 of each range, in the order of [`Range::ALL`] and [`PARTS`].
pub type Precisions = [[Option<f64>; 3]; 3];

/// The precisions of one map in every range.
pub fn precisions(map: &PairMap, native: &Native) -> Precisions {
    Range::ALL.map(|range| PARTS.map(|part| precision(map, native, range, part)))
}

/// The mean of long-range P@L over chains; none where no chain has a pair of long range.
pub fn mean_long_precision(maps: &[PairMap], chains: &[KnownChain]) -> Option<f64> {
    let each = maps.iter().zip(chains);
    let values = each.filter_map(|(map, chain)| precision(map, &chain.native, Range::Long, 1));
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
