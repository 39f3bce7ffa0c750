//! `ankh3 contacts fit`: a head on embeddings, or a regression over attention maps.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::evaluate::{Judged, judge};
use super::known::{self, Known};
use crate::args::{RuntimeArgs, at_least_one, usage};
use crate::commands::Outcome;
use crate::commands::heads::{self, Source, TrainFeatureArgs, TrainingArgs};
use crate::commands::opened::Opened;
use crate::commands::probe::tell;
use crate::inference::contacts::{PairMap, attention};
use crate::model::Encoder;
use crate::output::table::{Table, TableFormat};
use crate::probe::description::{Description, FORMAT, Method, Source as Described, Task};
use crate::probe::head::{Head, Readout, Shape};
use crate::probe::logistic::{Samples, fit};
use crate::probe::loss::Target;
use crate::probe::metrics::contacts::{Range, precision};
use crate::probe::native::{BySeparation, LEAST_SEPARATION};
use crate::probe::parameters::Parameters;
use crate::probe::train::{Epoch, Features, TrainError, Trainer, tensor};

/// The measure by which the best epoch is chosen.
const MEASURE: &str = "long P@L";
/// ESM's weight of the errors against the L1 norm, both as sums.
const ESM_C: f64 = 0.15;

/// Fit a contact head or an attention regression to known structures
///
/// `head` is the paper's: a ConvBERT layer and a linear layer over pairs. `attention` is ESM's: each attention map symmetrised and corrected, weighed by an
/// L1 logistic regression; about 20 structures are enough. The result names the model and prefix it was fitted on.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct FitArgs {
    /// What is fitted.
    #[arg(long, value_enum, default_value = "head")]
    method: FitMethod,

    /// Structures to learn from: PDB, mmCIF, or JSON lines of coordinates.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    structures: Vec<PathBuf>,

    /// Structures that decide which epoch of a head is the best.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    valid: Vec<PathBuf>,

    /// Structures that judge the result.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    test: Vec<PathBuf>,

    /// Learn from the first N chains only.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,

    /// Weight of the L1 norm, per pair [default: ESM's, 1 / (0.15 pairs)]; attention only.
    #[arg(long, value_name = "F")]
    l1: Option<f64>,

    /// The directory to write the result to.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,

    #[command(flatten)]
    features: TrainFeatureArgs,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

const EXAMPLES: &str = "\
Examples:
  ankh3 contacts fit --method attention --model ankh3-large --structures pdb/*.cif.gz --limit 20 -o large-attention
  ankh3 contacts fit --method head --model DIR --structures train.jsonl.gz --valid valid.jsonl.gz --epochs 30 -o DIR/contacts/head

In the model's directory, as contacts/head or contacts/attention, a result is found by itself.";

/// What is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FitMethod {
    /// A head on embeddings.
    Head,
    /// A logistic regression over attention maps.
    Attention,
}

/// Runs the command.
pub(super) fn run(args: &FitArgs) -> Result<Outcome> {
    let sets = Sets::read(&args.structures, &args.valid, &args.test, args.limit)?;
    match args.method {
        FitMethod::Head => head(
            &sets,
            &args.output,
            (&args.features, &args.training, &args.runtime),
        ),
        FitMethod::Attention => regression(&sets, args),
    }
}

/// `ankh3 probe train --task contacts`.
pub(crate) fn fit_head(
    (train, valid, test): (&[PathBuf], &[PathBuf], &[PathBuf]),
    output: &Path,
    how: (&TrainFeatureArgs, &TrainingArgs, &RuntimeArgs),
) -> Result<Outcome> {
    head(&Sets::read(train, valid, test, None)?, output, how)
}

/// Chains to learn from and to be judged by.
struct Sets {
    train: Vec<Known>,
    valid: Vec<Known>,
    test: Vec<Known>,
    data: Map<String, Value>,
}

impl Sets {
    fn read(
        train: &[PathBuf],
        valid: &[PathBuf],
        test: &[PathBuf],
        limit: Option<usize>,
    ) -> Result<Self> {
        let mut data = Map::new();
        for (name, paths) in [("train", train), ("valid", valid), ("test", test)] {
            data.insert(name.to_owned(), json!(heads::names(paths)));
        }
        let sets = Self {
            train: known::read(train, limit)?,
            valid: known::read(valid, None)?,
            test: known::read(test, None)?,
            data,
        };
        let residues: usize = sets.train.iter().map(|known| known.residues.len()).sum();
        tracing::info!(
            "{} chains of {residues} residues to learn from",
            sets.train.len()
        );
        Ok(sets)
    }

    fn by_separation(&self) -> BySeparation {
        BySeparation::count(self.train.iter().map(|known| &known.native))
    }

    fn data(&self) -> Map<String, Value> {
        let mut data = self.data.clone();
        data.insert("train_chains".to_owned(), json!(self.train.len()));
        data
    }
}

fn proteins(chains: &[Known]) -> Vec<heads::Protein<'_>> {
    let each = chains.iter();
    each.map(|known| (known.place.as_str(), known.residues.as_slice()))
        .collect()
}

fn head(
    sets: &Sets,
    output: &Path,
    (features, training, runtime): (&TrainFeatureArgs, &TrainingArgs, &RuntimeArgs),
) -> Result<Outcome> {
    let mut source = Source::open(features, runtime)?;
    let settings = training.settings();
    let shape = Shape {
        width: source.width(),
        body: training.body,
        readout: Readout::Pairs,
        outputs: 2,
    };
    ensure!(
        shape.is_possible(),
        "a convbert head needs rows of a multiple of 4 values, not {}",
        shape.width
    );
    for chains in [&sets.train, &sets.valid, &sets.test] {
        source.prepare(&proteins(chains))?;
    }
    let device = source.compute().device.clone();
    let parameters = Parameters::drawn(&shape.specs(0.0), settings.seed, &device)?;
    let head = Head::new(shape, &parameters)?;
    let targets: Vec<Target> = sets
        .train
        .iter()
        .map(|known| Target::Pairs(known.native.labels()))
        .collect();
    if sets.valid.is_empty() {
        tracing::warn!("no validation structures: the last epoch is kept; add --valid");
    }
    let valid = proteins(&sets.valid);
    let measure = |head: &Head| {
        let maps = maps(head, &source.rows(&valid), valid.len(), &device)?;
        let values = maps
            .iter()
            .zip(&sets.valid)
            .filter_map(|(map, known)| precision(map, &known.native, Range::Long, 1));
        let values: Vec<f64> = values.collect();
        Ok((!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64))
    };
    let trainer = Trainer {
        head: &head,
        parameters: &parameters,
        settings: &settings,
        device: &device,
    };
    let train = proteins(&sets.train);
    let epochs = trainer.run(&source.rows(&train), &targets, measure, |epoch: &Epoch| {
        tell(epoch, MEASURE);
    })?;
    let mut description = Description {
        format: FORMAT.to_owned(),
        name: "contacts".to_owned(),
        source: source.describe()?,
        task: Task::Contacts,
        method: Method::Head { shape, settings },
        by_separation: Some(sets.by_separation()),
        epochs,
        data: sets.data(),
        metrics: Map::new(),
        made_by: source.manifest("contacts fit", &(), None)?.to_map()?,
    };
    let test = proteins(&sets.test);
    let all = [("valid", &sets.valid, &valid), ("test", &sets.test, &test)];
    let mut judged = Vec::new();
    for (name, chains, proteins) in all {
        let maps = maps(&head, &source.rows(proteins), proteins.len(), &device)?;
        judged.push((name, chains, maps));
    }
    finish(&mut description, &judged)?;
    heads::save(output, &description, Some(&parameters))?;
    tracing::info!("the head is in {}", output.display());
    Ok(Outcome::Done)
}

/// Logits of contacts.
fn maps(
    head: &Head,
    rows: &dyn Features,
    count: usize,
    device: &candle_core::Device,
) -> Result<Vec<PairMap>, TrainError> {
    let one = |number: usize| {
        let logits = head.forward(&tensor(rows, number, device)?, None)?;
        let length = logits.dim(0)?;
        Ok(PairMap::new(length, logits.flatten_all()?.to_vec1()?))
    };
    (0..count).map(one).collect()
}

/// Judges, tells, and puts the measures into the description.
fn finish(
    description: &mut Description,
    judged: &[(&str, &Vec<Known>, Vec<PairMap>)],
) -> Result<()> {
    let mut table = Table::create(Path::new("-"), TableFormat::Tsv, &super::evaluate::COLUMNS)?;
    let by_separation = description.by_separation.clone().unwrap_or_default();
    for (name, chains, maps) in judged {
        if chains.is_empty() {
            continue;
        }
        let maps: Vec<&PairMap> = maps.iter().collect();
        let judged: Judged = judge(chains, &maps, &by_separation, 7);
        judged.write(&mut table, name)?;
        description
            .metrics
            .insert((*name).to_owned(), judged.to_json());
    }
    Ok(table.finish()?)
}

fn regression(sets: &Sets, args: &FitArgs) -> Result<Outcome> {
    if args.features.features != heads::FeaturesArg::Model {
        bail!(usage(
            "--method attention needs a model; leave --features out"
        ));
    }
    let common = &args.features.common;
    let opened = Opened::new(&common.model(common.prefix), &args.runtime)?;
    let encoder = opened.load(|loader| Encoder::load(loader, &opened.checkpoint.config))?;
    let samples = samples(sets, &opened, &encoder)?;
    let pairs = samples.answers.len();
    let contacts = samples.answers.iter().filter(|answer| **answer).count();
    ensure!(
        contacts > 0 && contacts < pairs,
        "the structures have no contacts to learn from: {contacts} of {pairs} pairs touch"
    );
    tracing::info!(
        "{pairs} pairs, {contacts} of them contacts, {} attention maps",
        samples.width
    );
    let penalty = args.l1.unwrap_or(1.0 / (ESM_C * pairs as f64));
    let fitted = fit(&samples, penalty, 1e-6, 3000);
    let used = fitted
        .weights
        .iter()
        .filter(|weight| **weight != 0.0)
        .count();
    tracing::info!(
        "{used} maps used after {} steps (within {:.1e} of the minimum)",
        fitted.steps,
        fitted.violation
    );
    let mut description = Description {
        format: FORMAT.to_owned(),
        name: "contacts".to_owned(),
        source: Described::Model {
            model: opened.checkpoint.id(),
            model_hash: opened.checkpoint.model_hash()?,
            prefix: opened.prefix.as_str().to_owned(),
            layers: Vec::new(),
        },
        task: Task::Contacts,
        method: Method::Attention {
            weights: fitted.weights.clone(),
            bias: fitted.bias,
            penalty,
        },
        by_separation: Some(sets.by_separation()),
        epochs: Vec::new(),
        data: sets.data(),
        metrics: Map::new(),
        made_by: opened.manifest("contacts fit", &(), None)?.to_map()?,
    };
    let mut judged = Vec::new();
    for (name, chains) in [("valid", &sets.valid), ("test", &sets.test)] {
        let map = |known: &Known| {
            let encoding = opened
                .checkpoint
                .tokenizer
                .encode(&known.residues, opened.prefix)?;
            Ok(attention::weighted(
                &encoder,
                &encoding,
                &fitted.weights,
                fitted.bias,
            )?)
        };
        judged.push((
            name,
            chains,
            chains.iter().map(map).collect::<Result<Vec<_>>>()?,
        ));
    }
    finish(&mut description, &judged)?;
    heads::save(&args.output, &description, None)?;
    tracing::info!("the regression is in {}", args.output.display());
    Ok(Outcome::Done)
}

/// Pairs that enough memory is there for.
const MOST_VALUES: usize = 1 << 29;

/// The features of all counted pairs; of very many, all contacts' and as many others as memory allows.
fn samples(sets: &Sets, opened: &Opened, encoder: &Encoder) -> Result<Samples> {
    let width = attention::num_features(encoder);
    let mut chosen: Vec<Vec<(usize, usize, bool)>> = sets
        .train
        .iter()
        .map(|known| {
            let native = &known.native;
            let n = native.length();
            (0..n)
                .flat_map(|i| (i + LEAST_SEPARATION..n).map(move |j| (i, j)))
                .filter_map(|(i, j)| Some((i, j, native.touch(i, j)?)))
                .collect()
        })
        .collect();
    let all: usize = chosen.iter().map(Vec::len).sum();
    let most = MOST_VALUES / width;
    if all > most {
        tracing::warn!(
            "{all} pairs of {width} maps do not fit in memory: {most} drawn at random are used; --limit gives fewer structures"
        );
        let mut stream = ChaCha8Rng::seed_from_u64(7);
        for pairs in &mut chosen {
            let keep = (pairs.len() as f64 * most as f64 / all as f64) as usize;
            pairs.shuffle(&mut stream);
            pairs.truncate(keep);
            pairs.sort_unstable();
        }
    }
    let mut samples = Samples {
        width,
        ..Samples::default()
    };
    for (known, pairs) in sets.train.iter().zip(&chosen) {
        let encoding = opened
            .checkpoint
            .tokenizer
            .encode(&known.residues, opened.prefix)?;
        let first = samples.features.len();
        samples.features.resize(first + pairs.len() * width, 0.0);
        attention::features(encoder, &encoding, |number, map| {
            for (row, (i, j, _)) in pairs.iter().enumerate() {
                samples.features[first + row * width + number] = map.get(*i, *j);
            }
        })
        .with_context(|| known.place.clone())?;
        samples
            .answers
            .extend(pairs.iter().map(|(_, _, touch)| *touch));
    }
    Ok(samples)
}
