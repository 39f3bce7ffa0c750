//! `ankh3 contacts`: what `predict-contacts` needs, fitted to known structures and judged by them.

mod evaluate;
mod fit;
mod known;
mod predictor;

use anyhow::Result;
use clap::{Args, Subcommand};

pub(super) use fit::fit_head;
pub(super) use known::aligned;
pub(super) use predictor::{MethodArg, Predictor, PredictorArgs};

use super::Outcome;

/// Fit contact heads to known structures, and judge contact predictions by them
///
/// Structures are PDB or mmCIF files (all protein chains of the first model), or JSON lines `{"id", "seq", "xyz": [[x, y, z] or null, …]}` with one place a
/// residue. Residues touch when their C-beta atoms (C-alpha of glycine, virtual where missing) are less than 8 Å apart.
#[derive(Args, Clone, Debug)]
pub struct ContactsArgs {
    #[command(subcommand)]
    command: ContactsCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ContactsCommand {
    Fit(Box<fit::FitArgs>),
    Evaluate(Box<evaluate::EvaluateArgs>),
}

/// Runs the command.
///
/// # Errors
/// Everything that keeps it from being done.
pub fn run(args: &ContactsArgs) -> Result<Outcome> {
    match &args.command {
        ContactsCommand::Fit(args) => fit::run(args),
        ContactsCommand::Evaluate(args) => evaluate::run(args),
    }
}
