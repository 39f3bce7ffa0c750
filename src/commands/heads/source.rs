//! Embeddings for heads: of a model, kept on disk, or of the residues alone.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;

use super::{FeatureArgs, FeaturesArg, Stored, TrainFeatureArgs};
use crate::args::{RuntimeArgs, Shard, usage};
use crate::commands::embed::resolve_layers;
use crate::commands::opened::{Opened, TOOL};
use crate::device::Compute;
use crate::inference::embedder::{Embedder, Request};
use crate::inference::pooling::Pooling;
use crate::inference::token_budget::LoadedStacks;
use crate::model::Encoder;
use crate::output::manifest::Manifest;
use crate::output::row_cache::{RowCache, RowKey, key};
use crate::probe::blind::Blind;
use crate::probe::description::Source as Described;
use crate::probe::train::Features;
use crate::progress::Progress;
use crate::sequence::Limit;
use crate::tokenizer::TaskPrefix;

/// A protein to be embedded: what messages call it, and its residues.
pub(crate) type Protein<'a> = (&'a str, &'a [u8]);

/// Proteins embedded at a time.
const TOGETHER: usize = 64;

/// Where embeddings come from.
pub(crate) enum Source {
    Model(Box<ModelSource>),
    Blind {
        kind: Blind,
        width: usize,
        compute: Compute,
    },
}

/// A model's encoder and what it has computed.
pub(crate) struct ModelSource {
    pub(crate) opened: Opened,
    pub(crate) encoder: Encoder,
    layers: Vec<usize>,
    max_batch_tokens: usize,
    cache: RowCache,
    /// Goes when the run ends.
    _temporary: Option<TempDir>,
}

/// The embeddings of a list of proteins.
pub(crate) enum Rows<'a> {
    Kept {
        cache: &'a RowCache,
        keys: Vec<RowKey>,
        width: usize,
    },
    Blind {
        kind: Blind,
        width: usize,
        proteins: Vec<&'a [u8]>,
    },
}

impl Features for Rows<'_> {
    fn width(&self) -> usize {
        match self {
            Rows::Kept { width, .. } | Rows::Blind { width, .. } => *width,
        }
    }

    fn rows(
        &self,
        number: usize,
    ) -> std::result::Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Rows::Kept { cache, keys, .. } => Ok(cache.read(&keys[number])?),
            Rows::Blind {
                kind,
                width,
                proteins,
            } => Ok(kind.rows(proteins[number], *width)),
        }
    }
}

impl Source {
    /// For training.
    pub(crate) fn open(args: &TrainFeatureArgs, runtime: &RuntimeArgs) -> Result<Self> {
        let kind = match args.features {
            FeaturesArg::Model => {
                return Self::of_model(&args.common, args.common.prefix, runtime, |count| {
                    resolve_layers(&args.layers, count)
                });
            }
            FeaturesArg::Onehot => Blind::OneHot,
            FeaturesArg::Blosum62 => Blind::Blosum62,
        };
        let width = args.feature_width;
        ensure!(
            width >= 20,
            usage(format_args!(
                "--feature-width {width}: 20 residues need 20 places"
            ))
        );
        Ok(Source::Blind {
            kind,
            width,
            compute: runtime.compute()?,
        })
    }

    /// For a head that was trained: the same model, or an error.
    pub(crate) fn of_head(
        stored: &Stored,
        dir: &Path,
        args: &FeatureArgs,
        runtime: &RuntimeArgs,
    ) -> Result<Self> {
        match &stored.description.source {
            Described::Blind { features, width } => {
                let kind = match features.as_str() {
                    "onehot" => Blind::OneHot,
                    "blosum62" => Blind::Blosum62,
                    other => bail!("{}: unknown features {other:?}", dir.display()),
                };
                Ok(Source::Blind {
                    kind,
                    width: *width,
                    compute: runtime.compute()?,
                })
            }
            Described::Model { layers, .. } => {
                let prefix = prefix_of_head(stored, dir, args.prefix)?;
                let source = Self::of_model(args, Some(prefix), runtime, |_| Ok(layers.clone()))?;
                if let Source::Model(model) = &source {
                    same_model(stored, dir, &model.opened)?;
                }
                Ok(source)
            }
        }
    }

    fn of_model(
        args: &FeatureArgs,
        prefix: Option<TaskPrefix>,
        runtime: &RuntimeArgs,
        layers: impl FnOnce(usize) -> Result<Vec<usize>>,
    ) -> Result<Self> {
        let opened = Opened::new(&args.model(prefix), runtime)?;
        let layers = layers(opened.checkpoint.config.num_layers)?;
        let encoder = opened.load(|loader| Encoder::load(loader, &opened.checkpoint.config))?;
        let settings = CacheSettings { layers: &layers };
        let manifest = opened.manifest("embed", &settings, None)?;
        let temporary = match &args.cache {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix("ankh3-embeddings-")
                    .tempdir()?,
            ),
        };
        let root = match (&args.cache, &temporary) {
            (Some(root), _) => root.as_path(),
            (None, Some(root)) => root.path(),
            (None, None) => bail!("no directory for embeddings"),
        };
        let manifest = serde_json::to_string_pretty(&of_rows(manifest))?;
        let cache = RowCache::open(root, &manifest, args.cache_dtype)
            .with_context(|| format!("opening the cache {}", root.display()))?;
        Ok(Source::Model(Box::new(ModelSource {
            max_batch_tokens: opened.batch_tokens(runtime, LoadedStacks::Encoder),
            opened,
            encoder,
            layers,
            cache,
            _temporary: temporary,
        })))
    }

    /// Where heads run.
    pub(crate) fn compute(&self) -> &Compute {
        match self {
            Source::Model(model) => &model.opened.compute,
            Source::Blind { compute, .. } => compute,
        }
    }

    /// Values in a row.
    pub(crate) fn width(&self) -> usize {
        match self {
            Source::Model(model) => model.encoder.config().d_model * model.layers.len(),
            Source::Blind { width, .. } => *width,
        }
    }

    /// For a head's description.
    pub(crate) fn describe(&self) -> Result<Described> {
        Ok(match self {
            Source::Model(model) => Described::Model {
                model: model.opened.checkpoint.id(),
                model_hash: model.opened.checkpoint.model_hash()?,
                prefix: model.opened.prefix.as_str().to_owned(),
                layers: model.layers.clone(),
            },
            Source::Blind { kind, width, .. } => Described::Blind {
                features: kind.name().to_owned(),
                width: *width,
            },
        })
    }

    /// How results are made.
    pub(crate) fn manifest(
        &self,
        command: &str,
        settings: &impl Serialize,
        shard: Option<Shard>,
    ) -> Result<Manifest> {
        match self {
            Source::Model(model) => model.opened.manifest(command, settings, shard),
            Source::Blind { compute, kind, .. } => {
                let mut manifest = Manifest {
                    tool: Some(TOOL.to_owned()),
                    command: Some(command.to_owned()),
                    device: Some(compute.name.clone()),
                    shard: shard.map(|shard| shard.to_string()),
                    ..Manifest::default()
                };
                let features = json!(kind.name());
                manifest.settings.insert("features".to_owned(), features);
                manifest.set_settings(settings)?;
                Ok(manifest)
            }
        }
    }

    /// Computes and keeps what is not kept yet, with a progress bar.
    pub(crate) fn prepare(&mut self, proteins: &[Protein<'_>]) -> Result<()> {
        match self {
            Source::Model(model) => model.prepare(proteins),
            Source::Blind { .. } => Ok(()),
        }
    }

    /// As [`Source::prepare`], without a word in the log.
    ///
    /// # Errors
    /// [`EmbeddingNotFinite`], among others.
    pub(crate) fn prepare_quietly(&mut self, proteins: &[Protein<'_>]) -> Result<()> {
        match self {
            Source::Model(model) => {
                let missing = model.missing(proteins);
                model.embed(&missing, |_| ())
            }
            Source::Blind { .. } => Ok(()),
        }
    }

    /// The rows of proteins that were prepared.
    pub(crate) fn rows<'a>(&'a self, proteins: &[Protein<'a>]) -> Rows<'a> {
        let residues = proteins.iter().map(|(_, residues)| *residues);
        match self {
            Source::Model(model) => Rows::Kept {
                cache: &model.cache,
                keys: residues.map(|residues| key(&[residues])).collect(),
                width: self.width(),
            },
            Source::Blind { kind, width, .. } => Rows::Blind {
                kind: *kind,
                width: *width,
                proteins: residues.collect(),
            },
        }
    }
}

/// The prefix that a head was trained with; another one asked for is an error.
pub(crate) fn prefix_of_head(
    stored: &Stored,
    dir: &Path,
    asked: Option<TaskPrefix>,
) -> Result<TaskPrefix> {
    let Described::Model { prefix, .. } = &stored.description.source else {
        bail!("{}: this head reads no model", dir.display());
    };
    let known = match prefix.as_str() {
        "nlu" => TaskPrefix::Nlu,
        "s2s" => TaskPrefix::S2s,
        _ => TaskPrefix::None,
    };
    if let Some(asked) = asked {
        ensure!(
            asked.as_str() == prefix,
            "{}: this head was trained with prefix {prefix}, not {}; leave --prefix out",
            dir.display(),
            asked.as_str()
        );
    }
    Ok(known)
}

/// Refuses another model than the one that a head was trained on.
pub(crate) fn same_model(stored: &Stored, dir: &Path, opened: &Opened) -> Result<()> {
    let Described::Model {
        model, model_hash, ..
    } = &stored.description.source
    else {
        return Ok(());
    };
    let hash = opened.checkpoint.model_hash()?;
    ensure!(
        hash == *model_hash,
        "{}: this head was trained on {model} ({}…), not on {} ({}…); give that model, or train a head for this one",
        dir.display(),
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

/// The manifest without what does not influence a number. The name of the cache's folder is a hash of its text.
fn of_rows(manifest: Manifest) -> Manifest {
    Manifest {
        tool: None,
        command: None,
        settings_sha256: None,
        ..manifest
    }
}

/// A protein's embedding holds NaN or infinity.
#[derive(Debug, thiserror::Error)]
#[error("{0}: the model's result holds NaN or infinity; try --dtype f32, or leave the record out")]
pub(crate) struct EmbeddingNotFinite(String);

impl ModelSource {
    fn missing<'a>(&self, proteins: &[Protein<'a>]) -> Vec<Protein<'a>> {
        let mut missing: Vec<Protein<'_>> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for protein in proteins {
            let key = key(&[protein.1]);
            if !self.cache.has(&key) && seen.insert(key) {
                missing.push(*protein);
            }
        }
        missing
    }

    fn prepare(&mut self, proteins: &[Protein<'_>]) -> Result<()> {
        let missing = self.missing(proteins);
        if missing.is_empty() {
            return Ok(());
        }
        tracing::info!(
            "embedding {} proteins into {}",
            missing.len(),
            self.cache.folder().display()
        );
        let mut progress = Progress::new();
        progress.expect(missing.iter().map(|protein| protein.1.len() as u64).sum());
        self.embed(&missing, |residues| progress.add(1, residues as u64))?;
        progress.finish();
        Ok(())
    }

    /// Embeds proteins and keeps the rows; `done` gets the residues of each.
    fn embed(&mut self, missing: &[Protein<'_>], mut done: impl FnMut(usize)) -> Result<()> {
        let request = Request {
            prefix: self.opened.prefix,
            layers: self.layers.clone(),
            poolings: vec![Pooling::PerResidue],
            limit: Limit::NONE,
            max_batch_tokens: self.max_batch_tokens,
        };
        let mut embedder = Embedder::new(&self.encoder, &self.opened.checkpoint.tokenizer, request);
        let width = self.encoder.config().d_model;
        for group in missing.chunks(TOGETHER) {
            let residues: Vec<&[u8]> = group.iter().map(|protein| protein.1).collect();
            for ((name, residues), columns) in group.iter().zip(embedder.embed(&residues)?) {
                let Some(columns) = columns else {
                    return Err(EmbeddingNotFinite((*name).to_owned()).into());
                };
                let rows = side_by_side(&columns, width);
                let inserted = self.cache.insert(key(&[residues]), &rows);
                inserted
                    .with_context(|| format!("writing to {}", self.cache.folder().display()))?;
                done(residues.len());
            }
        }
        Ok(())
    }
}

/// Rows of several layers as one row.
fn side_by_side(layers: &[Vec<f32>], width: usize) -> Vec<f32> {
    let [one] = layers else {
        let rows = layers.first().map_or(0, |layer| layer.len() / width);
        return (0..rows)
            .flat_map(|row| {
                layers
                    .iter()
                    .flat_map(move |layer| &layer[row * width..][..width])
            })
            .copied()
            .collect();
    };
    one.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_stand_side_by_side() {
        let layers = [vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0, 7.0, 8.0]];
        assert_eq!(
            side_by_side(&layers, 2),
            [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]
        );
        assert_eq!(side_by_side(&layers[..1], 2), layers[0]);
    }
}
