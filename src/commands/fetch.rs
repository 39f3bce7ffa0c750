//! `ankh3 fetch`: downloads a model from the Hugging Face hub into the standard cache. No other
//! command uses the network.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::checkpoint::fetch::{
    Event, FileVerdict, Patience, VerifiedFile, fetch, prune, verify as verify_files,
};
use crate::checkpoint::{Hub, ModelRef, resolve};
use crate::progress::shows_bars;

/// Download a model into the Hugging Face cache and verify it
///
/// The cache is the one that Python's tools use: `HF_HUB_CACHE`, else $`HF_HOME/hub`, else
/// ~/.cache/huggingface/hub. `HF_ENDPOINT` names a mirror, `HF_TOKEN` gives access to gated
/// repositories and is sent to the hub alone, `HF_HUB_OFFLINE` forbids the network. Several jobs may
/// fetch at once. An interrupted fetch goes on where it was when the command is run again. Weights
/// that a repository has as pickle only are converted to safetensors once, without executing
/// anything.
///
/// Proxies are those of `HTTPS_PROXY` and `NO_PROXY`. Certificate authorities are Mozilla's and the
/// system's; `SSL_CERT_FILE`, `SSL_CERT_DIR`, `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE` name others.
///
/// Licence: the official Ankh models (ankh3-large, ankh3-xl, ankh-base, …) are under
/// CC-BY-NC-SA-4.0: no commercial use, and derived works must have the same licence. Other
/// repositories have licences of their own.
#[derive(Args, Clone, Debug)]
pub struct FetchArgs {
    /// A known name (see `ankh3 models`) or `owner/repo`, with `@revision` for a branch, a tag or a
    /// commit
    #[arg(value_name = "NAME", required_unless_present = "prune")]
    pub model: Option<String>,

    /// Check the files of the model in the cache against their checksums, without the network
    ///
    /// The checksum of a file is the one that the hub announced for the download; for the official
    /// models, checksums that another project has published come first. Every wrong file is named,
    /// and the exit code is 1.
    #[arg(long, conflicts_with = "prune")]
    pub verify: bool,

    /// Delete what interrupted fetches have left in the cache, and files that no revision uses
    ///
    /// Without NAME, of all models in the cache. Files that another process is using stay. Nothing
    /// is asked.
    #[arg(long)]
    pub prune: bool,
}

/// Fetches the model, or verifies or prunes it, and writes its directory to `out`; messages go to
/// the log.
pub fn run(args: &FetchArgs, out: &mut dyn Write) -> Result<()> {
    let hub = Hub::from_env();
    let Some(name) = &args.model else {
        return prune_cache(&hub, None);
    };
    let ModelRef::Hub { repo, revision, .. } = ModelRef::parse_name(name)? else {
        bail!("`{name}` is part of this program; there is nothing to fetch");
    };
    if args.prune {
        prune_cache(&hub, Some(&repo))
    } else if args.verify {
        verify(&hub, name, &repo, &revision, out)
    } else {
        download(&hub, &repo, &revision, out)
    }
}

fn prune_cache(hub: &Hub, repo: Option<&str>) -> Result<()> {
    let pruned = prune(hub, repo)?;
    tracing::info!(
        "deleted from {}: {} files, {} bytes",
        hub.cache.display(),
        pruned.files,
        pruned.bytes
    );
    Ok(())
}

fn verify(hub: &Hub, name: &str, repo: &str, revision: &str, out: &mut dyn Write) -> Result<()> {
    let mut wrong = Vec::new();
    let mut files = 0;
    let dir = verify_files(hub, repo, revision, &mut |file| {
        files += 1;
        wrong.extend(complaint(&file, name));
    })?;
    if !wrong.is_empty() {
        let count = format!("{} of {files} files of {name} are wrong", wrong.len());
        bail!("{count}:\n{}", wrong.join("\n"));
    }
    tracing::info!("{name}: {files} files verified");
    writeln!(out, "{}", dir.display())?;
    Ok(())
}

/// What is wrong with a file and what to do; a right file is logged.
fn complaint(file: &VerifiedFile, model: &str) -> Option<String> {
    let (name, path) = (&file.name, file.path.display());
    match &file.verdict {
        FileVerdict::Right => {
            tracing::info!("{name}: checksum verified");
            None
        }
        FileVerdict::Unknown => {
            tracing::warn!("{name}: no checksum of this file is known");
            None
        }
        FileVerdict::Missing => Some(format!(
            "{name}: its file {path} is missing; run `ankh3 fetch {model}`"
        )),
        FileVerdict::Wrong { expected, found } => Some(format!(
            "{name}: the checksum is {found}, but should be {expected}; delete {path} and run `ankh3 fetch {model}`"
        )),
    }
}

fn download(hub: &Hub, repo: &str, revision: &str, out: &mut dyn Write) -> Result<()> {
    let bar = if shows_bars() {
        ProgressBar::new(0)
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(style());
    let fetched = fetch(hub, repo, revision, Patience::default(), &mut |event| {
        show(&bar, event);
    });
    bar.finish_and_clear();
    let fetched = fetched?;
    let licence = fetched
        .licence
        .as_deref()
        .unwrap_or("not stated; see the model's page");
    tracing::info!(
        "{repo} at commit {}; licence of the weights: {licence}",
        fetched.commit
    );
    if licence == resolve::ANKH_LICENCE {
        tracing::warn!("{licence}: no commercial use; derived works must have the same licence");
    }
    writeln!(out, "{}", fetched.dir.display())?;
    Ok(())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .expect("the template is a constant")
}

fn show(bar: &ProgressBar, event: Event<'_>) {
    match event {
        Event::Start { file, size, kept } => {
            let megabytes = |bytes| bytes as f64 / 1e6;
            let rest = match kept {
                0 => String::new(),
                _ => format!(", {:.1} MB of them from an earlier run", megabytes(kept)),
            };
            tracing::info!("fetching {file} ({:.1} MB{rest})", megabytes(size));
            bar.reset();
            bar.set_length(size);
            bar.set_position(kept);
            bar.set_message(file.to_string());
        }
        Event::Position(position) => bar.set_position(position),
        Event::Done { file } => tracing::info!("{file}: checksum verified"),
        Event::Converting => tracing::info!("writing the pickled weights as model.safetensors"),
    }
}
