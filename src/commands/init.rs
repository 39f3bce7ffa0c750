//! `ankh3 init`: a checkpoint of random weights.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::args::number_type;
use crate::checkpoint::init::{ModelPreset, init};
use crate::number::NumberType;

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
    #[arg(long, value_enum, default_value = "nano")]
    pub preset: ModelPreset,
    /// The same seed gives the same bytes, whatever the number of threads
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The type of the weights in the file
    #[arg(long, value_parser = number_type(&WEIGHT_TYPES), default_value = "f32")]
    pub dtype: NumberType,
}

const WEIGHT_TYPES: [(NumberType, &str); 2] = [
    (NumberType::F32, "IEEE single precision"),
    (NumberType::Bf16, "bfloat16: half the size"),
];

/// Writes the checkpoint, and its directory to `out`.
pub fn run(args: &InitArgs, out: &mut dyn Write) -> Result<()> {
    init(&args.dir, args.preset, args.seed, args.dtype)?;
    tracing::info!("random weights, seed {}: train before use", args.seed);
    writeln!(out, "{}", args.dir.display())?;
    Ok(())
}
