//! The tables of `probe train`: training, validation and test sets, from files of their own or
//! split by a column.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use super::data::{LabelledSet, read_rows};
use super::task::ProbeTask;
use crate::args::{at_least_one, usage};
use crate::commands::heads;
use crate::input::labelled::{LabelledColumns, LabelledRow, SPLIT_NAME};
use crate::probe::description::PredictionTask;
use crate::probe::loss::Label;

/// The tables that a head is trained on.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tables")]
pub struct TableArgs {
    /// The training table; structures with --task contacts.
    #[arg(long, value_name = "FILE", required = true)]
    pub(super) train: Vec<PathBuf>,

    /// The validation table, by which the best epoch is chosen.
    #[arg(long, value_name = "FILE")]
    pub(super) valid: Vec<PathBuf>,

    /// Test tables, on which the trained head is evaluated; they influence nothing.
    #[arg(long, value_name = "FILE")]
    pub(super) test: Vec<PathBuf>,

    /// The column of the training table that says which rows are for training, validation and test:
    /// train, valid or test [default: split, if there is one].
    #[arg(long, value_name = "NAME", conflicts_with_all = ["valid", "test"])]
    split_column: Option<String>,

    /// Train on every row of the training table, even if the table has a column called split.
    #[arg(long, conflicts_with = "split_column")]
    ignore_split_column: bool,

    /// The column of sequences [default: sequence, input or seq].
    #[arg(long, value_name = "NAME")]
    sequence_column: Option<String>,

    /// The column of labels [default: by the task].
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,

    /// The column that marks with a 1 each residue that counts [default: mask, if there is one].
    #[arg(long, value_name = "NAME")]
    mask_column: Option<String>,

    /// Train on at most N rows, evenly spaced in the table; on the first N chains with --task
    /// contacts.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(super) limit: Option<usize>,

    /// Evaluate on at most N rows of each validation and test table, evenly spaced.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit_judged: Option<usize>,
}

/// Rows with the labels of a task.
pub(super) struct NamedSet {
    pub(super) name: String,
    pub(super) rows: LabelledSet,
    pub(super) labels: Vec<Label>,
}

/// Everything that a head is trained and evaluated on.
pub(super) struct TrainingSets {
    pub(super) train: NamedSet,
    pub(super) valid: Option<NamedSet>,
    pub(super) tests: Vec<NamedSet>,
    /// The task, with all classes.
    pub(super) task: PredictionTask,
    /// For the description of the head.
    pub(super) data: Map<String, Value>,
}

impl TrainingSets {
    /// Reads the tables, cuts them down to the limits, and interprets their labels.
    pub(super) fn read(args: &TableArgs, task: ProbeTask) -> Result<Self> {
        let mut tables = Tables::read(args, task)?;
        if let Some(limit) = args.limit {
            tables.train.thin(limit);
        }
        if let Some(limit) = args.limit_judged {
            let tests = tables.tests.iter_mut().map(|(_, rows)| rows);
            let evaluated = tests.chain(&mut tables.valid);
            evaluated.for_each(|rows| rows.thin(limit));
        }
        let task_with_classes = with_classes(task.prediction(), &tables.train)?;
        let named = |(name, rows): (String, LabelledSet)| {
            Ok(NamedSet {
                labels: rows.labels(&task_with_classes)?,
                name,
                rows,
            })
        };
        let data = args.description(task, &tables);
        Ok(Self {
            train: named(("train".to_owned(), tables.train))?,
            valid: tables
                .valid
                .map(|rows| named(("valid".to_owned(), rows)))
                .transpose()?,
            tests: tables.tests.into_iter().map(named).collect::<Result<_>>()?,
            task: task_with_classes,
            data,
        })
    }

    /// The validation set and the test sets.
    pub(super) fn evaluated(&self) -> impl Iterator<Item = &NamedSet> {
        self.valid.iter().chain(&self.tests)
    }
}

/// The tables as they were read.
struct Tables {
    train: LabelledSet,
    valid: Option<LabelledSet>,
    /// By name.
    tests: Vec<(String, LabelledSet)>,
    /// The column that splits the training table.
    split_column: Option<String>,
}

impl Tables {
    fn read(args: &TableArgs, task: ProbeTask) -> Result<Self> {
        let [path] = &args.train[..] else {
            bail!(usage("--train takes one table"));
        };
        let columns = args.columns(task);
        let with_split = LabelledColumns {
            split: args.split_column.clone(),
            ..columns.clone()
        };
        let rows = read_rows(path, &with_split)?;
        let mut tables = match args.split_of(&rows) {
            Some(column) => Self::split(path, rows, column)?,
            None => Self {
                train: LabelledSet::of_rows(path, rows.into_iter().enumerate())?,
                valid: None,
                tests: Vec::new(),
                split_column: None,
            },
        };
        match &args.valid[..] {
            [] => {}
            [valid] => tables.valid = Some(LabelledSet::read(valid, &columns)?),
            _ => bail!(usage("--valid takes one table")),
        }
        if !args.test.is_empty() {
            let named = args.test.iter().zip(heads::names(&args.test));
            let read =
                |(path, name): (&PathBuf, String)| Ok((name, LabelledSet::read(path, &columns)?));
            tables.tests = named.map(read).collect::<Result<_>>()?;
        }
        Ok(tables)
    }

    /// Splits a table by the values train, valid and test of a column.
    fn split(path: &Path, rows: Vec<LabelledRow>, column: &str) -> Result<Self> {
        let all = rows.len();
        let (mut train, mut valid, mut test) = (Vec::new(), Vec::new(), Vec::new());
        for (number, row) in rows.into_iter().enumerate() {
            match row.split.as_deref() {
                Some("train") => train.push((number, row)),
                Some("valid") => valid.push((number, row)),
                Some("test") => test.push((number, row)),
                _ => {}
            }
        }
        tracing::info!(
            "{}: column {column} splits the rows: {} train, {} valid, {} test, {} not used (--split-column NAME names another column, --ignore-split-column trains on all rows)",
            path.display(),
            train.len(),
            valid.len(),
            test.len(),
            all - train.len() - valid.len() - test.len()
        );
        ensure!(
            !train.is_empty(),
            "{}: no row where {column} is train; name another column with --split-column, or train on all rows with --ignore-split-column",
            path.display()
        );
        let set = |rows: Vec<(usize, LabelledRow)>| -> Result<Option<LabelledSet>> {
            let set = (!rows.is_empty()).then(|| LabelledSet::of_rows(path, rows));
            set.transpose()
        };
        Ok(Self {
            train: LabelledSet::of_rows(path, train)?,
            valid: set(valid)?,
            tests: set(test)?
                .map(|rows| ("test".to_owned(), rows))
                .into_iter()
                .collect(),
            split_column: Some(column.to_owned()),
        })
    }
}

impl TableArgs {
    fn columns(&self, task: ProbeTask) -> LabelledColumns {
        LabelledColumns {
            sequence: self.sequence_column.clone(),
            label: self.label(task),
            mask: self.mask_column.clone(),
            split: None,
            only: None,
        }
    }

    fn label(&self, task: ProbeTask) -> String {
        self.label_column
            .clone()
            .unwrap_or_else(|| task.label_column().to_owned())
    }

    /// The column that splits the training table.
    fn split_of(&self, rows: &[LabelledRow]) -> Option<&str> {
        let has_split = rows.iter().any(|row| row.split.is_some());
        let default = (has_split && !self.ignore_split_column).then_some(SPLIT_NAME);
        self.split_column.as_deref().or(default)
    }

    /// The files and columns, for the description of the head.
    fn description(&self, task: ProbeTask, tables: &Tables) -> Map<String, Value> {
        let mut data = Map::new();
        let mut put = |key: &str, value: Value| data.insert(key.to_owned(), value);
        put("train", json!(heads::names(&self.train)));
        put("train_proteins", json!(tables.train.len()));
        put("valid", json!(heads::names(&self.valid)));
        put("test", json!(heads::names(&self.test)));
        put("split_column", json!(tables.split_column));
        put("label_column", json!(self.label(task)));
        data
    }
}

/// The task with the classes of the training set, where the task leaves them open.
fn with_classes(task: PredictionTask, train: &LabelledSet) -> Result<PredictionTask> {
    let task = match task {
        PredictionTask::Residues { ref classes } if classes.is_empty() => {
            PredictionTask::Residues {
                classes: train.classes(&task),
            }
        }
        PredictionTask::Classes { .. } => PredictionTask::Classes {
            classes: train.classes(&task),
        },
        other => other,
    };
    let count = task.classes().len();
    ensure!(
        task == PredictionTask::Number || (2..=1000).contains(&count),
        "the training table has {count} classes; a head can have 2 to 1000 (are the labels numbers? Then use --task number)"
    );
    Ok(task)
}
