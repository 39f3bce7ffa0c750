//! What a head's file says of it: what it reads, what it tells, how it was made and how well it did.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::head::Shape;
use super::native::BySeparation;
use super::settings::Settings;
use super::train::Epoch;

/// The form of the files this version writes and reads.
pub const FORMAT: &str = "ankh3 head 1";

/// Where embeddings come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// A model's encoder.
    Model {
        /// Its name.
        model: String,
        /// Identifies its weights.
        model_hash: String,
        /// In front of each sequence.
        prefix: String,
        /// Layers, side by side.
        layers: Vec<usize>,
    },
    /// The residue alone: `onehot` or `blosum62`, filled up with zeros.
    Blind {
        /// Which.
        features: String,
        /// Values a row.
        width: usize,
    },
}

/// What a head tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Task {
    /// A class a residue, each class a letter.
    Residues {
        /// In the order of outputs.
        classes: Vec<String>,
    },
    /// A class a protein.
    Classes {
        /// In the order of outputs.
        classes: Vec<String>,
    },
    /// A number a protein.
    Number,
    /// A probability a pair of residues.
    Contacts,
}

impl Task {
    /// Names of the classes; none for numbers and contacts.
    pub fn classes(&self) -> &[String] {
        match self {
            Task::Residues { classes } | Task::Classes { classes } => classes,
            Task::Number | Task::Contacts => &[],
        }
    }
}

/// What computes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Method {
    /// A trained head, its weights in `head.safetensors`.
    Head {
        /// Its form.
        shape: Shape,
        /// How it learnt.
        settings: Settings,
    },
    /// A logistic regression over attention maps, numbered `layer · heads + head`.
    Attention {
        /// One a map.
        weights: Vec<f64>,
        /// Added to their sum.
        bias: f64,
        /// Of the L1 norm.
        penalty: f64,
    },
}

/// Everything but the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// [`FORMAT`].
    pub format: String,
    /// The name of the preset, or of the kind of task.
    pub name: String,
    /// What it reads.
    pub source: Source,
    /// What it tells.
    pub task: Task,
    /// What computes it.
    pub method: Method,
    /// How often residues of the training structures touch, by separation; contacts only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_separation: Option<BySeparation>,
    /// How training went.
    #[serde(default)]
    pub epochs: Vec<Epoch>,
    /// What it learnt from and was judged by.
    #[serde(default)]
    pub data: Map<String, Value>,
    /// Measures on the sets it was judged by.
    #[serde(default)]
    pub metrics: Map<String, Value>,
    /// Provenance: tool, command, model, device.
    #[serde(default)]
    pub made_by: Map<String, Value>,
}
