//! The log of `ankh3 pretrain`: a line a step, a line an evaluation.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ReportError;

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// Step and loss.
    pub losses: Vec<(f64, f64)>,
    /// In the order they were made.
    pub evaluations: Vec<Evaluation>,
}

/// One look at the held-out proteins.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Evaluation {
    /// After how many steps.
    pub step: u64,
    /// One entry a task.
    pub tasks: Vec<Task>,
}

/// How well one task goes.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Task {
    /// Its name.
    pub task: String,
    /// Mean over all labels.
    pub loss: f64,
    /// Over residues alone.
    pub residue_perplexity: Option<f64>,
    /// Over residues alone.
    pub residue_accuracy: Option<f64>,
}

/// Whether the first line of a file of JSON lines is such a log's.
pub(super) fn is_log(first: &Map<String, Value>) -> bool {
    let kind = first.get("kind").and_then(Value::as_str);
    matches!(kind, Some("train" | "evaluation")) && first.contains_key("step")
}

/// Reads the lines of a log; lines of other kinds are left alone.
pub(super) fn read(path: &Path, lines: &[Map<String, Value>]) -> Result<Training, ReportError> {
    let mut training = Training::default();
    for (number, line) in lines.iter().enumerate() {
        let fail = |what: &str| ReportError::line(path, number as u64 + 1, what);
        match line.get("kind").and_then(Value::as_str) {
            Some("train") => {
                let value = |key: &str| line.get(key).and_then(Value::as_f64);
                let step = value("step").ok_or_else(|| fail("a step without its number"))?;
                // A skipped step has no finite loss.
                if let Some(loss) = value("loss") {
                    training.losses.push((step, loss));
                }
            }
            Some("evaluation") => {
                let evaluation = serde_json::from_value(Value::Object(line.clone()))
                    .map_err(|error| fail(&error.to_string()))?;
                training.evaluations.push(evaluation);
            }
            _ => {}
        }
    }
    Ok(training)
}
