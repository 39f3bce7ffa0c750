//! Row writers that several commands share.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::super::Outcome;
use super::RowWriter;
use crate::inference::pooling::EmbeddingColumns;
use crate::io::stdio::{Content, Output};
use crate::output::embeddings::{EmbeddingRecord, EmbeddingWriter};
use crate::output::entry::{EntryError, JournalEntry};
use crate::output::layout::{Layout, TextFormat};
use crate::output::manifest::{Manifest, write_manifest};
use crate::sequence::Sequence;
use crate::sequence::digest::InputDigest;

/// Writes one record of values per sequence, in any format of embeddings.
pub(in crate::commands) struct EmbeddingRows(pub(in crate::commands) EmbeddingWriter);

impl RowWriter for EmbeddingRows {
    type Output = Arc<EmbeddingColumns>;

    const KEEPS_PLACES: bool = false;

    fn write(&mut self, sequence: &Sequence, columns: Arc<EmbeddingColumns>) -> Result<()> {
        self.0.write(&EmbeddingRecord {
            id: sequence.id.clone(),
            length: sequence.residues.len(),
            values: Arc::unwrap_or_clone(columns),
        })?;
        Ok(())
    }

    fn pass_over(&mut self) {}

    fn finish(self, input: InputDigest) -> Result<Outcome> {
        self.0.finish(Some(input))?;
        Ok(Outcome::Done)
    }
}

/// The result of one sequence as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::commands) struct TextBlock {
    pub(in crate::commands) text: Vec<u8>,
    /// Number of records or lines.
    pub(in crate::commands) rows: u64,
}

impl JournalEntry for TextBlock {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.rows.to_le_bytes(), self.text.as_slice()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let (rows, text) = bytes.split_first_chunk().ok_or(EntryError)?;
        Ok(Self {
            text: text.to_vec(),
            rows: u64::from_le_bytes(*rows),
        })
    }
}

/// Writes blocks of text to a file, with a manifest beside it.
pub(in crate::commands) struct TextRows {
    output: Output,
    path: PathBuf,
    layout: Layout,
    manifest: Manifest,
}

impl TextRows {
    /// Opens the output, which begins with `header`.
    ///
    /// # Errors
    /// An output that cannot be written.
    pub(in crate::commands) fn create(
        path: &Path,
        format: TextFormat,
        header: &[u8],
        manifest: Manifest,
    ) -> Result<Self> {
        let begun = || {
            let mut output = Output::create(path, Content::Text)?;
            output.write_all(header)?;
            Ok::<_, io::Error>(output)
        };
        let output = begun().with_context(|| format!("writing {}", path.display()))?;
        Ok(Self {
            output,
            path: path.to_owned(),
            layout: Layout::new(format),
            manifest,
        })
    }
}

impl RowWriter for TextRows {
    type Output = TextBlock;

    const KEEPS_PLACES: bool = true;

    fn write(&mut self, _sequence: &Sequence, block: TextBlock) -> Result<()> {
        self.output.write_all(&block.text)?;
        self.layout.add(block.rows);
        self.layout.close_sequence();
        Ok(())
    }

    fn pass_over(&mut self) {
        self.layout.close_sequence();
    }

    fn finish(mut self, input: InputDigest) -> Result<Outcome> {
        self.output.finish()?;
        self.manifest.set_layout(&self.layout);
        self.manifest.input = Some(input);
        write_manifest(&self.path, &self.manifest)?;
        Ok(Outcome::Done)
    }
}
