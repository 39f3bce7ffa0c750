//! `ankh3 doctor`: shows the machine as this build sees it, and checks that the network computes
//! correctly there.

mod machine;
mod published;

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::DType;
use clap::Args;

use crate::check::rates::{self, Rate, Size};
use crate::check::{self, Check, on_device};
use crate::checkpoint::Hub;
use crate::device::{Compute, DeviceSpec, has_driver};
use crate::kernels::cpu::Isa;

use self::published::{AnswerVerdict, PublishedArgs};

/// Show the machine as this build sees it, and check its arithmetic
///
/// Shows the CPU, threads, memory, GPUs and the model cache. Then compares every kernel on every
/// instruction set of this CPU, and a small random encoder, with plain arithmetic in double
/// precision. With a GPU (--device cuda), doctor also compares every kernel of the GPU, forward and
/// backward, on fresh random inputs, and a small model; then it measures the GPU's speed at copies,
/// matrix products and attention. With --model, it runs an official model and compares the result
/// with published values. The exit code is 1 if a result is wrong.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// The device to check: cpu, cuda, cuda:N, or auto (a GPU if this build and this machine have
    /// one).
    #[arg(long, default_value = "auto", overrides_with = "device")]
    device: DeviceSpec,

    /// Seed of the random inputs on a GPU [default: a new one every time, which is printed].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    #[command(flatten)]
    published: PublishedArgs,
}

/// Largest error of the encoder on a CPU, relative to its largest output; the same limit as in the
/// golden tests.
const CPU_LIMIT: f64 = 2e-5;
/// The same for a GPU, which adds in another order.
const GPU_LIMIT: f64 = 1e-3;

/// Prints the machine and the checks to `out`.
///
/// # Errors
/// A device that cannot be opened, a result that is wrong.
pub fn run(args: &DoctorArgs, out: &mut dyn Write) -> Result<()> {
    describe(out)?;
    let compute = Compute::open(args.device, args.published.dtype)?;
    writeln!(out, "device       {} ({})", compute.name, compute.kernels())?;
    writeln!(out, "\nself-check, largest error against f64:")?;
    let mut checks = check::cpu::kernels();
    checks.push(check::network::encoder(
        &candle_core::Device::Cpu,
        CPU_LIMIT,
    )?);
    if !compute.device.is_cpu() {
        checks.push(check::network::encoder(&compute.device, GPU_LIMIT)?);
        let seed = args.seed.unwrap_or_else(fresh_seed);
        writeln!(out, "  (random inputs of {}: --seed {seed})", compute.name)?;
        checks.extend(on_device::kernels(&compute.device, seed)?);
        checks.extend(check::network::against_cpu(&compute.device)?);
    }
    for check in &checks {
        show(check, out)?;
    }
    if !compute.device.is_cpu() {
        writeln!(out, "\nrates of {}:", compute.name)?;
        for Rate { name, value, unit } in rates::measure(&compute.device, DType::BF16, Size::GPU)? {
            writeln!(out, "  {name:<58} {value:>8.1} {unit}")?;
        }
    }
    let failed = checks.iter().filter(|check| !check.passed()).count();
    ensure!(
        failed == 0,
        "{failed} of {} checks failed: results of this build on this machine cannot be trusted; ANKH3_CPU_ISA=portable avoids vector instructions, --device cpu avoids the GPU",
        checks.len()
    );
    let verdict = published::compare(&args.published, compute, out)?;
    ensure!(
        verdict != AnswerVerdict::Far,
        "the model's result is not the published one: `ankh3 fetch` compares its files with the hub's; if they are right, --dtype f32 --device cpu tells whether the device is at fault"
    );
    Ok(writeln!(out, "all right")?)
}

/// A seed that differs from run to run.
fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_nanos() as u64)
}

fn describe(out: &mut dyn Write) -> Result<()> {
    let mut line = |name: &str, value: String| writeln!(out, "{name:<12} {value}");
    let features = if cfg!(feature = "cuda") {
        "cuda"
    } else {
        "none"
    };
    line(
        "version",
        format!(
            "ankh3 {}, {}-{}, features: {features}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            std::env::consts::OS
        ),
    )?;
    line("cpu", machine::cpu())?;
    line("cpu has", machine::cpu_features().join(" "))?;
    let isa = Isa::from_env().map_or_else(|error| error, |isa| isa.name().to_owned());
    line("cpu kernels", isa)?;
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let used = rayon::current_num_threads();
    line("threads", format!("{used} used, {available} available"))?;
    line("memory", machine::memory())?;
    line("gpu driver", driver().to_owned())?;
    for gpu in machine::gpus() {
        line("gpu", gpu)?;
    }
    let hub = Hub::from_env();
    let state = cache_state(&hub.cache);
    line("model cache", format!("{} ({state})", hub.cache.display()))?;
    Ok(())
}

fn driver() -> &'static str {
    match (has_driver(), cfg!(feature = "cuda")) {
        (true, true) => "found",
        (true, false) => "found, but this build has no CUDA: build with --features cuda",
        (false, true) => "none (libcuda.so.1): this build runs on the CPU here",
        (false, false) => "none",
    }
}

/// Whether `ankh3 fetch` could write into the cache; leaves no file behind.
fn cache_state(cache: &Path) -> String {
    let Some(existing) = cache.ancestors().find(|folder| folder.is_dir()) else {
        return "cannot be created; set HF_HOME to a writable folder".to_owned();
    };
    match tempfile::tempfile_in(existing) {
        Ok(_) if existing == cache => "writable".to_owned(),
        Ok(_) => "will be created by `ankh3 fetch`".to_owned(),
        Err(error) => {
            format!("not writable: {error}; `ankh3 fetch` needs HF_HOME set to another folder")
        }
    }
}

fn show(check: &Check, out: &mut dyn Write) -> std::io::Result<()> {
    let Check { name, error, limit } = check;
    let verdict = if check.passed() { "ok" } else { "WRONG" };
    writeln!(
        out,
        "  {name:<30} {error:.1e} (limit {limit:.0e}) {verdict}"
    )
}
