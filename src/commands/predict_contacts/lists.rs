//! The pairs of every protein as text: CASP's RR, or a table.

use anyhow::Result;

use super::ContactFormat;
use super::maps::ContactMaps;
use crate::commands::contacts::Predictor;
use crate::commands::conveyor::{GroupWork, TextBlock};
use crate::inference::contacts::{PairMap, select};
use crate::output::contact_list::{ContactPair, write_header, write_rows, write_rr};
use crate::output::layout::TextFormat;
use crate::output::manifest::Manifest;
use crate::sequence::Sequence;

/// Predicts lists of pairs.
pub(super) struct ContactLists<'a> {
    maps: ContactMaps<'a>,
    format: ContactFormat,
    /// The remarks of an RR file about its values.
    remarks: Vec<String>,
    /// Whether scores are divided by the highest one, because values in RR must be from 0 to 1.
    scales: bool,
}

impl<'a> ContactLists<'a> {
    pub(super) fn new(maps: ContactMaps<'a>, format: ContactFormat, manifest: &Manifest) -> Self {
        Self {
            remarks: remarks(&maps.predictor, manifest),
            scales: maps.predictor.value() == "score",
            maps,
            format,
        }
    }

    pub(super) fn text_format(&self) -> TextFormat {
        match self.format {
            ContactFormat::Tsv => TextFormat::Tsv,
            _ => TextFormat::Rr,
        }
    }

    /// The first line of the file.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.format == ContactFormat::Tsv {
            write_header(&mut text, self.maps.predictor.value())
                .expect("a vector takes everything");
        }
        text
    }

    fn block(&self, sequence: &Sequence, map: &PairMap) -> TextBlock {
        let what = self.maps.what;
        let mut pairs = select(map, what.min_separation, what.threshold, what.top());
        let (id, residues) = (&sequence.id, &sequence.residues);
        let mut text = Vec::new();
        let (written, rows) = if self.format == ContactFormat::Tsv {
            (
                write_rows(&mut text, id, residues, &pairs),
                pairs.len() as u64,
            )
        } else {
            if self.scales {
                scale(&mut pairs);
            }
            (write_rr(&mut text, id, residues, &self.remarks, &pairs), 1)
        };
        written.expect("a vector takes everything");
        TextBlock { text, rows }
    }
}

impl GroupWork for ContactLists<'_> {
    type Output = TextBlock;

    fn tokens(&self, sequence: &Sequence) -> usize {
        self.maps.tokens(sequence)
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<TextBlock>>> {
        let mut blocks = Vec::with_capacity(group.len());
        for sequence in group {
            let map = self.maps.map(sequence)?;
            blocks.push(map.map(|map| self.block(sequence, &map)));
        }
        Ok(blocks)
    }
}

fn remarks(predictor: &Predictor, manifest: &Manifest) -> Vec<String> {
    let word = |word: Option<&str>| word.unwrap_or("none").to_owned();
    let method = manifest.settings.get("method");
    let mut remarks = vec![format!(
        "{}, model {}, prefix {}, method {}",
        word(manifest.tool.as_deref()),
        word(manifest.model.as_deref()),
        word(manifest.prefix.as_deref()),
        word(method.and_then(|method| method.as_str()))
    )];
    if predictor.value() == "score" {
        remarks.push("values are scores divided by the highest of the protein, 0 where negative: an order, not probabilities".to_owned());
    }
    remarks
}

/// Scores to 0 … 1.
fn scale(pairs: &mut [ContactPair]) {
    let highest = pairs
        .first()
        .map_or(1.0, |pair| pair.2)
        .max(f32::MIN_POSITIVE);
    for pair in pairs {
        pair.2 = (pair.2 / highest).clamp(0.0, 1.0);
    }
}
