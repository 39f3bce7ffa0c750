//! `ankh3 fetch`: downloads a model from the Hugging Face hub into the standard cache. No other command uses the network.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::checkpoint::fetch::{Event, Patience, fetch};
use crate::checkpoint::{Hub, ModelRef, resolve};
use crate::progress::shows_bars;

/// Download a model into the Hugging Face cache and verify it
///
/// The cache is shared with Python's tools: `HF_HUB_CACHE`, else $`HF_HOME/hub`, else ~/.cache/huggingface/hub. `HF_ENDPOINT` names a
/// mirror, `HF_TOKEN` opens gated repositories, `HF_HUB_OFFLINE` forbids the network. Several jobs may fetch at once. Weights that a
/// repository has as pickle only are converted to safetensors once, without executing anything.
///
/// Licence: the official Ankh models (ankh3-large, ankh3-xl, ankh-base, …) are CC-BY-NC-SA-4.0: no commercial use, and what is made
/// from them is shared alike. Other repositories have their own.
#[derive(Args, Clone, Debug)]
pub struct FetchArgs {
    /// A known name (see `ankh3 models`) or `owner/repo`, with `@revision` for a branch, a tag or a commit
    #[arg(value_name = "NAME")]
    pub model: String,
}

/// Fetches; writes the model's directory to `out`, everything else to the log.
pub fn run(args: &FetchArgs, out: &mut dyn Write) -> Result<()> {
    let hub = Hub::from_env();
    let ModelRef::Hub { repo, revision, .. } = ModelRef::parse_name(&args.model)? else {
        bail!(
            "`{}` is inside this program; there is nothing to fetch",
            args.model
        );
    };
    let bar = if shows_bars() {
        ProgressBar::new(0)
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(style());
    let fetched = fetch(&hub, &repo, &revision, Patience::default(), &mut |event| {
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
        tracing::warn!("{licence}: not for commercial use; share what is made from it alike");
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
        Event::Start { file, size } => {
            tracing::info!("fetching {file} ({:.1} MB)", size as f64 / 1e6);
            bar.reset();
            bar.set_length(size);
            bar.set_message(file.to_string());
        }
        Event::Arrived(count) => bar.inc(count),
        Event::Done { file } => tracing::info!("{file}: checksum is right"),
        Event::Converting => tracing::info!("writing the pickled weights as model.safetensors"),
    }
}
