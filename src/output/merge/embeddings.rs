//! Merging embedding files, whatever their formats.

use std::path::Path;

use super::agreement::{Agreement, FileManifest, agree};
use super::{MergeError, MergeSource, MergeTarget, join};
use crate::number::NumberType;
use crate::output::embeddings::{
    EmbeddingFormat, EmbeddingReader, EmbeddingRecord, EmbeddingWriter, Schema,
};

/// Merges `inputs` into the file `output`, `-` for standard output, with numbers of type `dtype`
/// (by default the type of the inputs), and returns the number of records.
///
/// # Errors
/// See [`MergeError`]; after an error there is no file `output`.
pub fn merge_embeddings(
    inputs: Vec<EmbeddingReader>,
    format: EmbeddingFormat,
    dtype: Option<NumberType>,
    output: &Path,
) -> Result<u64, MergeError> {
    for other in inputs.iter().skip(1) {
        compare(&inputs[0], other)?;
    }
    let files: Vec<FileManifest<'_>> = inputs.iter().map(made).collect();
    let Agreement { manifest, order } = agree(&files, &[])?;
    let first = inputs[0].schema();
    let schema = Schema {
        columns: first.columns.clone(),
        dtype: dtype.unwrap_or(first.dtype),
        metadata: manifest,
    };
    let mut writer = EmbeddingWriter::create(format, &schema, output)?;
    let are_shards = order.is_some();
    let mut inputs = in_order(inputs, order);
    let records = join(&mut inputs, are_shards, &mut writer)?;
    writer.finish(schema.metadata.input)?;
    Ok(records)
}

/// `files` in the order of `numbers`, or unchanged.
pub(super) fn in_order<T>(files: Vec<T>, order: Option<Vec<usize>>) -> Vec<T> {
    let Some(order) = order else {
        return files;
    };
    let mut files: Vec<Option<T>> = files.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|at| files[at].take())
        .collect()
}

fn made(reader: &EmbeddingReader) -> FileManifest<'_> {
    FileManifest {
        path: reader.path(),
        manifest: &reader.schema().metadata,
    }
}

/// Checks that two files have the same number type and columns.
fn compare(first: &EmbeddingReader, second: &EmbeddingReader) -> Result<(), MergeError> {
    let (left, right) = (first.schema(), second.schema());
    let mismatch = |field: &str, left: String, right: String| {
        MergeError::mismatch(first.path(), second.path(), field, left, right)
    };
    if left.dtype != right.dtype {
        let [left, right] = [left, right].map(|schema| schema.dtype.name().to_owned());
        return Err(mismatch("dtype", left, right));
    }
    if left.columns != right.columns {
        let [left, right] =
            [left, right].map(|schema| serde_json::to_string(&schema.columns).unwrap_or_default());
        return Err(mismatch("columns", left, right));
    }
    Ok(())
}

impl MergeSource for EmbeddingReader {
    type Piece = EmbeddingRecord;

    fn path(&self) -> &Path {
        EmbeddingReader::path(self)
    }

    fn next_piece(&mut self) -> Result<Option<EmbeddingRecord>, MergeError> {
        Ok(self.next().transpose()?)
    }
}

impl MergeTarget<EmbeddingRecord> for EmbeddingWriter {
    fn ids(&self, record: &EmbeddingRecord) -> Vec<String> {
        vec![record.id.clone()]
    }

    fn write(&mut self, record: EmbeddingRecord) -> Result<u64, MergeError> {
        EmbeddingWriter::write(self, &record)?;
        Ok(1)
    }
}
