//! The log of `ankh3 pretrain` (`log.jsonl`): one line per logged step, one line per evaluation on
//! held-out proteins.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::charts::lines::{Curve, LineStyle};
use super::error::ReportError;
use super::file::read_text;

/// The lines of a log in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingLog {
    /// Steps, of which a recipe may log only some.
    pub steps: Vec<LoggedStep>,
    /// Evaluations on held-out proteins.
    pub evaluations: Vec<HeldOutEvaluation>,
}

/// One step of training. Numbers that are not finite are `null` in JSON and `None` here.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct LoggedStep {
    /// The step's number.
    pub step: u64,
    /// Mean loss per label.
    pub loss: Option<f64>,
    /// Mean loss per label of each task.
    #[serde(default)]
    pub by_task: BTreeMap<String, Option<f64>>,
    /// The norm of the gradient before clipping.
    pub gradient_norm: Option<f64>,
    /// The learning rate of the step.
    pub learning_rate: Option<f64>,
}

/// One evaluation on held-out proteins.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct HeldOutEvaluation {
    /// The step after which it was made.
    pub step: u64,
    /// One entry per task.
    pub tasks: Vec<HeldOutTask>,
}

/// The result of one task of an evaluation.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct HeldOutTask {
    /// The task's name, such as `masking 0.15`.
    pub task: String,
    /// Mean loss per label.
    pub loss: Option<f64>,
    /// Perplexity per residue.
    pub residue_perplexity: Option<f64>,
    /// Share of residues that are the most probable ones.
    pub residue_accuracy: Option<f64>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum LogLine {
    Train(LoggedStep),
    Evaluation(HeldOutEvaluation),
    #[serde(other)]
    Other,
}

/// Whether an object is a line of such a log.
pub(super) fn is_line(object: &Map<String, Value>) -> bool {
    let kind = object.get("kind").and_then(Value::as_str);
    matches!(kind, Some("train" | "evaluation")) && object.contains_key("step")
}

impl TrainingLog {
    /// Reads a log. Lines of unknown kinds are skipped, and so is a last line without its line
    /// break: the run may be writing it, or was killed there.
    ///
    /// # Errors
    /// A file that cannot be read, and a line that is not valid.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let text = read_text(path)?;
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut log = TrainingLog::default();
        for (number, line) in complete.lines().enumerate() {
            let line = serde_json::from_str(line)
                .map_err(|error| ReportError::line(path, number as u64 + 1, error.to_string()))?;
            match line {
                LogLine::Train(step) => log.steps.push(step),
                LogLine::Evaluation(evaluation) => log.evaluations.push(evaluation),
                LogLine::Other => {}
            }
        }
        Ok(log)
    }

    /// One point per logged step; a gap where there is no value.
    pub fn points(&self, value: impl Fn(&LoggedStep) -> Option<f64>) -> Vec<(f64, f64)> {
        let point = |line: &LoggedStep| (line.step as f64, value(line).unwrap_or(f64::NAN));
        self.steps.iter().map(point).collect()
    }

    /// One curve per task over the evaluations, in the order of the tasks' names.
    pub fn held_out(&self, value: impl Fn(&HeldOutTask) -> Option<f64>) -> Vec<Curve> {
        let mut curves: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for evaluation in &self.evaluations {
            for task in &evaluation.tasks {
                let point = (evaluation.step as f64, value(task).unwrap_or(f64::NAN));
                curves.entry(&task.task).or_default().push(point);
            }
        }
        let curves = curves.into_iter().map(|(task, points)| Curve {
            name: task.to_owned(),
            points,
            style: LineStyle::Marked,
        });
        curves.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TrainingLog, ReportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, text).unwrap();
        TrainingLog::read(&path)
    }

    const STEP: &str = r#"{"kind":"train","step":1,"loss":null,"by_task":{"masking 0.15":2.5},"gradient_norm":1.5,"learning_rate":0.1}"#;
    const EVALUATION: &str = r#"{"kind":"evaluation","step":1,"tasks":[{"task":"b","loss":2.0,"residue_perplexity":null,"residue_accuracy":0.5},{"task":"a","loss":1.0}]}"#;

    #[test]
    fn steps_and_evaluations_are_read_and_an_unfinished_line_is_not() {
        let text = format!("{STEP}\n{{\"kind\":\"note\"}}\n{EVALUATION}\n{{\"kind\":\"tra");
        let log = read(&text).unwrap();
        assert_eq!((log.steps.len(), log.evaluations.len()), (1, 1));
        assert!(log.points(|line| line.loss)[0].1.is_nan());
        assert_eq!(log.points(|line| line.gradient_norm), [(1.0, 1.5)]);
        let curves = log.held_out(|task| task.loss);
        let names: Vec<&str> = curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(curves[1].points, [(1.0, 2.0)]);
    }

    #[test]
    fn an_invalid_line_is_named() {
        let error = read(&format!("{STEP}\n{{\"kind\":\"train\"}}\n")).unwrap_err();
        assert!(error.to_string().contains("log.jsonl, line 2"), "{error}");
    }
}
