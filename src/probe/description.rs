//! The description of a fitted head, `head.json`: what the head reads and predicts, how it was
//! fitted, and how well it did.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fit::Epoch;
use super::head::HeadShape;
use super::native::BySeparation;
use super::settings::FitSettings;

/// The form of the files that this version writes and reads.
pub const FORMAT: &str = "ankh3 head 1";

/// Where the rows that a head reads come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum FeatureOrigin {
    /// A model's encoder.
    Model {
        /// The model's name.
        model: String,
        /// A hash of the model's weights.
        model_hash: String,
        /// The task prefix in front of each sequence.
        prefix: String,
        /// Layers, side by side.
        layers: Vec<usize>,
    },
    /// An encoding of single residues, filled up with zeros.
    #[serde(rename = "blind")]
    Residues {
        /// The encoding: `onehot` or `blosum62`.
        features: String,
        /// Values per row.
        width: usize,
    },
}

/// What a head predicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum PredictionTask {
    /// One class per residue, each class a letter.
    Residues {
        /// In the order of outputs.
        classes: Vec<String>,
    },
    /// One class per protein.
    Classes {
        /// In the order of outputs.
        classes: Vec<String>,
    },
    /// One number per protein.
    Number,
    /// One probability per pair of residues.
    Contacts,
}

impl PredictionTask {
    /// Names of the classes; none for numbers and contacts.
    pub fn classes(&self) -> &[String] {
        match self {
            PredictionTask::Residues { classes } | PredictionTask::Classes { classes } => classes,
            PredictionTask::Number | PredictionTask::Contacts => &[],
        }
    }

    /// The measure that decides between epochs, and the first one shown.
    pub fn chief_measure(&self) -> &'static str {
        match self {
            PredictionTask::Residues { .. } | PredictionTask::Classes { .. } => "accuracy",
            PredictionTask::Number => "spearman",
            PredictionTask::Contacts => "long_P@L",
        }
    }
}

/// What computes predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum FittedMethod {
    /// A trained head, its weights in `head.safetensors`.
    Head {
        /// The form of the head.
        shape: HeadShape,
        /// How the head was trained.
        settings: FitSettings,
    },
    /// A logistic regression over attention maps, numbered `layer · heads + head`.
    Attention {
        /// One weight per map.
        weights: Vec<f64>,
        /// Added to the weighted sum.
        bias: f64,
        /// The weight of the L1 norm.
        penalty: f64,
    },
}

/// Everything about a head but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadDescription {
    /// [`FORMAT`].
    pub format: String,
    /// The task's name on the command line.
    pub name: String,
    /// What the head reads.
    pub source: FeatureOrigin,
    /// What the head predicts.
    pub task: PredictionTask,
    /// What computes the predictions.
    pub method: FittedMethod,
    /// How often residues of the training structures touch, by separation; contacts only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_separation: Option<BySeparation>,
    /// How every epoch of training went.
    #[serde(default)]
    pub epochs: Vec<Epoch>,
    /// The files of the training, validation and test sets.
    #[serde(default)]
    pub data: Map<String, Value>,
    /// Measures on the validation and test sets.
    #[serde(default)]
    pub metrics: Map<String, Value>,
    /// Provenance: tool, command, model, device.
    #[serde(default)]
    pub made_by: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_files_stay_the_same() {
        let origin = FeatureOrigin::Residues {
            features: "onehot".to_owned(),
            width: 20,
        };
        let text = r#"{"kind":"blind","features":"onehot","width":20}"#;
        assert_eq!(serde_json::to_string(&origin).unwrap(), text);
        let task: PredictionTask = serde_json::from_str(r#"{"kind":"number"}"#).unwrap();
        assert_eq!(task, PredictionTask::Number);
    }
}
