//! The inputs and outputs of a run. Errors that do not depend on the model are found here, before a
//! model is opened.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Conveyor, Forecast};
use crate::args::{ScaleArgs, usage};
use crate::commands::check_outputs;
use crate::input::sequences::{Counts, Input, Item, OnBad, Options};
use crate::input::survey::Survey;
use crate::io::stdio::{self, Content};
use crate::output::embeddings::remove_unfinished;
use crate::output::journal::{self, Journal, Replay};
use crate::progress::Progress;
use crate::sequence::digest::InputDigest;
use crate::sequence::{Sequence, counted};

/// A run whose input is open and whose outputs can be written.
pub(in crate::commands) struct RunPlan {
    proteins: Proteins,
    on_bad: OnBad,
    scale: ScaleArgs,
    /// The outputs; the journal is beside the first one.
    outputs: Vec<PathBuf>,
    /// Residues of all sequences, where these are in memory.
    residues: Option<u64>,
}

/// The sequences of a run.
pub(super) struct Proteins {
    input: Input,
    survey: Option<Survey>,
    /// The first sequence, if it was read ahead.
    first: Option<Item>,
}

impl RunPlan {
    /// Opens FASTA `files` and begins to read them.
    ///
    /// # Errors
    /// Files that are missing, outputs that cannot be written, `--resume` without a file to write.
    pub(in crate::commands) fn new(
        files: &[PathBuf],
        options: Options,
        scale: &ScaleArgs,
        outputs: &[(&Path, Content)],
    ) -> Result<Self> {
        check(scale, outputs)?;
        let on_bad = options.on_bad;
        let proteins = Proteins {
            input: Input::open(files, options)?,
            survey: Survey::start(files),
            first: None,
        };
        Ok(Self::of(proteins, on_bad, scale, outputs))
    }

    /// A plan for sequences in memory.
    ///
    /// # Errors
    /// Outputs that cannot be written, `--resume` without a file to write.
    pub(in crate::commands) fn of_sequences(
        sequences: Vec<Sequence>,
        options: Options,
        scale: &ScaleArgs,
        outputs: &[(&Path, Content)],
    ) -> Result<Self> {
        check(scale, outputs)?;
        let on_bad = options.on_bad;
        let lengths = sequences.iter().map(|sequence| sequence.residues.len());
        let residues = lengths.map(|length| length as u64).sum();
        let proteins = Proteins {
            input: Input::of(sequences, options)?,
            survey: None,
            first: None,
        };
        Ok(Self {
            residues: Some(residues),
            ..Self::of(proteins, on_bad, scale, outputs)
        })
    }

    fn of(
        proteins: Proteins,
        on_bad: OnBad,
        scale: &ScaleArgs,
        outputs: &[(&Path, Content)],
    ) -> Self {
        let outputs = outputs.iter().map(|(path, _)| (*path).to_owned());
        Self {
            proteins,
            on_bad,
            scale: scale.clone(),
            outputs: outputs.collect(),
            residues: None,
        }
    }

    /// The treatment of an invalid record.
    pub(in crate::commands) fn on_bad(&self) -> OnBad {
        self.on_bad
    }

    /// Checks that the input has exactly one protein.
    ///
    /// # Errors
    /// An input without a protein, or with more than one.
    pub(in crate::commands) fn expect_one_protein(&mut self) -> Result<()> {
        let proteins = &mut self.proteins;
        let first = proteins.next().context("no sequence to draw")??;
        ensure!(
            proteins.next().transpose()?.is_none(),
            usage("--plot draws one protein, and the input has more; give it one record")
        );
        proteins.first = Some(first);
        Ok(())
    }

    /// Opens the journal, with --resume. The `key` describes everything that influences the
    /// results.
    ///
    /// # Errors
    /// The journal of another run; the error names the differences.
    pub(in crate::commands) fn begin(self, key: &str) -> Result<Conveyor> {
        let (replay, journal) = if self.scale.resume {
            let (replay, journal) = self.open_journal(key)?;
            (Some(replay), Some(journal))
        } else {
            (None, None)
        };
        let mut proteins = self.proteins;
        let mut progress = Progress::new();
        if let Some(residues) = self.residues {
            progress.expect(residues / self.scale.shard.map_or(1, |shard| shard.count));
        }
        Ok(Conveyor {
            shard: self.scale.shard,
            on_bad: self.on_bad,
            replay,
            journal,
            forecast: Forecast {
                survey: proteins.survey.take(),
                shards: self.scale.shard.map_or(1, |shard| shard.count),
                size: None,
            },
            proteins,
            progress,
            writing: format!("writing {}", self.outputs[0].display()),
        })
    }

    fn open_journal(&self, key: &str) -> Result<(Replay, Journal)> {
        let path = journal::path_for(&self.outputs[0]);
        let (replay, journal) = journal::open(&path, key)?;
        self.outputs
            .iter()
            .for_each(|output| remove_unfinished(output));
        if replay.left() > 0 {
            tracing::info!(
                "resuming: {} already done",
                counted(replay.left(), "sequence")
            );
        }
        Ok((replay, journal))
    }
}

impl Proteins {
    pub(super) fn counts(&self) -> &Counts {
        self.input.counts()
    }

    /// The digest of all sequences read.
    pub(super) fn digest(&self) -> InputDigest {
        self.input.digest()
    }
}

impl Iterator for Proteins {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        let first = self.first.take().map(Ok);
        first.or_else(|| Some(self.input.next()?.map_err(Into::into)))
    }
}

fn check(scale: &ScaleArgs, outputs: &[(&Path, Content)]) -> Result<()> {
    ensure!(
        !(scale.resume && outputs.iter().take(1).any(|(path, _)| stdio::is_dash(path))),
        usage("--resume needs a file: add -o FILE")
    );
    check_outputs(outputs.iter().copied())
}
