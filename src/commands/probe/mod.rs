//! `ankh3 probe`: trains small heads on frozen embeddings, predicts with them, and measures them.

mod data;
mod evaluate;
mod measures;
mod predict;
mod sets;
mod task;
mod train;

use std::path::Path;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use super::Outcome;
use super::heads::StoredHead;
use crate::probe::description::PredictionTask;

/// Train small heads on frozen embeddings, predict with them, measure them
///
/// A head predicts one class per residue (secondary structure), or one number or class per protein
/// (fluorescence, fitness). The default head and settings are those of the Ankh papers: one
/// ConvBERT layer, 5 epochs. For contacts see `ankh3 contacts`.
#[derive(Args, Clone, Debug)]
pub struct ProbeArgs {
    #[command(subcommand)]
    command: ProbeCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ProbeCommand {
    Train(Box<train::TrainArgs>),
    Predict(Box<predict::PredictArgs>),
    Evaluate(Box<evaluate::ProbeEvaluateArgs>),
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

/// Reads a head for tables; one for contacts is an error.
fn load_head(dir: &Path) -> Result<StoredHead> {
    let stored = StoredHead::load(&dir.to_owned().into())?;
    ensure!(
        stored.description.task != PredictionTask::Contacts,
        "{}: this head predicts contacts; use `ankh3 predict-contacts` for it",
        dir.display()
    );
    Ok(stored)
}
