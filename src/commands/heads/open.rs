//! Opens what a head reads: a model's encoder with its cache of embeddings, or an encoding of
//! residues.

use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::Device;
use serde::Serialize;
use serde_json::json;

use super::file::DESCRIPTION;
use super::{FeatureArgs, FeaturesArg, StoredHead, TrainFeatureArgs};
use crate::args::{RuntimeArgs, usage};
use crate::commands::embedding_flags::resolve_layers;
use crate::commands::opened::{Opened, TOOL};
use crate::device::Compute;
use crate::inference::token_budget::LoadedStacks;
use crate::model::Encoder;
use crate::output::manifest::Manifest;
use crate::probe::description::FeatureOrigin;
use crate::probe::features::{FeatureSource, ModelFeatures, Protein};
use crate::probe::residue_encoding::ResidueEncoding;
use crate::probe::row_cache::RowCache;
use crate::progress::Progress;
use crate::sequence::counted;
use crate::tokenizer::TaskPrefix;

/// Proteins per update of the progress bar.
const GROUP: usize = 64;

/// A source of features, where heads on it run, and its provenance.
pub(crate) struct OpenedFeatures {
    pub(crate) source: FeatureSource,
    pub(crate) device: Device,
    /// For the description of a head.
    pub(crate) origin: FeatureOrigin,
    /// For outputs. An encoding of residues is in it; the command adds its own settings.
    pub(crate) manifest: Manifest,
}

impl OpenedFeatures {
    /// Opens what a new head will read.
    pub(crate) fn for_training(
        args: &TrainFeatureArgs,
        runtime: &RuntimeArgs,
        command: &str,
    ) -> Result<Self> {
        let encoding = match args.features {
            FeaturesArg::Model => {
                let common = &args.common;
                let opened = Opened::new(&common.model(common.prefix), runtime)?;
                let layers = resolve_layers(&args.layers, opened.checkpoint.config.num_layers)?;
                return Self::of_model(&opened, layers, common, runtime, command);
            }
            FeaturesArg::Onehot => ResidueEncoding::OneHot,
            FeaturesArg::Blosum62 => ResidueEncoding::Blosum62,
        };
        let width = args.feature_width;
        ensure!(
            width >= 20,
            usage(format_args!(
                "--feature-width {width}: 20 residues need 20 values per row"
            ))
        );
        Self::of_residues(encoding, width, &runtime.compute()?, command)
    }

    /// Opens what a stored head reads: the model that it was trained on, or an error.
    pub(crate) fn of_head(
        stored: &StoredHead,
        args: &FeatureArgs,
        runtime: &RuntimeArgs,
        command: &str,
    ) -> Result<Self> {
        match &stored.description.source {
            FeatureOrigin::Residues { features, width } => {
                let encoding = ResidueEncoding::from_name(features).with_context(|| {
                    format!("{}: unknown features {features:?}", stored.dir.display())
                })?;
                Self::of_residues(encoding, *width, &runtime.compute()?, command)
            }
            FeatureOrigin::Model { layers, .. } => {
                let opened = open_model_of_head(stored, args, runtime)?;
                Self::of_model(&opened, layers.clone(), args, runtime, command)
            }
        }
    }

    fn of_residues(
        encoding: ResidueEncoding,
        width: usize,
        compute: &Compute,
        command: &str,
    ) -> Result<Self> {
        let mut manifest = Manifest {
            tool: Some(TOOL.to_owned()),
            command: Some(command.to_owned()),
            device: Some(compute.name.clone()),
            ..Manifest::default()
        };
        manifest.set_settings(&json!({ "features": encoding.name() }))?;
        Ok(Self {
            source: FeatureSource::Residues { encoding, width },
            device: compute.device.clone(),
            origin: FeatureOrigin::Residues {
                features: encoding.name().to_owned(),
                width,
            },
            manifest,
        })
    }

    fn of_model(
        opened: &Opened,
        layers: Vec<usize>,
        args: &FeatureArgs,
        runtime: &RuntimeArgs,
        command: &str,
    ) -> Result<Self> {
        let checkpoint = &opened.checkpoint;
        let encoder = opened.load(|loader| Encoder::load(loader, &checkpoint.config))?;
        let manifest = opened.manifest(command, &(), None)?;
        let cache = open_cache(args, &layers, manifest.clone())?;
        let origin = FeatureOrigin::Model {
            model: checkpoint.id(),
            model_hash: checkpoint.model_hash()?,
            prefix: opened.prefix.as_str().to_owned(),
            layers: layers.clone(),
        };
        let model = ModelFeatures {
            encoder,
            tokenizer: checkpoint.tokenizer.clone(),
            prefix: opened.prefix,
            layers,
            max_batch_tokens: opened.batch_tokens(runtime, LoadedStacks::Encoder),
            cache,
        };
        Ok(Self {
            source: FeatureSource::Model(Box::new(model)),
            device: opened.compute.device.clone(),
            origin,
            manifest,
        })
    }

    /// Embeds the proteins that are not cached, with a progress bar.
    pub(crate) fn prepare(&mut self, proteins: &[Protein<'_>]) -> Result<()> {
        let missing = self.source.missing(proteins);
        if missing.is_empty() {
            return Ok(());
        }
        if let Some(folder) = self.source.folder() {
            tracing::info!(
                "embedding {} into {}",
                counted(missing.len(), "protein"),
                folder.display()
            );
        }
        let residues = |proteins: &[Protein<'_>]| -> u64 {
            let each = proteins.iter();
            each.map(|protein| protein.residues.len() as u64).sum()
        };
        let mut progress = Progress::new();
        progress.expect(residues(&missing));
        for group in missing.chunks(GROUP) {
            self.source.prepare(group)?;
            progress.add(group.len() as u64, residues(group));
        }
        progress.finish();
        Ok(())
    }
}

/// Opens the model that a head was trained on; another model or prefix is an error.
pub(crate) fn open_model_of_head(
    stored: &StoredHead,
    args: &FeatureArgs,
    runtime: &RuntimeArgs,
) -> Result<Opened> {
    let prefix = prefix_of_head(stored, args.prefix)?;
    let opened = Opened::new(&args.model(Some(prefix)), runtime)?;
    ensure_same_model(stored, &opened)?;
    Ok(opened)
}

/// The prefix that a head was trained with; another one asked for is an error.
fn prefix_of_head(stored: &StoredHead, asked: Option<TaskPrefix>) -> Result<TaskPrefix> {
    let dir = stored.dir.display();
    let FeatureOrigin::Model { prefix, .. } = &stored.description.source else {
        bail!("{dir}: this head reads no model");
    };
    if let Some(asked) = asked {
        ensure!(
            asked.as_str() == prefix,
            "{dir}: this head was trained with prefix {prefix}, not {}; leave --prefix out",
            asked.as_str()
        );
    }
    prefix.parse().map_err(|_| {
        anyhow!("{dir}: unknown prefix {prefix:?} in {DESCRIPTION}; train the head again")
    })
}

/// Rejects another model than the one that a head was trained on.
fn ensure_same_model(stored: &StoredHead, opened: &Opened) -> Result<()> {
    let FeatureOrigin::Model {
        model, model_hash, ..
    } = &stored.description.source
    else {
        return Ok(());
    };
    let hash = opened.checkpoint.model_hash()?;
    ensure!(
        hash == *model_hash,
        "{}: this head was trained on {model} ({}…), not on {} ({}…); give that model, or train a head for this one",
        stored.dir.display(),
        &model_hash[..12.min(model_hash.len())],
        opened.checkpoint.id(),
        &hash[..12]
    );
    Ok(())
}

/// What influences the rows of a cache, for its manifest.
#[derive(Serialize)]
struct CacheSettings<'a> {
    layers: &'a [usize],
}

/// Opens the cache of the embeddings that `manifest` describes. The name of its folder is a hash of
/// the manifest's text, so the program's version, the command and the hash of the settings (which
/// covers the command) are left out: commands and versions share a cache.
fn open_cache(args: &FeatureArgs, layers: &[usize], mut manifest: Manifest) -> Result<RowCache> {
    manifest.set_settings(&CacheSettings { layers })?;
    let manifest = Manifest {
        tool: None,
        command: None,
        settings_sha256: None,
        ..manifest
    };
    let manifest = serde_json::to_string_pretty(&manifest)?;
    match &args.cache {
        Some(root) => RowCache::open(root, &manifest, args.cache_dtype)
            .with_context(|| format!("opening the cache {}", root.display())),
        None => RowCache::temporary(&manifest, args.cache_dtype)
            .context("opening a temporary directory for embeddings"),
    }
}
