//! The map of every protein, and its picture.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::OutputArgs;
use crate::commands::contacts::{Predictor, aligned};
use crate::commands::conveyor::{GroupWork, described_place};
use crate::inference::contacts::PairMap;
use crate::inference::pooling::EmbeddingColumns;
use crate::report::charts::canvas::Heading;
use crate::report::contact_map::{ContactPlot, Measure};
use crate::report::picture::{self, Picture};
use crate::sequence::Sequence;

/// Predicts whole maps, one protein at a time: a map grows with the square of the length.
pub(super) struct ContactMaps<'a> {
    pub(super) predictor: Predictor,
    /// The picture of the only protein's map.
    pub(super) picture: Option<Picture>,
    pub(super) what: &'a OutputArgs,
}

impl GroupWork for ContactMaps<'_> {
    type Output = Arc<EmbeddingColumns>;

    fn tokens(&self, sequence: &Sequence) -> usize {
        sequence.residues.len()
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Arc<EmbeddingColumns>>>> {
        let maps = group.iter().map(|sequence| self.map(sequence));
        let columns = |map: PairMap| Arc::new(vec![map.into_values()]);
        maps.map(|map| Ok(map?.map(columns))).collect()
    }
}

impl ContactMaps<'_> {
    /// The map of a protein; `None` if the map has NaN or infinity. With --plot, the map is drawn.
    pub(super) fn map(&mut self, sequence: &Sequence) -> Result<Option<PairMap>> {
        let Sequence { id, residues, .. } = sequence;
        tracing::debug!("{}: {} residues", described_place(sequence), residues.len());
        let map = self
            .predictor
            .predict(id, &described_place(sequence), residues)?;
        if let (Some(picture), Some(map)) = (&self.picture, &map) {
            self.draw(picture, sequence, map)?;
        }
        Ok(map)
    }

    fn draw(&self, picture: &Picture, sequence: &Sequence, map: &PairMap) -> Result<()> {
        let what = self.what;
        let native = what.native.as_deref().map(|path: &Path| {
            let chain = what.chain.as_deref();
            aligned(path, chain, &sequence.id, &sequence.residues)
        });
        let native = native.transpose()?;
        // Neighbours in the chain would dominate the colour scale.
        let plot = ContactPlot {
            heading: Heading::new(&sequence.id, &self.predictor.description()),
            length: map.length(),
            values: without_neighbours(map, what.min_separation).into_values(),
            measure: Measure::named(self.predictor.value()),
            native: native.map(|native| native.labels()),
        };
        picture::draw(picture, &plot).with_context(|| format!("drawing {}", picture.path.display()))
    }
}

/// The map with zeros at pairs less than `min_separation` apart.
fn without_neighbours(map: &PairMap, min_separation: usize) -> PairMap {
    let mut shown = map.clone();
    let n = shown.length();
    for i in 0..n {
        let first = i.saturating_sub(min_separation.saturating_sub(1));
        for j in first..(i + min_separation).min(n) {
            shown.values_mut()[i * n + j] = 0.0;
        }
    }
    shown
}
