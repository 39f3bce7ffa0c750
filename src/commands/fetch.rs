//! `ankh3 fetch`: downloads a model from the Hugging Face hub into the standard cache. No other
//! command uses the network.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::checkpoint::fetch::{Event, Patience, fetch};
use crate::checkpoint::{Hub, ModelRef, resolve};
use crate::progress::shows_bars;

/// Download a model into the Hugging Face cache and verify it
///
/// The cache is the one that Python's tools use: `HF_HUB_CACHE`, else $`HF_HOME/hub`, else
/// ~/.cache/huggingface/hub. `HF_ENDPOINT` names a mirror, `HF_TOKEN` gives access to gated
/// repositories, `HF_HUB_OFFLINE` forbids the network. Several jobs may fetch at once. Weights that
/// a repository has as pickle only are converted to safetensors once, without executing anything.
///
/// Licence: the official Ankh models (ankh3-large, ankh3-xl, ankh-base, …) are under
/// CC-BY-NC-SA-4.0: no commercial use, and derived works must have the same licence. Other
/// repositories have licences of their own.
#[derive(Args, Clone, Debug)]
pub struct FetchArgs {
    /// A known name (see `ankh3 models`) or `owner/repo`, with `@revision` for a branch, a tag or a
    /// commit
    #[arg(value_name = "NAME")]
    pub model: String,
}

/// Fetches the model and writes its directory to `out`; messages go to the log.
pub fn run(args: &FetchArgs, out: &mut dyn Write) -> Result<()> {
    let hub = Hub::from_env();
    let ModelRef::Hub { repo, revision, .. } = ModelRef::parse_name(&args.model)? else {
        bail!(
            "`{}` is part of this program; there is nothing to fetch",
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
