//! One file a sub-command: open, load, run, write, report. Wiring only.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use crate::io::stdio::{Content, Output};

pub mod embed;
pub mod fetch;
pub mod init;
pub mod inspect;
pub mod merge;
pub mod models;
mod opened;
pub mod pretrain;
pub mod tokenize;

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done: exit code 0.
    Done,
    /// The output is complete but for records that were left out and listed: exit code 3.
    SomeFailed,
}

/// The sub-commands.
#[derive(Clone, Debug, Subcommand)]
#[expect(missing_docs, reason = "a command's help is that of its arguments")]
pub enum Command {
    Embed(Box<embed::EmbedArgs>),
    Merge(merge::MergeArgs),
    Inspect(inspect::InspectArgs),
    Tokenize(tokenize::TokenizeArgs),
    Fetch(fetch::FetchArgs),
    Models(models::ModelsArgs),
    Init(init::InitArgs),
    Pretrain(Box<pretrain::PretrainArgs>),
}

impl Command {
    /// CPU threads asked for, where the command has the flag.
    pub fn threads(&self) -> Option<usize> {
        match self {
            Command::Embed(args) => args.threads(),
            Command::Pretrain(args) => args.threads,
            _ => None,
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Whatever keeps it from being done.
    pub fn run(&self) -> Result<Outcome> {
        match self {
            Command::Embed(args) => embed::run(args),
            Command::Merge(args) => merge::run(args),
            Command::Inspect(args) => to_stdout(|out| inspect::run(args, out)),
            Command::Tokenize(args) => to_stdout(|out| tokenize::run(args, out)),
            Command::Fetch(args) => to_stdout(|out| fetch::run(args, out)),
            Command::Models(args) => to_stdout(|out| Ok(models::run(args, out)?)),
            Command::Init(args) => to_stdout(|out| init::run(args, out)),
            Command::Pretrain(args) => pretrain::run(args),
        }
    }
}

/// Runs a command that writes text to stdout.
fn to_stdout(run: impl FnOnce(&mut dyn std::io::Write) -> Result<()>) -> Result<Outcome> {
    let mut out = Output::create(&PathBuf::from("-"), Content::Text)?;
    run(&mut out)?;
    out.finish()?;
    Ok(Outcome::Done)
}
