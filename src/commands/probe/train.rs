//! `ankh3 probe train`: a head on frozen embeddings.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::data::Set;
use super::outcome::{self, chief, measured, outputs};
use super::preset::{Preset, chief_measure};
use crate::args::{RuntimeArgs, at_least_one, usage};
use crate::commands::Outcome;
use crate::commands::contacts::fit_head;
use crate::commands::heads::{self, Source, TrainFeatureArgs, TrainingArgs};
use crate::input::labelled::LabelledColumns;
use crate::output::table::{Table, TableFormat};
use crate::probe::description::{Description, FORMAT, Method, Task};
use crate::probe::head::{Head, Readout, Shape};
use crate::probe::loss::Target;
use crate::probe::parameters::Parameters;
use crate::probe::train::{Epoch, Trainer};
use crate::report::picture::Picture;

/// Train a head on frozen embeddings
///
/// Tables are CSV, TSV or JSON lines with a sequence and a label a row. Measures with 95 % intervals (bootstrap over proteins) go to stdout.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct TrainArgs {
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    features: TrainFeatureArgs,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

const EXAMPLES: &str = "\
Examples:
  ankh3 probe train --model ankh3-large --task ssp3 --train netsurfp2_train.csv.gz --valid netsurfp2_valid.csv.gz --test casp12.csv -o ssp3
  ankh3 probe train --model DIR --task fluorescence --train gfp_tape.csv.gz --split-column split --prefix s2s -o fluorescence
  ankh3 probe train --features onehot --task gb1 --train gb1_flip.csv.gz --split-column two_vs_rest --body linear -o gb1
  ankh3 probe train --model DIR --task residues --train binding.jsonl --label-column site --layers 24,-1 -o binding";

/// What is learnt, from which tables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What")]
struct WhatArgs {
    /// What is predicted: one of the paper's tasks, or a kind of task.
    #[arg(long, value_enum)]
    task: Preset,

    /// The table to learn from; for contacts structures.
    #[arg(long, value_name = "FILE", required = true)]
    train: Vec<PathBuf>,

    /// The table that decides which epoch is the best.
    #[arg(long, value_name = "FILE")]
    valid: Vec<PathBuf>,

    /// Tables that judge the head; nothing is decided by them.
    #[arg(long, value_name = "FILE")]
    test: Vec<PathBuf>,

    /// Rows of the training table belong to train, valid and test by this column.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["valid", "test"])]
    split_column: Option<String>,

    /// The column of sequences [default: sequence, input or seq].
    #[arg(long, value_name = "NAME")]
    sequence_column: Option<String>,

    /// The column of labels [default: by the task].
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,

    /// The column that says with a 1 which residues count [default: mask, if there is one].
    #[arg(long, value_name = "NAME")]
    mask_column: Option<String>,

    /// Learn from at most N rows, evenly spaced in the table.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,

    /// Be judged by at most N rows of each table, evenly spaced.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit_judged: Option<usize>,

    /// How residues become a protein [default: max, as in the paper].
    #[arg(long, value_enum)]
    pooling: Option<PoolingArg>,

    /// The directory to write the head to.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,

    /// Draw the confusion matrix, or predicted against measured numbers, of the last table that judges: .png or .svg.
    #[arg(long, value_name = "PICTURE")]
    plot: Option<PathBuf>,
}

/// [`Readout`] of proteins on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingArg {
    /// The largest value of each dimension.
    Max,
    /// The mean over residues.
    Mean,
}

/// The sets of a run by name; the first is learnt from.
struct Sets {
    train: Set,
    valid: Option<Set>,
    judged: Vec<(String, Set)>,
}

impl WhatArgs {
    fn columns(&self, only: Option<(String, String)>) -> LabelledColumns {
        LabelledColumns {
            sequence: self.sequence_column.clone(),
            label: self.label(),
            mask: self.mask_column.clone(),
            only,
        }
    }

    fn label(&self) -> String {
        self.label_column
            .clone()
            .unwrap_or_else(|| self.task.label().to_owned())
    }

    /// All sets, cut down as asked.
    fn sets(&self) -> Result<Sets> {
        let mut sets = self.whole_sets()?;
        if let Some(limit) = self.limit {
            sets.train.thin(limit);
        }
        if let Some(limit) = self.limit_judged {
            let judged = sets.judged.iter_mut().map(|(_, set)| set);
            judged
                .chain(&mut sets.valid)
                .for_each(|set| set.thin(limit));
        }
        Ok(sets)
    }

    fn whole_sets(&self) -> Result<Sets> {
        let [train] = &self.train[..] else {
            bail!(usage("--train takes one table"));
        };
        let part = |value: &str| {
            self.split_column
                .clone()
                .map(|name| (name, value.to_owned()))
        };
        let mut sets = Sets {
            train: Set::read(train, &self.columns(part("train")))?,
            valid: None,
            judged: Vec::new(),
        };
        if self.split_column.is_some() {
            sets.valid = Some(Set::read(train, &self.columns(part("valid")))?);
            let test = Set::read(train, &self.columns(part("test")))?;
            sets.judged.push(("test".to_owned(), test));
            return Ok(sets);
        }
        match &self.valid[..] {
            [] => tracing::warn!("no validation set: the last epoch is kept; add --valid"),
            [valid] => sets.valid = Some(Set::read(valid, &self.columns(None))?),
            _ => bail!(usage("--valid takes one table")),
        }
        for (path, name) in self.test.iter().zip(heads::names(&self.test)) {
            sets.judged
                .push((name, Set::read(path, &self.columns(None))?));
        }
        Ok(sets)
    }

    fn readout(&self) -> Result<Readout> {
        let readout = self.task.readout();
        match self.pooling {
            None => Ok(readout),
            Some(_) if readout == Readout::Residues => {
                bail!(usage("--pooling is for numbers and classes of proteins"))
            }
            Some(PoolingArg::Max) => Ok(Readout::Max),
            Some(PoolingArg::Mean) => Ok(Readout::Mean),
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &TrainArgs) -> Result<Outcome> {
    let what = &args.what;
    if what.task == Preset::Contacts {
        return fit_head(
            (&what.train, &what.valid, &what.test),
            &what.output,
            (&args.features, &args.training, &args.runtime),
        );
    }
    let picture = what.plot.as_deref().map(Picture::of_path).transpose();
    let picture = picture.map_err(usage)?;
    let readout = what.readout()?;
    let sets = what.sets()?;
    let task = with_classes(what.task.task(), &sets.train)?;
    let targets = Targets::of(&sets, &task)?;
    let mut source = Source::open(&args.features, &args.runtime)?;
    let settings = args.training.settings();
    let shape = Shape {
        width: source.width(),
        body: args.training.body,
        readout,
        outputs: task.classes().len().max(1),
    };
    ensure!(
        shape.is_possible(),
        "a convbert head needs rows of a multiple of 4 values, not {}; choose --body linear or mlp",
        shape.width
    );
    source.prepare(&sets.train.proteins())?;
    for set in sets
        .valid
        .iter()
        .chain(sets.judged.iter().map(|(_, set)| set))
    {
        source.prepare(&set.proteins())?;
    }
    let device = source.compute().device.clone();
    let parameters = Parameters::drawn(&shape.specs(targets.mean()), settings.seed, &device)?;
    let head = Head::new(shape, &parameters)?;
    tracing::info!(
        "a head of {} numbers learns from {} proteins",
        parameters.count(),
        sets.train.examples.len()
    );
    let trainer = Trainer {
        head: &head,
        parameters: &parameters,
        settings: &settings,
        device: &device,
    };
    let proteins = sets.train.proteins();
    let valid = sets.valid.as_ref().map(Set::proteins);
    let judge = |head: &Head| {
        let Some(valid) = &valid else { return Ok(None) };
        let outputs = outputs(head, &source.rows(valid), valid.len(), &device)?;
        Ok(chief(&task, &outputs, &targets.valid))
    };
    let measure = chief_measure(&task);
    let tell = |epoch: &Epoch| tell(epoch, measure);
    let epochs = trainer.run(&source.rows(&proteins), &targets.train, judge, tell)?;

    let mut table = Table::create(Path::new("-"), TableFormat::Tsv, &outcome::COLUMNS)?;
    let mut metrics = Map::new();
    let valid_set = sets
        .valid
        .as_ref()
        .map(|set| ("valid", set, &targets.valid));
    let judged = sets.judged.iter().zip(&targets.judged);
    let judged = judged.map(|((name, set), targets)| (name.as_str(), set, targets));
    let mut last = None;
    for (name, set, targets) in valid_set.into_iter().chain(judged) {
        let proteins = set.proteins();
        let outputs = outputs(&head, &source.rows(&proteins), proteins.len(), &device)?;
        let report = measured(&task, &outputs, targets, settings.seed);
        outcome::write(&mut table, name, &report)?;
        metrics.insert(name.to_owned(), report.to_json(task.classes()));
        last = Some(report);
    }
    let mut data = Map::new();
    data.insert("train".to_owned(), json!(heads::names(&what.train)));
    data.insert(
        "train_proteins".to_owned(),
        json!(sets.train.examples.len()),
    );
    data.insert("valid".to_owned(), json!(heads::names(&what.valid)));
    data.insert("test".to_owned(), json!(heads::names(&what.test)));
    data.insert(
        "split_column".to_owned(),
        Value::from(what.split_column.clone()),
    );
    data.insert("label_column".to_owned(), json!(what.label()));
    let description = Description {
        format: FORMAT.to_owned(),
        name: what.task.name().to_owned(),
        source: source.describe()?,
        task,
        method: Method::Head { shape, settings },
        by_separation: None,
        epochs,
        data,
        metrics,
        made_by: source.manifest("probe train", &(), None)?.to_map()?,
    };
    heads::save(&what.output, &description, Some(&parameters))?;
    if let (Some(picture), Some(report)) = (picture, last) {
        outcome::draw(&picture, &description, &report)?;
    }
    table.finish().context("writing the measures")?;
    tracing::info!("the head is in {}", what.output.display());
    Ok(Outcome::Done)
}

/// An epoch in the log.
pub(crate) fn tell(epoch: &Epoch, measure: &str) {
    let Epoch {
        epoch,
        loss,
        validation,
    } = epoch;
    let shown = validation.map_or(String::new(), |value| {
        format!(", validation {measure} {value:.4}")
    });
    tracing::info!("epoch {epoch}: loss {loss:.4}{shown}");
}

/// Classes that are not given come from what is learnt from.
fn with_classes(task: Task, train: &Set) -> Result<Task> {
    let task = match task {
        Task::Residues { ref classes } if classes.is_empty() => Task::Residues {
            classes: train.classes(&task),
        },
        Task::Classes { .. } => Task::Classes {
            classes: train.classes(&task),
        },
        other => other,
    };
    let count = task.classes().len();
    ensure!(
        task == Task::Number || (2..=1000).contains(&count),
        "the training table has {count} classes; a head tells 2 to 1000 apart (are these numbers? then --task number)"
    );
    Ok(task)
}

/// What is true of each set.
struct Targets {
    train: Vec<Target>,
    valid: Vec<Target>,
    judged: Vec<Vec<Target>>,
}

impl Targets {
    fn of(sets: &Sets, task: &Task) -> Result<Self> {
        Ok(Self {
            train: sets.train.targets(task)?,
            valid: match &sets.valid {
                Some(valid) => valid.targets(task)?,
                None => Vec::new(),
            },
            judged: sets
                .judged
                .iter()
                .map(|(_, set)| set.targets(task))
                .collect::<Result<_>>()?,
        })
    }

    /// The mean of the training numbers, 0 for classes.
    fn mean(&self) -> f64 {
        let values = self.train.iter().filter_map(|target| match target {
            Target::Value(value) => Some(*value),
            _ => None,
        });
        let values: Vec<f64> = values.collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }
}
