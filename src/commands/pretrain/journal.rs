//! `log.jsonl` of a run: one object a line, `kind` `train` or `evaluation`. A run that goes on drops the lines of steps it does again.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::io::atomic_file::AtomicFile;
use crate::training::evaluation::Figures;
use crate::training::trainer::Report;

/// The log, open for more.
pub(super) struct Journal {
    file: BufWriter<File>,
}

impl Journal {
    /// Opens the log of `run`, which has done `step` steps.
    pub(super) fn open(run: &Path, step: u64) -> Result<Self> {
        let path = run.join("log.jsonl");
        let old = fs::read_to_string(&path).unwrap_or_default();
        let kept = old.lines().filter(|line| {
            let value: Option<Value> = serde_json::from_str(line).ok();
            value.is_some_and(|value| value["step"].as_u64().is_some_and(|at| at <= step))
        });
        let what = || format!("{}", path.display());
        let mut file = AtomicFile::create(&path).with_context(what)?;
        kept.into_iter()
            .try_for_each(|line| writeln!(file, "{line}"))
            .and_then(|()| file.finish())
            .with_context(what)?;
        let file = File::options()
            .append(true)
            .open(&path)
            .with_context(what)?;
        Ok(Journal {
            file: BufWriter::new(file),
        })
    }

    /// A line of training.
    pub(super) fn step(&mut self, report: &Report, tokens_per_second: f64) -> Result<()> {
        let mut line = json!({
            "kind": "train",
            "step": report.step,
            "loss": report.loss,
            "by_task": report.by_task,
            "gradient_norm": report.gradient_norm,
            "learning_rate": report.rate,
            "tokens": report.tokens,
            "labels": report.labels,
            "tokens_per_second": tokens_per_second.round(),
        });
        if !report.not_finite.is_empty() {
            line["skipped_for"] = json!(report.not_finite);
        }
        self.line(&line)
    }

    /// A line of evaluation, and what it says on stderr.
    pub(super) fn evaluation(&mut self, step: u64, figures: &[Figures]) -> Result<()> {
        for figures in figures {
            let Figures {
                task,
                loss,
                residue_perplexity,
                residue_accuracy,
                ..
            } = figures;
            tracing::info!(
                "step {step}, held out, {task}: loss {loss:.4}, residues: perplexity {residue_perplexity:.3}, accuracy {residue_accuracy:.4}"
            );
        }
        self.line(&json!({ "kind": "evaluation", "step": step, "tasks": figures }))
    }

    fn line(&mut self, line: &Value) -> Result<()> {
        writeln!(self.file, "{line}").context("log.jsonl")?;
        // A log is read while the run goes on.
        self.flush()
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.file.flush().context("log.jsonl")
    }

    /// Closes the log.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()
    }
}
