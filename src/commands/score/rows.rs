//! Rows of scores, their correlation with measured values, and the picture of a scan.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::answers;
use super::dms::ListedVariant;
use super::target::ScoreTarget;
use crate::commands::Outcome;
use crate::commands::conveyor::{RowWriter, described_place};
use crate::inference::score::{log_likelihood, pseudo_perplexity, spearman};
use crate::output::manifest::{Manifest, write_manifest};
use crate::output::table::{Cell, Table};
use crate::report::charts::HeatMap;
use crate::report::picture::{self, Picture};
use crate::sequence::digest::InputDigest;
use crate::sequence::{Sequence, counted};

/// The key of the manifest with the correlation of each protein.
pub(in crate::commands) const SPEARMAN: &str = "spearman";

/// Writes the table of scores.
pub(super) struct ScoreRows<'a> {
    table: Table,
    target: &'a ScoreTarget,
    output: PathBuf,
    manifest: Manifest,
    /// The picture of the scan.
    picture: Option<Picture>,
    /// Whether there is a journal of answers beside the output.
    keeps_answers: bool,
    /// Score and measurement of every variant, by protein.
    measured: BTreeMap<String, Vec<(f64, f64)>>,
    /// The scan of the last protein.
    heatmap: Option<HeatMap>,
    without_variants: u64,
    /// Number of variants left out.
    pub(super) left_out: u64,
}

impl<'a> ScoreRows<'a> {
    pub(super) fn new(
        table: Table,
        target: &'a ScoreTarget,
        output: &Path,
        manifest: Manifest,
    ) -> Self {
        Self {
            table,
            target,
            output: output.to_owned(),
            manifest,
            picture: None,
            keeps_answers: false,
            measured: BTreeMap::new(),
            heatmap: None,
            without_variants: 0,
            left_out: target.left_out(),
        }
    }

    /// Draws the scan.
    pub(super) fn drawing(self, picture: Option<Picture>) -> Self {
        Self { picture, ..self }
    }

    /// Removes the journal of answers when the output is complete.
    pub(super) fn keeping_answers(self, keeps_answers: bool) -> Self {
        Self {
            keeps_answers,
            ..self
        }
    }
}

impl RowWriter for ScoreRows<'_> {
    type Output = Vec<f64>;

    const KEEPS_PLACES: bool = true;

    fn write(&mut self, sequence: &Sequence, scores: Vec<f64>) -> Result<()> {
        match self.target {
            ScoreTarget::Likelihood { per_residue: true } => self.write_residues(sequence, &scores),
            ScoreTarget::Likelihood { per_residue: false } => self.write_sum(sequence, &scores),
            _ => self.write_effects(sequence, &scores),
        }?;
        self.table.close_sequence();
        Ok(())
    }

    fn pass_over(&mut self) {
        self.table.close_sequence();
    }

    fn finish(mut self, input: InputDigest) -> Result<Outcome> {
        if self.without_variants > 0 {
            tracing::info!(
                "{} without variants",
                counted(self.without_variants, "sequence")
            );
        }
        if self.left_out > 0 {
            tracing::warn!("{} left out", counted(self.left_out, "variant"));
        }
        self.add_correlations();
        self.manifest.set_layout(self.table.layout());
        self.manifest.input = Some(input);
        self.table.finish()?;
        if let (Some(picture), Some(map)) = (&self.picture, self.heatmap.take()) {
            picture::draw(picture, &map.made_by(self.manifest.caption()))
                .with_context(|| format!("drawing {}", picture.path.display()))?;
        }
        write_manifest(&self.output, &self.manifest)?;
        if self.keeps_answers {
            answers::remove(&self.output)?;
        }
        Ok(if self.left_out > 0 {
            Outcome::SomeFailed
        } else {
            Outcome::Done
        })
    }
}

impl ScoreRows<'_> {
    fn write_residues(&mut self, sequence: &Sequence, values: &[f64]) -> Result<()> {
        for (index, (residue, value)) in sequence.residues.iter().zip(values).enumerate() {
            self.table.row(&[
                Cell::Text(&sequence.id),
                Cell::Count(index + 1),
                Cell::Residue(*residue),
                Cell::Number(*value),
            ])?;
        }
        Ok(())
    }

    fn write_sum(&mut self, sequence: &Sequence, values: &[f64]) -> Result<()> {
        let (scored, sum) = log_likelihood(values);
        if scored == 0 {
            tracing::warn!(
                "{}: none of its residues can be scored",
                described_place(sequence)
            );
        }
        self.table.row(&[
            Cell::Text(&sequence.id),
            Cell::Count(sequence.residues.len()),
            Cell::Count(scored),
            Cell::Number(if scored == 0 { f64::NAN } else { sum }),
            Cell::Number(pseudo_perplexity(scored, sum)),
        ])?;
        Ok(())
    }

    fn write_effects(&mut self, sequence: &Sequence, scores: &[f64]) -> Result<()> {
        let listed = self.target.variants(sequence);
        if listed.is_empty() {
            self.without_variants += 1;
        }
        if self.picture.is_some() {
            self.heatmap = Some(heat_map(sequence, &listed, scores));
        }
        for (listed, &score) in listed.iter().zip(scores) {
            if score.is_nan() {
                self.left_out += 1;
                continue;
            }
            let variant = listed.variant.to_string();
            let (id, variant) = (Cell::Text(&sequence.id), Cell::Text(&variant));
            let number = Cell::Number(score);
            let changed = listed.variant.substitutions()[0];
            match (self.target, listed.measured) {
                (ScoreTarget::Scan, _) => self.table.row(&[
                    id,
                    variant,
                    Cell::Count(changed.position),
                    Cell::Residue(changed.wild_type),
                    Cell::Residue(changed.mutant),
                    number,
                ])?,
                (_, Some(measured)) => {
                    self.table
                        .row(&[id, variant, number, Cell::Number(measured)])?;
                    let pairs = self.measured.entry(sequence.id.clone()).or_default();
                    pairs.push((score, measured));
                }
                (_, None) => self.table.row(&[id, variant, number])?,
            }
        }
        Ok(())
    }

    /// Spearman's correlation of every deep mutational scan, for the log and the manifest.
    fn add_correlations(&mut self) {
        let mut correlations = Map::new();
        for (id, pairs) in &self.measured {
            let rho = spearman(pairs);
            let shown = rho.map_or("undefined".to_owned(), |rho| format!("{rho:.4}"));
            tracing::info!(
                "{id}: Spearman {shown} over {}",
                counted(pairs.len(), "variant")
            );
            correlations.insert(id.clone(), json!(rho));
        }
        if !correlations.is_empty() {
            let correlations = Value::Object(correlations);
            let settings = &mut self.manifest.settings;
            settings.insert(SPEARMAN.to_owned(), correlations);
        }
    }
}

fn heat_map(sequence: &Sequence, listed: &[ListedVariant], scores: &[f64]) -> HeatMap {
    let changes = listed.iter().zip(scores).map(|(listed, score)| {
        let changed = listed.variant.substitutions()[0];
        (changed.position, changed.mutant, *score)
    });
    HeatMap::new(&sequence.id, &sequence.residues, changes)
}
