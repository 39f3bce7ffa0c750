//! A contact map of one protein, by any of the methods.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::RuntimeArgs;
use crate::checkpoint::{BUNDLED, Hub, ModelLocation};
use crate::commands::heads::{self, EmbeddingNotFinite, FeatureArgs, Source, Stored};
use crate::commands::heads::{prefix_of_head, same_model};
use crate::commands::opened::{Opened, TOOL};
use crate::inference::EncoderDecoder;
use crate::inference::contacts::jacobian::{Jacobian, Outputs, from_hidden_states};
use crate::inference::contacts::{PairMap, attention, rounds};
use crate::inference::masked::MaskedModel;
use crate::inference::residues::Residues;
use crate::inference::token_budget::LoadedStacks;
use crate::model::{Decoder, Encoder};
use crate::output::manifest::Manifest;
use crate::probe::description::{Method, Source as Described, Task};
use crate::probe::head::Head;
use crate::probe::native::BySeparation;
use crate::probe::parameters::Parameters;
use crate::probe::train::tensor;

/// How contacts are predicted.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Method")]
pub struct PredictorArgs {
    /// How contacts are predicted [default: head or attention, whichever is fitted for the model].
    #[arg(long, value_enum)]
    pub(crate) method: Option<MethodArg>,

    /// A fitted head or attention regression, made by `ankh3 contacts fit` [default: contacts/METHOD in the model's directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) head: Option<PathBuf>,

    /// What the Jacobian watches.
    #[arg(long, value_enum, default_value = "residues")]
    jacobian_outputs: Outputs,

    /// Residues masked at once while others are substituted, as a share: more passes and a cleaner map the smaller.
    #[arg(long, value_name = "F", default_value = "0.15", value_parser = share)]
    mask_fraction: f64,

    /// Decides which residues are masked together.
    #[arg(long, default_value = "0")]
    seed: u64,

    /// GiB that the Jacobian of one protein may take.
    #[arg(long, value_name = "GIB", default_value = "8")]
    max_memory: f64,
}

/// A method on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodArg {
    /// A head on embeddings, fitted to structures.
    Head,
    /// A logistic regression over attention maps, fitted to structures.
    Attention,
    /// What substitutions do to the model's outputs elsewhere; nothing is fitted. Scores, not probabilities.
    Jacobian,
    /// How often residues that far apart in the chain touch; no model. A baseline.
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

/// Ready to predict.
pub(crate) struct Predictor {
    method: Ready,
    /// How predictions are made.
    pub(crate) manifest: Manifest,
    /// How often residues of the training structures touch, where that is known.
    pub(crate) by_separation: BySeparation,
}

enum Ready {
    Head {
        source: Box<Source>,
        head: Box<Head>,
    },
    Attention {
        opened: Box<Opened>,
        encoder: Box<Encoder>,
        weights: Vec<f64>,
        bias: f64,
    },
    Jacobian(Box<JacobianModel>),
    Separation,
}

struct JacobianModel {
    opened: Opened,
    encoder: Encoder,
    decoder: Option<Decoder>,
    outputs: Outputs,
    fraction: f64,
    seed: u64,
    max_memory: f64,
    max_batch_tokens: usize,
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
            _ => Self::fitted(args, features, runtime, command),
        }
    }

    fn fitted(
        args: &PredictorArgs,
        features: &FeatureArgs,
        runtime: &RuntimeArgs,
        command: &str,
    ) -> Result<Self> {
        let place = match &args.head {
            Some(dir) => ModelLocation::from(dir.clone()),
            None => find(args.method, features)?,
        };
        let stored = heads::load(&place)?;
        let dir = place.name();
        ensure!(
            stored.description.task == Task::Contacts,
            "{}: this head tells no contacts; `ankh3 probe predict` runs it",
            dir.display()
        );
        let is_head = matches!(stored.description.method, Method::Head { .. });
        if let Some(method) = args.method {
            ensure!(
                is_head == (method == MethodArg::Head),
                "{}: this is a {}; leave --method out",
                dir.display(),
                if is_head {
                    "head"
                } else {
                    "regression over attention"
                }
            );
        }
        let by_separation = stored.description.by_separation.clone().unwrap_or_default();
        let settings = PredictorSettings {
            method: if is_head { "head" } else { "attention" },
            head_data: Some(&stored.description.data),
            head_sha256: Some(stored.sha256()?),
            ..PredictorSettings::default()
        };
        let (method, manifest) = match &stored.description.method {
            Method::Head { shape, .. } => {
                let source = Source::of_head(&stored, &dir, features, runtime)?;
                let device = &source.compute().device;
                let parameters =
                    Parameters::from_bytes(&stored.weights, &shape.specs(0.0), device)?;
                let head = Head::new(*shape, &parameters)?;
                let manifest = source.manifest(command, &settings, None)?;
                (
                    Ready::Head {
                        source: Box::new(source),
                        head: Box::new(head),
                    },
                    manifest,
                )
            }
            Method::Attention { weights, bias, .. } => {
                let opened = open_for(&stored, &dir, features, runtime)?;
                let encoder = load_encoder(&opened)?;
                let maps = attention::num_features(&encoder);
                ensure!(
                    weights.len() == maps,
                    "{}: {} weights for {maps} attention maps",
                    dir.display(),
                    weights.len()
                );
                let manifest = opened.manifest(command, &settings, None)?;
                let (weights, bias) = (weights.clone(), *bias);
                (
                    Ready::Attention {
                        opened: Box::new(opened),
                        encoder: Box::new(encoder),
                        weights,
                        bias,
                    },
                    manifest,
                )
            }
        };
        Ok(Self {
            method,
            manifest,
            by_separation,
        })
    }

    fn jacobian(
        args: &PredictorArgs,
        features: &FeatureArgs,
        runtime: &RuntimeArgs,
        command: &str,
    ) -> Result<Self> {
        let opened = Opened::new(&features.model(features.prefix), runtime)?;
        let encoder = load_encoder(&opened)?;
        let outputs = args.jacobian_outputs;
        let decoder = match outputs {
            Outputs::Residues => {
                Some(opened.load(|loader| Decoder::load(loader, &opened.checkpoint.config))?)
            }
            Outputs::Hidden => None,
        };
        let (outputs_name, masked) = match outputs {
            Outputs::Residues => ("residues", true),
            Outputs::Hidden => ("hidden", false),
        };
        let settings = PredictorSettings {
            method: "jacobian",
            jacobian_outputs: Some(outputs_name),
            mask_fraction: masked.then_some(args.mask_fraction),
            seed: masked.then_some(args.seed),
            ..PredictorSettings::default()
        };
        let manifest = opened.manifest(command, &settings, None)?;
        let model = JacobianModel {
            max_batch_tokens: opened.batch_tokens(runtime, LoadedStacks::Both),
            opened,
            encoder,
            decoder,
            outputs,
            fraction: args.mask_fraction,
            seed: args.seed,
            max_memory: args.max_memory,
        };
        Ok(Self {
            method: Ready::Jacobian(Box::new(model)),
            manifest,
            by_separation: BySeparation::default(),
        })
    }

    fn separation(args: &PredictorArgs) -> Result<Self> {
        let by_separation = match &args.head {
            Some(dir) => heads::load(&dir.clone().into())?
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
            method: Ready::Separation,
            manifest,
            by_separation,
        })
    }

    /// What its values are.
    pub(crate) fn value(&self) -> &'static str {
        match self.method {
            Ready::Head { .. } | Ready::Attention { .. } => "probability",
            Ready::Jacobian(_) | Ready::Separation => "score",
        }
    }

    /// Model and method, for people.
    pub(crate) fn description(&self) -> String {
        self.manifest.caption()
    }

    /// The map of one protein; `place` is what messages call it. `None` where the network's result holds NaN or infinity.
    pub(crate) fn predict(
        &mut self,
        id: &str,
        place: &str,
        residues: &[u8],
    ) -> Result<Option<PairMap>> {
        let length = residues.len();
        let map = match &mut self.method {
            Ready::Head { source, head } => {
                let proteins = [(place, residues)];
                match source.prepare_quietly(&proteins) {
                    Err(error) if error.is::<EmbeddingNotFinite>() => return Ok(None),
                    prepared => prepared?,
                }
                let device = source.compute().device.clone();
                let rows = tensor(&source.rows(&proteins), 0, &device)?;
                let logits = head.forward(&rows, None)?.flatten_all()?.to_vec1()?;
                Some(probabilities(PairMap::new(length, logits)))
            }
            Ready::Attention {
                opened,
                encoder,
                weights,
                bias,
            } => {
                let encoding = opened
                    .checkpoint
                    .tokenizer
                    .encode(residues, opened.prefix)?;
                Some(probabilities(attention::weighted(
                    encoder, &encoding, weights, *bias,
                )?))
            }
            Ready::Jacobian(model) => model.predict(id, place, residues)?,
            Ready::Separation => Some(separation_map(&self.by_separation, length)),
        };
        Ok(map.filter(PairMap::is_finite))
    }
}

/// The map of how often residues that far apart touch.
pub(crate) fn separation_map(by_separation: &BySeparation, length: usize) -> PairMap {
    let value = |pair: usize| by_separation.of((pair / length).abs_diff(pair % length));
    PairMap::new(length, (0..length * length).map(value).collect())
}

/// Logits to probabilities.
fn probabilities(mut map: PairMap) -> PairMap {
    for value in map.values_mut() {
        *value = 1.0 / (1.0 + (-*value).exp());
    }
    map
}

fn load_encoder(opened: &Opened) -> Result<Encoder> {
    opened.load(|loader| Encoder::load(loader, &opened.checkpoint.config))
}

/// The model of a head, opened for it.
fn open_for(
    stored: &Stored,
    dir: &Path,
    features: &FeatureArgs,
    runtime: &RuntimeArgs,
) -> Result<Opened> {
    if let Described::Blind { .. } = stored.description.source {
        bail!("{}: attention needs a model", dir.display());
    }
    let prefix = prefix_of_head(stored, dir, features.prefix)?;
    let opened = Opened::new(&features.model(Some(prefix)), runtime)?;
    same_model(stored, dir, &opened)?;
    Ok(opened)
}

/// The head that lies beside the model.
fn find(method: Option<MethodArg>, features: &FeatureArgs) -> Result<ModelLocation> {
    let model = features.model(None).reference()?;
    let place = model.resolve(&Hub::from_env())?;
    let name = features.model.as_deref().unwrap_or(BUNDLED);
    let names: &[&str] = match method {
        Some(MethodArg::Head) => &["head"],
        Some(MethodArg::Attention) => &["attention"],
        _ => &["head", "attention"],
    };
    let mut places = names.iter().map(|name| place.join("contacts").join(name));
    places.find(|place| place.has("head.json")).with_context(|| {
        let looked: Vec<String> = names.iter().map(|name| format!("contacts/{name}")).collect();
        format!(
            "nothing is fitted for {name} (no {} in {place}); fit it with `ankh3 contacts fit --method {} --model {name} --structures FILES -o DIR` and give --head DIR, or use --method jacobian, which needs no fitting",
            looked.join(" or "),
            names[0]
        )
    })
}

impl JacobianModel {
    fn predict(&self, id: &str, place: &str, residues: &[u8]) -> Result<Option<PairMap>> {
        let needed = self.outputs.memory(residues.len()) as f64 / f64::from(1 << 30);
        ensure!(
            needed <= self.max_memory,
            "{place}: the Jacobian of {} residues takes {needed:.1} GiB; give --max-memory {}, or use --jacobian-outputs hidden, --method attention or --method head",
            residues.len(),
            needed.ceil()
        );
        let tokenizer = &self.opened.checkpoint.tokenizer;
        let prefix = self.opened.prefix;
        let Some(decoder) = &self.decoder else {
            let encoding = tokenizer.encode(residues, prefix)?;
            return Ok(from_hidden_states(
                &self.encoder,
                tokenizer,
                &encoding,
                self.max_batch_tokens,
            )?);
        };
        let model = MaskedModel::new(
            EncoderDecoder {
                encoder: &self.encoder,
                decoder,
            },
            tokenizer,
            prefix,
            Residues::standard(tokenizer)?,
            self.max_batch_tokens,
        )?;
        let rounds = rounds(
            id,
            residues.len(),
            self.fraction,
            model.num_sentinels(),
            self.seed,
        );
        let jacobian = Jacobian::compute(&model, residues, &rounds)?;
        Ok(jacobian.map(Jacobian::contact_map))
    }
}
