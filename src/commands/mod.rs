//! The sub-commands, one file per sub-command. Each opens, loads, runs, writes and reports; the
//! work is in other rooms.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::io::stdio::{Content, Output, check_output};

pub mod complete;
pub mod contacts;
mod conveyor;
pub mod distinct;
pub mod doctor;
pub mod embed;
mod embedding_flags;
pub mod fetch;
pub mod generated;
mod heads;
pub mod help;
pub mod init;
pub mod inspect;
pub mod mask_fill;
pub mod merge;
pub mod models;
mod opened;
pub mod plot_training;
pub mod predict_contacts;
pub mod pretrain;
pub mod probe;
pub mod report;
pub mod score;
pub mod tokenize;

/// The outcome of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done: exit code 0.
    Done,
    /// The output is complete except for records that were left out and logged: exit code 3.
    SomeFailed,
}

/// The sub-commands.
#[derive(Clone, Debug, Subcommand)]
#[expect(missing_docs, reason = "a command's help is that of its arguments")]
pub enum Command {
    Embed(Box<embed::EmbedArgs>),
    Complete(Box<complete::CompleteArgs>),
    MaskFill(Box<mask_fill::MaskFillArgs>),
    Score(Box<score::ScoreArgs>),
    PredictContacts(Box<predict_contacts::PredictContactsArgs>),
    Contacts(contacts::ContactsArgs),
    Probe(probe::ProbeArgs),
    Merge(merge::MergeArgs),
    Report(report::ReportArgs),
    Inspect(inspect::InspectArgs),
    Tokenize(tokenize::TokenizeArgs),
    Fetch(fetch::FetchArgs),
    Models(models::ModelsArgs),
    Init(init::InitArgs),
    Doctor(doctor::DoctorArgs),
    Completions(generated::CompletionsArgs),
    Man(generated::ManArgs),
    Pretrain(Box<pretrain::PretrainArgs>),
    PlotTraining(plot_training::PlotTrainingArgs),
}

impl Command {
    /// Runs the command; `cli` defines the whole command line, from which completions and manual
    /// pages are generated.
    ///
    /// # Errors
    /// Everything that keeps the command from completing its output.
    pub fn run(&self, cli: clap::Command) -> Result<Outcome> {
        match self {
            Command::Embed(args) => embed::run(args),
            Command::Complete(args) => complete::run(args),
            Command::MaskFill(args) => mask_fill::run(args),
            Command::Score(args) => score::run(args),
            Command::PredictContacts(args) => predict_contacts::run(args),
            Command::Contacts(args) => contacts::run(args),
            Command::Probe(args) => probe::run(args),
            Command::Merge(args) => merge::run(args),
            Command::Report(args) => report::run(args),
            Command::Inspect(args) => to_stdout(|out| inspect::run(args, out)),
            Command::Tokenize(args) => tokenize::run(args),
            Command::Fetch(args) => to_stdout(|out| fetch::run(args, out)),
            Command::Models(args) => to_stdout(|out| Ok(models::run(args, out)?)),
            Command::Init(args) => to_stdout(|out| init::run(args, out)),
            Command::Doctor(args) => to_stdout(|out| doctor::run(args, out)),
            Command::Completions(args) => to_stdout(|out| generated::completions(args, cli, out)),
            Command::Man(args) => to_stdout(|out| generated::man(args, cli, out)),
            Command::Pretrain(args) => pretrain::run(args),
            Command::PlotTraining(args) => plot_training::run(args),
        }
    }
}

/// Checks that files can be written, before anything is computed for them.
fn check_outputs<'p>(outputs: impl IntoIterator<Item = (&'p Path, Content)>) -> Result<()> {
    outputs.into_iter().try_for_each(|(path, content)| {
        check_output(path, content).with_context(|| format!("writing {}", path.display()))
    })
}

/// Runs a command that writes text to stdout.
fn to_stdout(run: impl FnOnce(&mut dyn std::io::Write) -> Result<()>) -> Result<Outcome> {
    let mut out = Output::create(&PathBuf::from("-"), Content::Text)?;
    run(&mut out)?;
    out.finish()?;
    Ok(Outcome::Done)
}
