//! `ankh3 probe`: small heads on frozen embeddings: trained, asked, judged.

mod data;
mod evaluate;
mod outcome;
mod predict;
mod preset;
mod train;

use anyhow::Result;
use clap::{Args, Subcommand};

pub(super) use train::tell;

use super::Outcome;

/// Train small heads on frozen embeddings, predict with them, judge them
///
/// Classes of residues (secondary structure), numbers of proteins (fluorescence, fitness), classes of proteins. The default head and settings are those of
/// the Ankh papers: one ConvBERT layer, 5 epochs. For contacts see `ankh3 contacts`.
#[derive(Args, Clone, Debug)]
pub struct ProbeArgs {
    #[command(subcommand)]
    command: ProbeCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ProbeCommand {
    Train(Box<train::TrainArgs>),
    Predict(Box<predict::PredictArgs>),
    Evaluate(Box<evaluate::EvaluateArgs>),
}

/// Runs the command.
///
/// # Errors
/// Everything that keeps it from being done.
pub fn run(args: &ProbeArgs) -> Result<Outcome> {
    match &args.command {
        ProbeCommand::Train(args) => train::run(args),
        ProbeCommand::Predict(args) => predict::run(args),
        ProbeCommand::Evaluate(args) => evaluate::run(args),
    }
}
