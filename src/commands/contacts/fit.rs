//! `ankh3 contacts fit`: a head on embeddings, or a regression over attention maps.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::chain_sets::{ChainSets, StructureFiles, proteins};
use super::predictor::attention_reader;
use super::{SEED, table};
use crate::args::{RuntimeArgs, at_least_one, usage};
use crate::commands::Outcome;
use crate::commands::heads::{self, FeaturesArg, OpenedFeatures, TrainFeatureArgs, TrainingArgs};
use crate::commands::opened::Opened;
use crate::inference::contacts::PairMap;
use crate::output::table::{Table, TableFormat};
use crate::probe::contact_evaluation::ContactEvaluation;
use crate::probe::description::{
    FORMAT, FeatureOrigin, FittedMethod, HeadDescription, PredictionTask,
};
use crate::probe::error::ProbeError;
use crate::probe::fit::{Examples, FitPlan, Fitted, fit};
use crate::probe::head::{Head, HeadShape, Readout};
use crate::probe::loss::Label;
use crate::probe::metrics::contacts::mean_long_precision;
use crate::probe::native::{BySeparation, KnownChain};
use crate::probe::outputs::contact_logits;

/// Fit a contact head or an attention regression to known structures
///
/// `head` is the head of the Ankh papers: a ConvBERT layer and a linear layer over pairs.
/// `attention` follows ESM (Rao et al. 2021): every attention map is symmetrised and corrected
/// (APC), and an L1 logistic regression weighs the maps; about 20 structures are enough. The
/// regression differs from ESM's in two points: maps are standardised before they are penalised,
/// and the bias is not penalised. A fitted head or regression names the model and prefix that it
/// was fitted on.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct FitArgs {
    /// What is fitted.
    #[arg(long, value_enum, default_value = "head")]
    method: FitMethod,

    /// Training structures: PDB, mmCIF, or JSON lines of coordinates.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    structures: Vec<PathBuf>,

    /// Validation structures, by which the best epoch of a head is chosen.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    valid: Vec<PathBuf>,

    /// Test structures, on which the result is evaluated.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    test: Vec<PathBuf>,

    /// Train on the first N chains only.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,

    /// Weight of the L1 norm of the regression over standardised maps, against the mean loss per
    /// pair [default: 1 / (0.15 · pairs), the strength of ESM's C = 0.15]; with --method attention
    /// only.
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

predict-contacts finds a result by itself in the model's directory, as contacts/head or contacts/attention.";

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
    let files = StructureFiles {
        train: &args.structures,
        valid: &args.valid,
        test: &args.test,
        limit: args.limit,
    };
    heads::check_folder(&args.output)?;
    match args.method {
        FitMethod::Head => fit_head(
            &files,
            &args.output,
            &args.features,
            &args.training,
            &args.runtime,
        ),
        FitMethod::Attention => fit_attention(&files, args),
    }
}

/// Fits a head: `ankh3 contacts fit --method head` and `ankh3 probe train --task contacts`.
pub(crate) fn fit_head(
    files: &StructureFiles<'_>,
    output: &Path,
    features: &TrainFeatureArgs,
    training: &TrainingArgs,
    runtime: &RuntimeArgs,
) -> Result<Outcome> {
    let sets = ChainSets::read(files)?;
    let mut opened = OpenedFeatures::for_training(features, runtime, "contacts fit")?;
    let plan = FitPlan {
        shape: HeadShape {
            width: opened.source.width(),
            body: training.body,
            readout: Readout::Pairs,
            outputs: 2,
        },
        settings: training.settings(),
        device: opened.device.clone(),
        measure: PredictionTask::Contacts.chief_measure(),
    };
    plan.shape.check()?;
    for chains in [&sets.train, &sets.valid, &sets.test] {
        opened.prepare(&proteins(chains))?;
    }
    let fitted = train(&plan, &sets, &opened)?;
    let method = FittedMethod::Head {
        shape: plan.shape,
        settings: plan.settings,
    };
    let origin = opened.origin.clone();
    let mut description = describe(&sets, origin, method, opened.manifest.to_map()?);
    description.epochs = fitted.epochs;
    description.metrics = evaluate(&sets, &description, |chains| {
        Ok(maps(&fitted.head, &opened, chains)?)
    })?;
    heads::save(output, &description, Some(&fitted.weights))?;
    tracing::info!("wrote the head to {}", output.display());
    Ok(Outcome::Done)
}

fn train(plan: &FitPlan, sets: &ChainSets, opened: &OpenedFeatures) -> Result<Fitted> {
    let labels: Vec<Label> = sets
        .train
        .iter()
        .map(|chain| Label::Pairs(chain.native.labels()))
        .collect();
    let proteins = proteins(&sets.train);
    let examples = Examples {
        features: opened.source.features(&proteins),
        labels: &labels,
    };
    if sets.valid.is_empty() {
        return Ok(fit(plan, &examples, None)?);
    }
    let judge = |head: &Head| {
        let maps = maps(head, opened, &sets.valid)?;
        Ok(mean_long_precision(&maps, &sets.valid))
    };
    Ok(fit(plan, &examples, Some(&judge))?)
}

/// The logits of contacts of every chain.
fn maps(
    head: &Head,
    opened: &OpenedFeatures,
    chains: &[KnownChain],
) -> Result<Vec<PairMap>, ProbeError> {
    let proteins = proteins(chains);
    let features = opened.source.features(&proteins);
    let one = |number| contact_logits(head, &features, number);
    (0..chains.len()).map(one).collect()
}

/// Fits a regression over attention maps.
fn fit_attention(files: &StructureFiles<'_>, args: &FitArgs) -> Result<Outcome> {
    if args.features.features != FeaturesArg::Model {
        bail!(usage(
            "--method attention needs a model; leave --features out"
        ));
    }
    let sets = ChainSets::read(files)?;
    let common = &args.features.common;
    let opened = Opened::new(&common.model(common.prefix), &args.runtime)?;
    let reader = attention_reader(&opened)?;
    let fitted = reader.fit(&sets.train, args.l1)?;
    let origin = FeatureOrigin::Model {
        model: opened.checkpoint.id(),
        model_hash: opened.checkpoint.model_hash()?,
        prefix: opened.prefix.as_str().to_owned(),
        layers: Vec::new(),
    };
    let method = FittedMethod::Attention {
        weights: fitted.weights.clone(),
        bias: fitted.bias,
        penalty: fitted.penalty,
    };
    let made_by = opened.manifest("contacts fit", &(), None)?.to_map()?;
    let mut description = describe(&sets, origin, method, made_by);
    let map = |chain: &KnownChain| {
        let logits = reader.logits(&chain.residues, &fitted.weights, fitted.bias);
        Ok(logits?)
    };
    description.metrics = evaluate(&sets, &description, |chains| {
        chains.iter().map(map).collect()
    })?;
    heads::save(&args.output, &description, None)?;
    tracing::info!("wrote the regression to {}", args.output.display());
    Ok(Outcome::Done)
}

/// The description of a result that is not evaluated yet.
fn describe(
    sets: &ChainSets,
    source: FeatureOrigin,
    method: FittedMethod,
    made_by: Map<String, Value>,
) -> HeadDescription {
    let natives = sets.train.iter().map(|chain| &chain.native);
    HeadDescription {
        format: FORMAT.to_owned(),
        name: "contacts".to_owned(),
        source,
        task: PredictionTask::Contacts,
        method,
        by_separation: Some(BySeparation::count(natives)),
        epochs: Vec::new(),
        data: sets.data.clone(),
        metrics: Map::new(),
        made_by,
    }
}

/// Precisions on the validation and test sets: the table to stdout, the means returned.
fn evaluate(
    sets: &ChainSets,
    description: &HeadDescription,
    maps: impl Fn(&[KnownChain]) -> Result<Vec<PairMap>>,
) -> Result<Map<String, Value>> {
    let mut table = Table::create(Path::new("-"), TableFormat::Tsv, &table::COLUMNS)?;
    let by_separation = description.by_separation.clone().unwrap_or_default();
    let mut metrics = Map::new();
    for (name, chains) in sets.evaluated() {
        if chains.is_empty() {
            continue;
        }
        let evaluation = ContactEvaluation::new(chains, &maps(chains)?, &by_separation, SEED);
        table::write(&mut table, name, &evaluation)?;
        metrics.insert(name.to_owned(), evaluation.to_json());
    }
    table.finish()?;
    Ok(metrics)
}
