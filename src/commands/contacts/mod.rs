//! `ankh3 contacts`: fits what `predict-contacts` needs to known structures, and measures
//! predictions by them.

mod chain_sets;
mod evaluate;
mod fit;
mod predictor;
mod structures;
mod table;

use anyhow::Result;
use clap::{Args, Subcommand};

pub(super) use chain_sets::StructureFiles;
pub(super) use fit::fit_head;
pub(super) use predictor::{MethodArg, Predictor, PredictorArgs};
pub(super) use structures::aligned;

use super::Outcome;

/// Decides the bootstrap draws of intervals.
const SEED: u64 = 7;

/// Fit contact heads to known structures, and measure contact predictions by them
///
/// Structures are PDB or mmCIF files (all protein chains of the first model), or JSON lines `{"id",
/// "seq", "xyz": [[x, y, z] or null, …]}` with one position per residue. Two residues touch when
/// their C-beta atoms (C-alpha of glycine, a virtual C-beta where the side chain is missing) are
/// less than 8 Å apart.
#[derive(Args, Clone, Debug)]
pub struct ContactsArgs {
    #[command(subcommand)]
    command: ContactsCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ContactsCommand {
    Fit(Box<fit::FitArgs>),
    Evaluate(Box<evaluate::ContactsEvaluateArgs>),
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
