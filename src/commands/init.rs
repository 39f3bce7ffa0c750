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
/// Weights are drawn as T5 draws them; the vocabulary is that of Ankh3. The checkpoint is for
/// pretraining, tests and benchmarks: embeddings mean nothing before the model has been trained,
/// and config.json says so (`ankh3_random`). DIR must be empty or not exist; missing parent
/// directories are created.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Where to write the checkpoint
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The shape of the network
    #[arg(long, value_enum, default_value = "nano")]
    pub preset: ModelPreset,
    /// Seed of the weights; the same seed gives the same bytes, whatever the number of threads
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Number type of the weights in the file
    #[arg(long, value_parser = number_type(&WEIGHT_TYPES), default_value = "f32")]
    pub dtype: NumberType,
}

const WEIGHT_TYPES: [(NumberType, &str); 2] = [
    (NumberType::F32, "IEEE single precision"),
    (NumberType::Bf16, "bfloat16: half the size"),
];

/// Writes the checkpoint, then prints its directory to `out`.
pub fn run(args: &InitArgs, out: &mut dyn Write) -> Result<()> {
    init(&args.dir, args.preset, args.seed, args.dtype)?;
    tracing::info!("random weights, seed {}: train before use", args.seed);
    writeln!(out, "{}", args.dir.display())?;
    Ok(())
}
