//! The paper's tasks by name, and the three kinds that any other task is of.

use clap::ValueEnum;

use crate::probe::description::Task;
use crate::probe::head::Readout;

/// What is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
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
    /// Any class a residue, a letter each; label column label.
    Residues,
    /// Any class a protein; label column label.
    Classes,
    /// Any number a protein; label column label.
    Number,
}

impl Preset {
    /// Its name, also in files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Preset::Ssp3 => "ssp3",
            Preset::Ssp8 => "ssp8",
            Preset::Fluorescence => "fluorescence",
            Preset::Gb1 => "gb1",
            Preset::Contacts => "contacts",
            Preset::Residues => "residues",
            Preset::Classes => "classes",
            Preset::Number => "number",
        }
    }

    /// The label's column, where none is named.
    pub(super) fn label(self) -> &'static str {
        match self {
            Preset::Ssp3 => "dssp3",
            Preset::Ssp8 => "dssp8",
            Preset::Fluorescence => "log_fluorescence",
            Preset::Gb1 => "fitness",
            _ => "label",
        }
    }

    /// What is told; classes that are not given come from the training set.
    pub(super) fn task(self) -> Task {
        let letters = |text: &str| text.chars().map(String::from).collect();
        match self {
            Preset::Ssp3 => Task::Residues {
                classes: letters("HEC"),
            },
            Preset::Ssp8 => Task::Residues {
                classes: letters("HBEGITSC"),
            },
            Preset::Residues => Task::Residues {
                classes: Vec::new(),
            },
            Preset::Classes => Task::Classes {
                classes: Vec::new(),
            },
            Preset::Fluorescence | Preset::Gb1 | Preset::Number => Task::Number,
            Preset::Contacts => Task::Contacts,
        }
    }

    /// What is read out of the body, unless the user says otherwise.
    pub(super) fn readout(self) -> Readout {
        match self {
            Preset::Ssp3 | Preset::Ssp8 | Preset::Residues => Readout::Residues,
            Preset::Contacts => Readout::Pairs,
            _ => Readout::Max,
        }
    }
}

/// The measure by which the best epoch is chosen, and the first that is shown.
pub(super) fn chief_measure(task: &Task) -> &'static str {
    match task {
        Task::Residues { .. } | Task::Classes { .. } => "accuracy",
        Task::Number => "spearman",
        Task::Contacts => "long_P@L",
    }
}
