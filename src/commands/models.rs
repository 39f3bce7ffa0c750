//! `ankh3 models`: lists the models with a short name and the models in the cache.

use std::io::{self, Write};

use clap::Args;

use crate::checkpoint::inspect::CheckpointSummary;
use crate::checkpoint::{BUNDLED, Checkpoint, Hub, KNOWN_MODELS, ModelLocation, ModelRef, resolve};
use crate::shown::shown;

/// List the models with a short name and where they are cached
///
/// Output is tab-separated: name; repository; parameters in millions; licence; directory (`-` for a
/// model that is not in the cache: `ankh3 fetch NAME` downloads it); note. `nano` is part of this
/// program. Any other T5 encoder-decoder of the hub can be fetched and used as `owner/repo`; such
/// models in the cache are listed too.
#[derive(Args, Clone, Debug)]
pub struct ModelsArgs {}

/// Writes the table to `out`.
pub fn run(_args: &ModelsArgs, out: &mut dyn Write) -> io::Result<()> {
    list(&Hub::from_env(), out)
}

fn list(hub: &Hub, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "name\trepository\tparameters_M\tlicence\tdirectory\tnote"
    )?;
    bundled(out)?;
    for model in KNOWN_MODELS {
        let dir = hub.snapshot(model.repo, "main");
        let dir = dir.map_or_else(|| "-".to_string(), |dir| dir.display().to_string());
        writeln!(
            out,
            "{}\t{}\t{}\t{}\t{dir}\t{}",
            model.name,
            model.repo,
            model.parameters_in_millions,
            resolve::ANKH_LICENCE,
            model.note
        )?;
    }
    for repo in hub.cached_models() {
        if let Ok(dir) = ModelRef::parse_name(&repo).and_then(|model| model.resolve(hub)) {
            let (repo, dir) = (shown(&repo), dir.to_string());
            let dir = shown(&dir);
            writeln!(out, "{repo}\t{repo}\t-\t-\t{dir}\tin the cache")?;
        }
    }
    Ok(())
}

fn bundled(out: &mut dyn Write) -> io::Result<()> {
    let nano = Checkpoint::load_from(ModelLocation::bundled()).map_err(io::Error::other)?;
    let millions = CheckpointSummary::of(&nano).parameters as f64 / 1e6;
    let licence = nano.licence().unwrap_or_else(|| "-".to_owned());
    writeln!(
        out,
        "nano\t{BUNDLED}\t{millions:.2}\t{licence}\tin this program\tfor trials; the default"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::init::{ModelPreset, init};
    use crate::number::NumberType;

    #[test]
    fn lists_known_names_and_other_cached_models() {
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub {
            cache: cache.path().to_path_buf(),
            endpoint: String::new(),
            token: None,
            offline: true,
        };
        let repo = cache.path().join("models--some--model");
        let dir = repo.join("snapshots/abc");
        init(&dir, ModelPreset::Nano, 0, NumberType::Bf16).unwrap();
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), "abc").unwrap();
        // An incomplete model in the cache, which could not be loaded.
        std::fs::create_dir_all(cache.path().join("models--half--model/snapshots/def")).unwrap();
        let mut out = Vec::new();
        list(&hub, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let large = text
            .lines()
            .find(|line| line.starts_with("ankh3-large\t"))
            .unwrap();
        assert!(large.contains("\tCC-BY-NC-SA-4.0\t-\t"), "{large}");
        assert!(text.contains("\nnano\tankh3-nano\t3.05\t"), "{text}");
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            format!(
                "some/model\tsome/model\t-\t-\t{}\tin the cache",
                dir.display()
            )
        );
        assert!(
            text.lines().all(|line| line.split('\t').count() == 6),
            "{text}"
        );
        assert!(!text.contains("half"), "{text}");
    }
}
