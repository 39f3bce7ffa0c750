//! Scoring group after group, and writing rows.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::kept::Kept;
use super::task::{Listed, Task};
use crate::commands::stream::{Work, place};
use crate::inference::score::{
    EffectMethod, Effects, Masking, Scorer, log_likelihood, pseudo_perplexity, spearman,
};
use crate::input::sequences::OnBad;
use crate::output::table::{Cell, Table};
use crate::report::heatmap::HeatMap;
use crate::sequence::Sequence;

/// The command's work.
pub(super) struct Scoring<'a> {
    scorer: Scorer<'a>,
    task: Task,
    method: EffectMethod,
    masking: Masking,
    table: Table,
    /// With --resume.
    kept: Option<Kept>,
    on_bad: OnBad,
    /// Score and measurement of every variant, by protein.
    measured: BTreeMap<String, Vec<(f64, f64)>>,
    heatmap: Option<HeatMap>,
    without_variants: u64,
    left_out: u64,
}

/// What is left when all is written.
pub(super) struct Finished {
    /// The scan of the last protein.
    pub(super) heatmap: Option<HeatMap>,
    /// Variants left out.
    pub(super) left_out: u64,
}

impl<'a> Scoring<'a> {
    pub(super) fn new(
        scorer: Scorer<'a>,
        task: Task,
        (method, masking): (EffectMethod, Masking),
        (table, kept): (Table, Option<Kept>),
        on_bad: OnBad,
    ) -> Self {
        let left_out = match &task {
            Task::List(list) => list.left_out,
            _ => 0,
        };
        Self {
            scorer,
            task,
            method,
            masking,
            table,
            kept,
            on_bad,
            measured: BTreeMap::new(),
            heatmap: None,
            without_variants: 0,
            left_out,
        }
    }

    /// Completes the table and adds Spearman's correlations to the manifest.
    ///
    /// # Errors
    /// Variants of a protein that was not there; an output that cannot be written.
    pub(super) fn finish(mut self, manifest: &mut Map<String, Value>) -> Result<Finished> {
        if let Task::List(list) = &self.task {
            for id in list.unseen() {
                let message = format!("variants are listed for {id}, which is not in the input");
                if self.on_bad == OnBad::Error {
                    bail!("{message}; add the sequence, correct the id, or choose --on-bad skip");
                }
                tracing::warn!("skipped: {message}");
                self.left_out += list.count(id) as u64;
            }
        }
        if self.without_variants > 0 {
            tracing::info!("{} sequences have no variants", self.without_variants);
        }
        if self.left_out > 0 {
            tracing::warn!("{} variants left out", self.left_out);
        }
        let mut correlations = Map::new();
        for (id, pairs) in &self.measured {
            let rho = spearman(pairs);
            let shown = rho.map_or("undefined".to_owned(), |rho| format!("{rho:.4}"));
            tracing::info!("{id}: Spearman {shown} over {} variants", pairs.len());
            correlations.insert(id.clone(), json!(rho));
        }
        if !correlations.is_empty() {
            manifest.insert("spearman".to_owned(), Value::Object(correlations));
        }
        self.table.layout().describe(manifest);
        self.table.finish()?;
        Ok(Finished {
            heatmap: self.heatmap,
            left_out: self.left_out,
        })
    }

    /// Scores of listed variants; NaN for those that do not fit the protein.
    fn effects(&self, sequence: &Sequence) -> Result<Option<Vec<f64>>> {
        let listed = self.task.variants(sequence);
        let mut fitting = Vec::with_capacity(listed.len());
        let mut places = Vec::with_capacity(listed.len());
        for (number, listed) in listed.iter().enumerate() {
            match listed.variant.apply(&sequence.residues) {
                Ok(_) => {
                    fitting.push(listed.variant.clone());
                    places.push(number);
                }
                Err(error) => {
                    let message = format!("{}: {}: {error}", listed.place, place(sequence));
                    if self.on_bad == OnBad::Error {
                        bail!("{message}");
                    }
                    tracing::warn!("skipped: {message}");
                }
            }
        }
        let effects = Effects::new(&self.scorer, self.method, self.masking);
        let scores = effects.score(&sequence.id, &sequence.residues, &fitting)?;
        Ok(scores.map(|scores| {
            let mut all = vec![f64::NAN; listed.len()];
            places
                .into_iter()
                .zip(scores)
                .for_each(|(number, score)| all[number] = score);
            all
        }))
    }

    fn write_likelihoods(
        &mut self,
        sequence: &Sequence,
        values: &[f64],
        per_residue: bool,
    ) -> Result<()> {
        let id = Cell::Text(&sequence.id);
        if per_residue {
            for (index, (residue, value)) in sequence.residues.iter().zip(values).enumerate() {
                let (position, residue) = (Cell::Count(index + 1), Cell::Residue(*residue));
                self.table
                    .row(&[id, position, residue, Cell::Number(*value)])?;
            }
            return Ok(());
        }
        let (scored, sum) = log_likelihood(values);
        if scored == 0 {
            tracing::warn!("{}: none of its residues can be scored", place(sequence));
        }
        self.table.row(&[
            id,
            Cell::Count(sequence.residues.len()),
            Cell::Count(scored),
            Cell::Number(if scored == 0 { f64::NAN } else { sum }),
            Cell::Number(pseudo_perplexity(scored, sum)),
        ])?;
        Ok(())
    }

    fn write_effects(&mut self, sequence: &Sequence, scores: &[f64]) -> Result<()> {
        let listed = self.task.variants(sequence);
        if listed.is_empty() {
            self.without_variants += 1;
        }
        if matches!(self.task, Task::Scan) {
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
            match (&self.task, listed.measured) {
                (Task::Scan, _) => self.table.row(&[
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
}

fn heat_map(sequence: &Sequence, listed: &[Listed], scores: &[f64]) -> HeatMap {
    let changes = listed.iter().zip(scores).map(|(listed, score)| {
        let changed = listed.variant.substitutions()[0];
        (changed.position, changed.mutant, *score)
    });
    HeatMap::new(&sequence.id, &sequence.residues, changes)
}

impl Work for Scoring<'_> {
    fn saw(&mut self, sequence: &Sequence) {
        self.task.saw(&sequence.id);
    }

    fn tokens(&self, sequence: &Sequence) -> usize {
        let length = sequence.residues.len();
        let copies = match self.masking {
            Masking::Single => length,
            Masking::Fraction { fraction, .. } => (1.0 / fraction).ceil() as usize,
        };
        copies * (length + 4)
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Vec<u8>>>> {
        let scores = if let Task::Likelihood { .. } = self.task {
            let proteins: Vec<(&str, &[u8])> = group
                .iter()
                .map(|sequence| (sequence.id.as_str(), sequence.residues.as_slice()))
                .collect();
            self.scorer.log_likelihoods(&proteins, self.masking)?
        } else {
            let effects = group.iter().map(|sequence| self.effects(sequence));
            effects.collect::<Result<_>>()?
        };
        let bytes = |scores: Vec<f64>| {
            scores
                .iter()
                .flat_map(|score| score.to_le_bytes())
                .collect()
        };
        Ok(scores.into_iter().map(|scores| scores.map(bytes)).collect())
    }

    fn write(&mut self, sequence: &Sequence, result: &[u8]) -> Result<()> {
        let (numbers, _) = result.as_chunks::<8>();
        let scores: Vec<f64> = numbers.iter().map(|n| f64::from_le_bytes(*n)).collect();
        match self.task {
            Task::Likelihood { per_residue } => {
                self.write_likelihoods(sequence, &scores, per_residue)
            }
            _ => self.write_effects(sequence, &scores),
        }
    }

    fn kept(&mut self) -> Result<()> {
        self.kept.as_ref().map_or(Ok(()), Kept::empty)
    }

    fn close_sequence(&mut self) {
        self.table.close_sequence();
    }
}
