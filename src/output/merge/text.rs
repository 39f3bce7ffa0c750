//! Merging FASTA files, tables and contact lists, with the manifest of the merged file.
//!
//! The manifests of shards have the number of rows of each sequence, also of sequences without
//! rows, so that rows can be interleaved without looking at their content.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::agreement::{Agreement, FileManifest, agree};
use super::embeddings::in_order;
use super::text_file::{TextFile, TextPiece};
use super::{MergeError, MergeTarget, join};
use crate::io::stdio::{Content, Output};
use crate::output::manifest::write_manifest;

/// Merges `files` into `output` and returns the number of rows. Values of the manifests under the
/// keys `united` are objects with one entry per protein of a file; the merged manifest has the
/// entries of all files.
///
/// # Errors
/// See [`MergeError`]; after an error there is no file `output`.
pub fn merge_text(files: Vec<TextFile>, output: &Path, united: &[&str]) -> Result<u64, MergeError> {
    let made: Vec<FileManifest<'_>> = files.iter().map(TextFile::made).collect();
    let Agreement {
        mut manifest,
        order,
    } = agree(&made, united)?;
    for other in files.iter().skip(1) {
        compare_headers(&files[0], other)?;
    }
    let mut merged = MergedText(Output::create(output, Content::Text)?);
    merged.0.write_all(&files[0].header)?;
    let are_shards = order.is_some();
    let mut files = in_order(files, order);
    let rows = join(&mut files, are_shards, &mut merged)?;
    merged.0.finish()?;
    manifest.written = Some(rows);
    write_manifest(output, &manifest)?;
    Ok(rows)
}

fn compare_headers(first: &TextFile, second: &TextFile) -> Result<(), MergeError> {
    if first.header == second.header {
        return Ok(());
    }
    let [left, right] = [first, second].map(|file| {
        let text = String::from_utf8_lossy(&file.header);
        Value::from(text.trim_end()).to_string()
    });
    let (first, second) = (first.path(), second.path());
    Err(MergeError::mismatch(first, second, "header", left, right))
}

struct MergedText(Output);

impl MergeTarget<TextPiece> for MergedText {
    fn ids(&self, piece: &TextPiece) -> Vec<String> {
        piece.ids.clone()
    }

    fn write(&mut self, piece: TextPiece) -> Result<u64, MergeError> {
        self.0.write_all(&piece.bytes)?;
        Ok(piece.rows)
    }
}
