//! The log of a run: `log.jsonl` with one object per line, `kind` `train` or `evaluation`; and the
//! same numbers as event files for `TensorBoard`. A resumed run removes the lines of steps that it
//! repeats, and makes `TensorBoard` ignore them.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::io::atomic_file::AtomicFile;
use crate::report::tensorboard::Events;
use crate::training::evaluation::Figures;
use crate::training::trainer::StepReport;

/// The log, open to append lines.
pub(super) struct TrainingJournal {
    file: BufWriter<File>,
    events: Events,
}

impl TrainingJournal {
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
        let events = Events::create(run, step);
        let events = events.with_context(|| format!("{}: event files", run.display()))?;
        Ok(TrainingJournal {
            file: BufWriter::new(file),
            events,
        })
    }

    /// Logs a step of training.
    pub(super) fn step(&mut self, report: &StepReport, tokens_per_second: f64) -> Result<()> {
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
        self.line(&line)?;
        let name = |name: &str| format!("train/{name}");
        let mut scalars = vec![
            (name("loss"), report.loss),
            (name("gradient_norm"), report.gradient_norm),
            (name("learning_rate"), report.rate),
            (name("tokens_per_second"), tokens_per_second),
        ];
        let by_task = report.by_task.iter();
        scalars.extend(by_task.map(|(task, loss)| (name(&format!("loss/{}", plain(task))), *loss)));
        self.scalars(report.step, &scalars)
    }

    /// Logs an evaluation, also on stderr.
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
        self.line(&json!({ "kind": "evaluation", "step": step, "tasks": figures }))?;
        let scalars = figures.iter().flat_map(|figures| {
            let name = |name: &str| format!("held_out/{name}/{}", plain(&figures.task));
            [
                (name("loss"), figures.loss),
                (name("residue_perplexity"), figures.residue_perplexity),
                (name("residue_accuracy"), figures.residue_accuracy),
            ]
        });
        self.scalars(step, &scalars.collect::<Vec<_>>())
    }

    fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        self.events.scalars(step, scalars).context("event file")
    }

    fn line(&mut self, line: &Value) -> Result<()> {
        writeln!(self.file, "{line}").context("log.jsonl")?;
        // A log is read while the run goes on.
        self.flush()
    }

    /// Writes buffered lines to the file.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.file.flush().context("log.jsonl")
    }

    /// Writes buffered lines and closes the file.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()
    }
}

/// The name of a task with underscores for blanks: `masking_0.15`.
fn plain(task: &str) -> String {
    task.replace(' ', "_")
}
