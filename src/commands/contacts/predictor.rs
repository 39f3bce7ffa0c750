//! The flags of contact prediction, and opening what they name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::RuntimeArgs;
use crate::checkpoint::{BUNDLED, Hub, ModelLocation};
use crate::commands::heads::{FeatureArgs, OpenedFeatures, StoredHead, open_model_of_head};
use crate::commands::opened::{Opened, TOOL};
use crate::inference::contacts::PairMap;
use crate::inference::contacts::jacobian::Outputs;
use crate::inference::token_budget::LoadedStacks;
use crate::model::{Decoder, Encoder};
use crate::output::manifest::Manifest;
use crate::probe::attention_maps::AttentionReader;
use crate::probe::contact_predictor::{ContactPredictor, JacobianPredictor};
use crate::probe::description::{FittedMethod, PredictionTask};
use crate::probe::features::Protein;
use crate::probe::native::BySeparation;

/// How contacts are predicted.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Method")]
pub struct PredictorArgs {
    /// How contacts are predicted [default: head or attention, whichever is fitted for the model].
    #[arg(long, value_enum)]
    pub(crate) method: Option<MethodArg>,

    /// A fitted head or attention regression, made by `ankh3 contacts fit` [default:
    /// contacts/METHOD in the model's directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) head: Option<PathBuf>,

    /// The outputs of the model that the Jacobian observes.
    #[arg(long, value_enum, default_value = "residues")]
    jacobian_outputs: Outputs,

    /// Share of residues that are masked together while others are substituted; a smaller share
    /// takes more passes and gives a cleaner map.
    #[arg(long, value_name = "F", default_value = "0.15", value_parser = share)]
    mask_fraction: f64,

    /// Random seed that decides which residues are masked together.
    #[arg(long, default_value = "0")]
    seed: u64,

    /// Memory limit of the Jacobian of one protein, in GiB.
    #[arg(long, value_name = "GIB", default_value = "8")]
    max_memory: f64,
}

/// How contacts are predicted, in the words of `--method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodArg {
    /// A head on embeddings, fitted to structures.
    Head,
    /// A logistic regression over attention maps, fitted to structures.
    Attention,
    /// How substitutions change the model's outputs elsewhere; needs no fitting. Gives scores, not
    /// probabilities.
    Jacobian,
    /// How often residues at that separation in the chain touch; needs no model. A baseline.
    Separation,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if 0.0 < share && share <= 1.0 => Ok(share),
        _ => Err("a number above 0 and at most 1, such as 0.15".to_owned()),
    }
}

/// What influences predictions, for the manifest.
#[derive(Default, Serialize)]
struct PredictorSettings<'a> {
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    jacobian_outputs: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_fraction: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_data: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_sha256: Option<String>,
}

/// A method that is ready to predict, and its provenance.
pub(crate) struct Predictor {
    method: ContactPredictor,
    /// For outputs.
    pub(crate) manifest: Manifest,
    /// How often residues of the training structures touch, by separation.
    pub(crate) by_separation: BySeparation,
}

impl Predictor {
    /// Opens what the arguments name.
    pub(crate) fn open(
        args: &PredictorArgs,
        features: &FeatureArgs,
        runtime: &RuntimeArgs,
        command: &str,
    ) -> Result<Self> {
        match args.method {
            Some(MethodArg::Jacobian) => Self::jacobian(args, features, runtime, command),
            Some(MethodArg::Separation) => Self::separation(args),
            _ => {
                let place = match &args.head {
                    Some(dir) => ModelLocation::from(dir.clone()),
                    None => find(args.method, features)?,
                };
                let stored = StoredHead::load(&place)?;
                ensure_method(&stored, args.method)?;
                Self::fitted(&stored, features, runtime, command)
            }
        }
    }

    fn fitted(
        stored: &StoredHead,
        features: &FeatureArgs,
        runtime: &RuntimeArgs,
        command: &str,
    ) -> Result<Self> {
        let (method, mut manifest) = match &stored.description.method {
            FittedMethod::Head { .. } => {
                let opened = OpenedFeatures::of_head(stored, features, runtime, command)?;
                let method = ContactPredictor::Head {
                    head: Box::new(stored.head(&opened.device)?),
                    source: opened.source,
                };
                (method, opened.manifest)
            }
            FittedMethod::Attention { weights, bias, .. } => {
                let opened = open_model_of_head(stored, features, runtime)?;
                let reader = attention_reader(&opened)?;
                ensure!(
                    weights.len() == reader.maps(),
                    "{}: {} weights for {} attention maps",
                    stored.dir.display(),
                    weights.len(),
                    reader.maps()
                );
                let method = ContactPredictor::Attention {
                    reader: Box::new(reader),
                    weights: weights.clone(),
                    bias: *bias,
                };
                (method, opened.manifest(command, &(), None)?)
            }
        };
        manifest.set_settings(&PredictorSettings {
            method: method_name(stored),
            head_data: Some(&stored.description.data),
            head_sha256: Some(stored.sha256()?),
            ..PredictorSettings::default()
        })?;
        Ok(Self {
            method,
            manifest,
            by_separation: stored.description.by_separation.clone().unwrap_or_default(),
        })
    }

    fn jacobian(
        args: &PredictorArgs,
        features: &FeatureArgs,
        runtime: &RuntimeArgs,
        command: &str,
    ) -> Result<Self> {
        let opened = Opened::new(&features.model(features.prefix), runtime)?;
        let config = &opened.checkpoint.config;
        let encoder = opened.load(|loader| Encoder::load(loader, config))?;
        let decoder = match args.jacobian_outputs {
            Outputs::Residues => Some(opened.load(|loader| Decoder::load(loader, config))?),
            Outputs::Hidden => None,
        };
        let (outputs, masked) = match args.jacobian_outputs {
            Outputs::Residues => ("residues", true),
            Outputs::Hidden => ("hidden", false),
        };
        let settings = PredictorSettings {
            method: "jacobian",
            jacobian_outputs: Some(outputs),
            mask_fraction: masked.then_some(args.mask_fraction),
            seed: masked.then_some(args.seed),
            ..PredictorSettings::default()
        };
        let manifest = opened.manifest(command, &settings, None)?;
        let predictor = JacobianPredictor {
            encoder,
            decoder,
            tokenizer: opened.checkpoint.tokenizer.clone(),
            prefix: opened.prefix,
            mask_fraction: args.mask_fraction,
            seed: args.seed,
            max_memory: args.max_memory,
            max_batch_tokens: opened.batch_tokens(runtime, LoadedStacks::Both),
        };
        Ok(Self {
            method: ContactPredictor::Jacobian(Box::new(predictor)),
            manifest,
            by_separation: BySeparation::default(),
        })
    }

    fn separation(args: &PredictorArgs) -> Result<Self> {
        let by_separation = match &args.head {
            Some(dir) => StoredHead::load(&dir.clone().into())?
                .description
                .by_separation
                .unwrap_or_default(),
            None => BySeparation::default(),
        };
        let mut manifest = Manifest {
            tool: Some(TOOL.to_owned()),
            ..Manifest::default()
        };
        manifest.set_settings(&PredictorSettings {
            method: "separation",
            ..PredictorSettings::default()
        })?;
        Ok(Self {
            method: ContactPredictor::Separation(by_separation.clone()),
            manifest,
            by_separation,
        })
    }

    /// What a value of a map is: `probability` or `score`.
    pub(crate) fn value(&self) -> &'static str {
        self.method.value()
    }

    /// Model and method in words, for pictures.
    pub(crate) fn description(&self) -> String {
        self.manifest.caption()
    }

    /// The map of one protein; `name` is the protein's name in messages. `None` where the model's
    /// result holds NaN or infinity.
    pub(crate) fn predict(
        &mut self,
        id: &str,
        name: &str,
        residues: &[u8],
    ) -> Result<Option<PairMap>> {
        Ok(self.method.predict(id, Protein { name, residues })?)
    }
}

/// The encoder of a model, opened for its attention maps.
pub(super) fn attention_reader(opened: &Opened) -> Result<AttentionReader> {
    let checkpoint = &opened.checkpoint;
    Ok(AttentionReader {
        encoder: opened.load(|loader| Encoder::load(loader, &checkpoint.config))?,
        tokenizer: checkpoint.tokenizer.clone(),
        prefix: opened.prefix,
    })
}

/// The method of a fitted head on the command line.
fn method_name(stored: &StoredHead) -> &'static str {
    match stored.description.method {
        FittedMethod::Head { .. } => "head",
        FittedMethod::Attention { .. } => "attention",
    }
}

/// Rejects a head for other tasks, and one of another method than asked for.
fn ensure_method(stored: &StoredHead, asked: Option<MethodArg>) -> Result<()> {
    let dir = stored.dir.display();
    ensure!(
        stored.description.task == PredictionTask::Contacts,
        "{dir}: this head predicts no contacts; use `ankh3 probe predict` for it"
    );
    let fits = match asked {
        Some(MethodArg::Head) => method_name(stored) == "head",
        Some(MethodArg::Attention) => method_name(stored) == "attention",
        _ => true,
    };
    ensure!(
        fits,
        "{dir}: this was fitted by --method {}; leave --method out",
        method_name(stored)
    );
    Ok(())
}

/// The head in the model's own directory.
fn find(method: Option<MethodArg>, features: &FeatureArgs) -> Result<ModelLocation> {
    let model = features.model(None).reference()?;
    let place = model.resolve(&Hub::from_env())?;
    let name = features.model.as_deref().unwrap_or(BUNDLED);
    let names: &[&str] = match method {
        Some(MethodArg::Head) => &["head"],
        Some(MethodArg::Attention) => &["attention"],
        _ => &["head", "attention"],
    };
    let contacts = Path::new("contacts");
    let paths: Vec<PathBuf> = names.iter().map(|name| contacts.join(name)).collect();
    let mut places = paths.iter().map(|path| place.join(path));
    places.find(|place| place.has("head.json")).with_context(|| {
        let searched: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        format!(
            "nothing is fitted for {name} (no {} in {place}); fit it with `ankh3 contacts fit --method {} --model {name} --structures FILES -o DIR` and give --head DIR, or use --method jacobian, which needs no fitting",
            searched.join(" or "),
            names[0]
        )
    })
}
