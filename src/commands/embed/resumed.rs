//! What an earlier run left of an output: its journal, and files that it could not take away.

use std::path::Path;

use anyhow::{Context, Result};

use crate::output::embeddings::{Schema, remove_unfinished};
use crate::output::journal::{self, Journal, Replay};

/// The journal of a run that can be resumed.
#[derive(Default)]
pub(super) struct Resumed {
    pub replay: Option<Replay>,
    pub journal: Option<Journal>,
}

impl Resumed {
    /// Opens the journal of `output`. Its key is the schema: everything that influences the values.
    pub(super) fn open(resume: bool, output: &Path, schema: &Schema) -> Result<Self> {
        if !resume {
            return Ok(Self::default());
        }
        let path = journal::path_for(output);
        let (replay, journal) = journal::open(&path, &schema.journal_key()?)?;
        // The open journal is locked: whatever lies there unfinished belongs to nobody any more.
        remove_unfinished(output).with_context(|| format!("writing {}", output.display()))?;
        if replay.left() > 0 {
            tracing::info!("resuming: {} sequences are done already", replay.left());
        }
        Ok(Self {
            replay: Some(replay),
            journal: Some(journal),
        })
    }
}
