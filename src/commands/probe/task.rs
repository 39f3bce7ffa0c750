//! The tasks of `probe train`: those of the papers by name, and the three kinds that any other task
//! belongs to.

use clap::ValueEnum;

use crate::probe::description::PredictionTask;
use crate::probe::head::Readout;

/// What a head is trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeTask {
    /// Secondary structure in three states, H E C; label column dssp3.
    Ssp3,
    /// Secondary structure in eight states, H B E G I T S C; label column dssp8.
    Ssp8,
    /// Fluorescence of GFP; label column `log_fluorescence`.
    Fluorescence,
    /// Fitness of GB1; label column fitness.
    Gb1,
    /// Contacts: tables are structures, as for `ankh3 contacts fit --method head`.
    Contacts,
    /// Any class per residue, one letter each; label column label.
    Residues,
    /// Any class per protein; label column label.
    Classes,
    /// Any number per protein; label column label.
    Number,
}

impl ProbeTask {
    /// The name on the command line and in files.
    pub(super) fn name(self) -> &'static str {
        match self {
            ProbeTask::Ssp3 => "ssp3",
            ProbeTask::Ssp8 => "ssp8",
            ProbeTask::Fluorescence => "fluorescence",
            ProbeTask::Gb1 => "gb1",
            ProbeTask::Contacts => "contacts",
            ProbeTask::Residues => "residues",
            ProbeTask::Classes => "classes",
            ProbeTask::Number => "number",
        }
    }

    /// The default column of labels.
    pub(super) fn label_column(self) -> &'static str {
        match self {
            ProbeTask::Ssp3 => "dssp3",
            ProbeTask::Ssp8 => "dssp8",
            ProbeTask::Fluorescence => "log_fluorescence",
            ProbeTask::Gb1 => "fitness",
            _ => "label",
        }
    }

    /// What the head predicts; classes that a task leaves open are empty.
    pub(super) fn prediction(self) -> PredictionTask {
        let letters = |text: &str| text.chars().map(String::from).collect();
        match self {
            ProbeTask::Ssp3 => PredictionTask::Residues {
                classes: letters("HEC"),
            },
            ProbeTask::Ssp8 => PredictionTask::Residues {
                classes: letters("HBEGITSC"),
            },
            ProbeTask::Residues => PredictionTask::Residues {
                classes: Vec::new(),
            },
            ProbeTask::Classes => PredictionTask::Classes {
                classes: Vec::new(),
            },
            ProbeTask::Fluorescence | ProbeTask::Gb1 | ProbeTask::Number => PredictionTask::Number,
            ProbeTask::Contacts => PredictionTask::Contacts,
        }
    }

    /// What the last layer reads, unless --pooling says otherwise.
    pub(super) fn readout(self) -> Readout {
        match self {
            ProbeTask::Ssp3 | ProbeTask::Ssp8 | ProbeTask::Residues => Readout::Residues,
            ProbeTask::Contacts => Readout::Pairs,
            _ => Readout::Max,
        }
    }
}
