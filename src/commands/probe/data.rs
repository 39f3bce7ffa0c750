//! Proteins with labels from tables; a row that does not fit is an error that names the row.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::input::labelled::{LabelledColumns, LabelledRow, read_labelled};
use crate::input::table::DecimalMark;
use crate::probe::description::PredictionTask;
use crate::probe::features::Protein;
use crate::probe::loss::Label;
use crate::sequence::{Origin, Record, Rules, clean, counted};

/// The label of a residue that does not count.
const MASKED: char = '-';

/// A row of a table, its sequence cleaned.
#[derive(Clone, Debug)]
pub(super) struct LabelledProtein {
    /// The row's name in messages.
    name: String,
    residues: Vec<u8>,
    label: String,
    decimal_mark: DecimalMark,
    mask: Option<String>,
}

/// The rows of a table, or of a part of it.
#[derive(Clone, Debug)]
pub(super) struct LabelledSet {
    rows: Vec<LabelledProtein>,
}

/// Reads the labelled rows of a table.
pub(super) fn read_rows(path: &Path, columns: &LabelledColumns) -> Result<Vec<LabelledRow>> {
    let labelled = read_labelled(path, columns)?;
    if labelled.unlabelled > 0 {
        tracing::warn!(
            "{}: {} without {} left out",
            path.display(),
            counted(labelled.unlabelled, "row"),
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
    Ok(labelled.rows)
}

impl LabelledSet {
    /// Reads all labelled rows of a table.
    pub(super) fn read(path: &Path, columns: &LabelledColumns) -> Result<Self> {
        let rows = read_rows(path, columns)?;
        Self::of_rows(path, rows.into_iter().enumerate())
    }

    /// The set of these rows, each with its number in the table.
    pub(super) fn of_rows(
        path: &Path,
        rows: impl IntoIterator<Item = (usize, LabelledRow)>,
    ) -> Result<Self> {
        let rows = rows.into_iter();
        let rows = rows.map(|(number, row)| labelled_protein(path, number, row));
        Ok(Self {
            rows: rows.collect::<Result<_>>()?,
        })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The sequences.
    pub(super) fn proteins(&self) -> Vec<Protein<'_>> {
        let each = self.rows.iter().map(|row| Protein {
            name: &row.name,
            residues: &row.residues,
        });
        each.collect()
    }

    /// Keeps at most `count` rows, evenly spaced, since tables are often sorted.
    pub(super) fn thin(&mut self, count: usize) {
        let all = self.rows.len();
        if all > count {
            let rows = (0..count).map(|k| self.rows[k * all / count].clone());
            self.rows = rows.collect();
        }
    }

    /// The classes that occur, in order.
    pub(super) fn classes(&self, task: &PredictionTask) -> Vec<String> {
        let mut classes = BTreeSet::new();
        for row in &self.rows {
            if let PredictionTask::Residues { .. } = task {
                let counted = row.label.chars().filter(|class| *class != MASKED);
                classes.extend(counted.map(String::from));
            } else {
                classes.insert(row.label.clone());
            }
        }
        classes.into_iter().collect()
    }

    /// The label of each row.
    pub(super) fn labels(&self, task: &PredictionTask) -> Result<Vec<Label>> {
        self.rows.iter().map(|row| row.label(task)).collect()
    }
}

fn labelled_protein(path: &Path, number: usize, row: LabelledRow) -> Result<LabelledProtein> {
    let LabelledRow {
        id,
        sequence,
        label,
        decimal_mark,
        mask,
        line,
        ..
    } = row;
    let name = format!(
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
    Ok(LabelledProtein {
        name,
        residues: sequence.residues,
        label,
        decimal_mark,
        mask,
    })
}

impl LabelledProtein {
    fn label(&self, task: &PredictionTask) -> Result<Label> {
        let label = match task {
            PredictionTask::Residues { classes } => self.residue_classes(classes),
            PredictionTask::Classes { classes } => class_of(classes, &self.label).map(Label::Class),
            PredictionTask::Number => number(&self.label, self.decimal_mark).map(Label::Value),
            PredictionTask::Contacts => bail!("contacts have no labels in tables"),
        };
        label.with_context(|| self.name.clone())
    }

    fn residue_classes(&self, classes: &[String]) -> Result<Label> {
        let length = self.residues.len();
        let labels: Vec<char> = self.label.chars().collect();
        ensure!(
            labels.len() == length,
            "{length} residues, but {} labels; a label string has one letter per residue",
            labels.len()
        );
        let counts = self.counts(length)?;
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
        Ok(Label::Residues(known))
    }

    /// Whether each residue counts, by the mask.
    fn counts(&self, length: usize) -> Result<Vec<bool>> {
        match &self.mask {
            Some(mask) if mask.chars().count() != length => {
                bail!("{length} residues, but a mask of {}", mask.chars().count())
            }
            Some(mask) => Ok(mask.chars().map(|flag| flag == '1').collect()),
            None => Ok(vec![true; length]),
        }
    }
}

fn class_of(classes: &[String], label: &str) -> Result<u32> {
    match classes.iter().position(|class| class == label) {
        Some(class) => Ok(class as u32),
        None => bail!(
            "unknown class {label:?}; the head has the classes {}",
            classes.join(" ")
        ),
    }
}

fn number(label: &str, decimal_mark: DecimalMark) -> Result<f64> {
    if let Some(number) = decimal_mark.number(label) {
        return Ok(number);
    }
    match label.parse::<f64>() {
        Ok(number) => bail!("the label is {number}; leave the row out or give it a number"),
        Err(_) => bail!("the label {label:?} is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LabelledSet> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        let columns = LabelledColumns {
            label: "y".to_owned(),
            ..LabelledColumns::default()
        };
        LabelledSet::read(&path, &columns)
    }

    fn error(text: &str, task: &PredictionTask) -> String {
        let error = read(text).and_then(|set| set.labels(task)).unwrap_err();
        format!("{error:#}")
            .rsplit("t.csv: ")
            .next()
            .unwrap()
            .to_owned()
    }

    fn residues() -> PredictionTask {
        PredictionTask::Residues {
            classes: vec!["H".to_owned(), "E".to_owned()],
        }
    }

    #[test]
    fn masks_and_dashes_do_not_count() {
        let set = read("sequence,y,mask\nMKVA,HE-H,1101\n").unwrap();
        let known = vec![Some(0), Some(1), None, Some(0)];
        assert_eq!(set.labels(&residues()).unwrap(), [Label::Residues(known)]);
        assert_eq!(set.classes(&residues()), ["E", "H"]);
    }

    #[test]
    fn errors_name_their_row() {
        let number = PredictionTask::Number;
        let table = [
            (
                "sequence,y\nMK,HE\nMKV,HE\n",
                residues(),
                "record 2 (2), line 3: 3 residues, but 2 labels; a label string has one letter per residue",
            ),
            (
                "id,sequence,y\na,MK,HZ\n",
                residues(),
                "record 1 (a), line 2: label of residue 2: unknown class \"Z\"; the head has the classes H E",
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
                "record 1 (1), line 2: the label \"high\" is not a number",
            ),
        ];
        for (text, task, message) in table {
            assert_eq!(error(text, &task), message);
        }
        assert!(error("sequence,y\nMK,\n", &PredictionTask::Number).contains("no row with y"));
        assert!(error("sequence,y\nM1?K,1\n", &PredictionTask::Number).contains("record 1"));
    }
}
