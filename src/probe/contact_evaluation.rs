//! Precision of contact maps over known structures, beside that of the baseline that knows nothing
//! but the separation.

use serde_json::{Map, Value, json};

use super::metrics::contacts::{PARTS, Precisions, Range, precisions};
use super::metrics::{Estimate, RESAMPLES, mean_of};
use super::native::{BySeparation, KnownChain};
use crate::inference::contacts::PairMap;

/// One of the measures: P@L, P@L/2 or P@L/5 of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContactMeasure {
    /// The number of the range in [`Range::ALL`].
    range: usize,
    /// The number of the part in [`PARTS`].
    part: usize,
}

impl ContactMeasure {
    /// P@L of long range.
    pub const LONG: Self = Self {
        range: Range::ALL.len() - 1,
        part: 0,
    };

    /// All measures, by range and part.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Range::ALL.len())
            .flat_map(|range| (0..PARTS.len()).map(move |part| Self { range, part }))
    }

    /// The name of the range: `short`, `medium` or `long`.
    pub fn range(self) -> &'static str {
        Range::ALL[self.range].name()
    }

    /// The name of the part: `P@L`, `P@L/2` or `P@L/5`.
    pub fn part(self) -> String {
        match PARTS[self.part] {
            1 => "P@L".to_owned(),
            part => format!("P@L/{part}"),
        }
    }

    fn of(self, precisions: &Precisions) -> Option<f64> {
        precisions[self.range][self.part]
    }
}

/// A precision and that of the baseline; none where no pair is in the range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WithBaseline<T> {
    /// Of the predicted maps.
    pub predicted: Option<T>,
    /// Of the baseline.
    pub baseline: Option<T>,
}

/// Precisions of predicted maps and of the baseline, chain by chain.
#[derive(Clone, Debug)]
pub struct ContactEvaluation<'a> {
    /// The chains.
    pub chains: &'a [KnownChain],
    predicted: Vec<Precisions>,
    baseline: Vec<Precisions>,
    seed: u64,
}

impl<'a> ContactEvaluation<'a> {
    /// Compares one map per chain with the known structures; `seed` decides the bootstrap draws.
    pub fn new(
        chains: &'a [KnownChain],
        maps: &[PairMap],
        by_separation: &BySeparation,
        seed: u64,
    ) -> Self {
        let predicted = maps.iter().zip(chains);
        let baseline = chains.iter().map(|chain| {
            let map = by_separation.map(chain.residues.len());
            precisions(&map, &chain.native)
        });
        Self {
            chains,
            predicted: predicted
                .map(|(map, chain)| precisions(map, &chain.native))
                .collect(),
            baseline: baseline.collect(),
            seed,
        }
    }

    /// The precision of chain `number`.
    pub fn chain(&self, number: usize, measure: ContactMeasure) -> WithBaseline<f64> {
        WithBaseline {
            predicted: measure.of(&self.predicted[number]),
            baseline: measure.of(&self.baseline[number]),
        }
    }

    /// The mean over chains with its 95 % interval.
    pub fn mean(&self, measure: ContactMeasure) -> WithBaseline<Estimate> {
        let mean = |chains: &[Precisions]| {
            let values: Vec<Option<f64>> = chains.iter().map(|chain| measure.of(chain)).collect();
            mean_of(&values, RESAMPLES, self.seed)
        };
        WithBaseline {
            predicted: mean(&self.predicted),
            baseline: mean(&self.baseline),
        }
    }

    /// Resolved residues of all chains.
    pub fn resolved(&self) -> usize {
        self.chains
            .iter()
            .map(|chain| chain.native.resolved())
            .sum()
    }

    /// The means as JSON.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("chains".to_owned(), json!(self.chains.len()));
        for measure in ContactMeasure::all() {
            let name = format!("{}_{}", measure.range(), measure.part());
            let mean = self.mean(measure);
            map.insert(name.clone(), json!(mean.predicted));
            map.insert(format!("separation_only_{name}"), json!(mean.baseline));
        }
        Value::Object(map)
    }
}
