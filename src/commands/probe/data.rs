//! Labelled tables become proteins with targets; whatever does not fit is an error that names the row.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::commands::heads::Protein;
use crate::input::labelled::{LabelledColumns, LabelledRow, read_labelled};
use crate::probe::description::Task;
use crate::probe::loss::Target;
use crate::sequence::{Origin, Record, Rules, clean};

/// Does not count.
const MASKED: char = '-';

/// One row, cleaned.
#[derive(Clone, Debug)]
pub(super) struct Example {
    /// For messages.
    place: String,
    residues: Vec<u8>,
    label: String,
    mask: Option<String>,
}

/// A table's rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    pub(super) examples: Vec<Example>,
}

impl Set {
    /// Reads a table and cleans its sequences.
    pub(super) fn read(path: &Path, columns: &LabelledColumns) -> Result<Self> {
        let labelled = read_labelled(path, columns)?;
        if labelled.unlabelled > 0 {
            tracing::warn!(
                "{}: {} rows without {} left out",
                path.display(),
                labelled.unlabelled,
                columns.label
            );
        }
        if labelled.rows.is_empty() {
            let only = columns.only.as_ref();
            let only = only.map(|(name, value)| format!(" where {name} is {value}"));
            bail!(
                "{}: no row with {}{}",
                path.display(),
                columns.label,
                only.unwrap_or_default()
            );
        }
        let rows = labelled.rows.into_iter().enumerate();
        let examples = rows.map(|(number, row)| example(path, number, row));
        Ok(Self {
            examples: examples.collect::<Result<_>>()?,
        })
    }

    /// Their sequences.
    pub(super) fn proteins(&self) -> Vec<Protein<'_>> {
        let each = self.examples.iter();
        each.map(|example| (example.place.as_str(), example.residues.as_slice()))
            .collect()
    }

    /// At most `count`, evenly spaced: tables are often sorted.
    pub(super) fn thin(&mut self, count: usize) {
        let all = self.examples.len();
        if all > count {
            let kept = (0..count).map(|k| self.examples[k * all / count].clone());
            self.examples = kept.collect();
        }
    }

    /// The classes that occur, in order.
    pub(super) fn classes(&self, task: &Task) -> Vec<String> {
        let mut classes = BTreeSet::new();
        for example in &self.examples {
            if let Task::Residues { .. } = task {
                let counted = example.label.chars().filter(|class| *class != MASKED);
                classes.extend(counted.map(String::from));
            } else {
                classes.insert(example.label.clone());
            }
        }
        classes.into_iter().collect()
    }

    /// What is true of each.
    pub(super) fn targets(&self, task: &Task) -> Result<Vec<Target>> {
        let each = self.examples.iter();
        each.map(|example| example.target(task)).collect()
    }
}

fn example(path: &Path, number: usize, row: LabelledRow) -> Result<Example> {
    let LabelledRow {
        id,
        sequence,
        label,
        mask,
        line,
    } = row;
    let place = format!(
        "{}: record {} ({id}), line {line}",
        path.display(),
        number + 1
    );
    let record = Record {
        id,
        raw_id: None,
        description: String::new(),
        text: sequence.into_bytes(),
        origin: Origin {
            file: path.display().to_string().into(),
            record: number as u64 + 1,
            line,
        },
    };
    let (sequence, _) = clean(record, &Rules::default())?;
    Ok(Example {
        place,
        residues: sequence.residues,
        label,
        mask,
    })
}

impl Example {
    fn target(&self, task: &Task) -> Result<Target> {
        let target = match task {
            Task::Residues { classes } => self.residue_classes(classes),
            Task::Classes { classes } => class_of(classes, &self.label).map(Target::Class),
            Task::Number => number(&self.label).map(Target::Value),
            Task::Contacts => bail!("contacts have no labels in tables"),
        };
        target.with_context(|| self.place.clone())
    }

    fn residue_classes(&self, classes: &[String]) -> Result<Target> {
        let length = self.residues.len();
        let labels: Vec<char> = self.label.chars().collect();
        ensure!(
            labels.len() == length,
            "{length} residues, but {} labels; a label string has one letter a residue",
            labels.len()
        );
        let counts: Vec<bool> = match &self.mask {
            Some(mask) if mask.chars().count() != length => {
                bail!("{length} residues, but a mask of {}", mask.chars().count())
            }
            Some(mask) => mask.chars().map(|flag| flag == '1').collect(),
            None => vec![true; length],
        };
        let mut known = Vec::with_capacity(length);
        for (at, (label, counts)) in labels.iter().zip(counts).enumerate() {
            if !counts || *label == MASKED {
                known.push(None);
                continue;
            }
            let class = class_of(classes, &label.to_string());
            known.push(Some(
                class.with_context(|| format!("label of residue {}", at + 1))?,
            ));
        }
        Ok(Target::Residues(known))
    }
}

fn class_of(classes: &[String], label: &str) -> Result<u32> {
    match classes.iter().position(|class| class == label) {
        Some(class) => Ok(class as u32),
        None => bail!(
            "unknown class {label:?}; the head knows {}",
            classes.join(" ")
        ),
    }
}

fn number(label: &str) -> Result<f64> {
    match label.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(number) => bail!("the label is {number}; leave the row out or give it a number"),
        Err(_) => bail!("the label {label:?} is no number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Set> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        let columns = LabelledColumns {
            label: "y".to_owned(),
            ..LabelledColumns::default()
        };
        Set::read(&path, &columns)
    }

    fn error(text: &str, task: &Task) -> String {
        let error = read(text).and_then(|set| set.targets(task)).unwrap_err();
        format!("{error:#}")
            .rsplit("t.csv: ")
            .next()
            .unwrap()
            .to_owned()
    }

    fn residues() -> Task {
        Task::Residues {
            classes: vec!["H".to_owned(), "E".to_owned()],
        }
    }

    #[test]
    fn masks_and_dashes_do_not_count() {
        let set = read("sequence,y,mask\nMKVA,HE-H,1101\n").unwrap();
        let known = vec![Some(0), Some(1), None, Some(0)];
        assert_eq!(set.targets(&residues()).unwrap(), [Target::Residues(known)]);
        assert_eq!(set.classes(&residues()), ["E", "H"]);
    }

    #[test]
    fn what_does_not_fit_names_its_row() {
        let number = Task::Number;
        let table = [
            (
                "sequence,y\nMK,HE\nMKV,HE\n",
                residues(),
                "record 2 (2), line 3: 3 residues, but 2 labels; a label string has one letter a residue",
            ),
            (
                "id,sequence,y\na,MK,HZ\n",
                residues(),
                "record 1 (a), line 2: label of residue 2: unknown class \"Z\"; the head knows H E",
            ),
            (
                "sequence,y,mask\nMK,HE,1\n",
                residues(),
                "record 1 (1), line 2: 2 residues, but a mask of 1",
            ),
            (
                "sequence,y\nMK,NaN\n",
                number.clone(),
                "record 1 (1), line 2: the label is NaN; leave the row out or give it a number",
            ),
            (
                "sequence,y\nMK,high\n",
                number,
                "record 1 (1), line 2: the label \"high\" is no number",
            ),
        ];
        for (text, task, message) in table {
            assert_eq!(error(text, &task), message);
        }
        assert!(error("sequence,y\nMK,\n", &Task::Number).contains("no row with y"));
        assert!(error("sequence,y\nM1?K,1\n", &Task::Number).contains("record 1"));
    }
}
