//! `ankh3 init`: a checkpoint of random weights.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::checkpoint::StoredDtype;
use crate::checkpoint::init::{ModelPreset, init};

/// Write a randomly initialised checkpoint in Hugging Face's layout
///
/// T5's own initialisation, Ankh3's vocabulary. For pre-training, tests and benchmarks: its embeddings mean nothing before it has been
/// trained, and its config.json says so (`ankh3_random`). Without DIR's parent it is made too; DIR must not exist or be empty.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Where to write the checkpoint
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The shape of the network
    #[arg(long, value_enum, default_value_t = PresetArg::Nano)]
    pub preset: PresetArg,
    /// The same seed gives the same bytes, whatever the number of threads
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The type of the weights in the file
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    pub dtype: DtypeArg,
}

/// Presets on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PresetArg {
    /// 7.7 million parameters
    Nano,
    /// 61 million parameters
    Small,
    /// The shape of Ankh-base with Ankh3's vocabulary, 737 million parameters
    Base,
    /// The shape of Ankh3-Large, 1.9 billion parameters
    Large,
    /// The shape of Ankh3-XL, 5.7 billion parameters
    Xl,
}

/// Types on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// IEEE single
    F32,
    /// bfloat16: half the size
    Bf16,
}

impl From<PresetArg> for ModelPreset {
    fn from(arg: PresetArg) -> Self {
        match arg {
            PresetArg::Nano => ModelPreset::Nano,
            PresetArg::Small => ModelPreset::Small,
            PresetArg::Base => ModelPreset::Base,
            PresetArg::Large => ModelPreset::Large,
            PresetArg::Xl => ModelPreset::Xl,
        }
    }
}

impl From<DtypeArg> for StoredDtype {
    fn from(arg: DtypeArg) -> Self {
        match arg {
            DtypeArg::F32 => StoredDtype::F32,
            DtypeArg::Bf16 => StoredDtype::Bf16,
        }
    }
}

/// Writes the checkpoint, and its directory to `out`.
pub fn run(args: &InitArgs, out: &mut dyn Write) -> Result<()> {
    init(&args.dir, args.preset.into(), args.seed, args.dtype.into())?;
    tracing::info!("random weights, seed {}: train before use", args.seed);
    writeln!(out, "{}", args.dir.display())?;
    Ok(())
}
