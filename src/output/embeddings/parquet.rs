//! Apache Parquet: `polars.read_parquet(FILE)`, `pyarrow.parquet.read_table(FILE)`.
//!
//! One row per protein; columns as in `record_batch.rs`. Values are compressed with zstd, without
//! dictionaries or statistics (values hardly repeat, and nobody filters by them). Row groups of
//! about 64 MiB are written as they fill, so the file can be piped.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use ::parquet::arrow::{ARROW_SCHEMA_META_KEY, encode_arrow_schema};
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use arrow_array::RecordBatch;
use arrow_schema::Schema as ArrowSchema;

use super::codec::{RecordWriter, Records};
use super::destination::EmbeddingOutput;
use super::error::from_library;
use super::guarded::guarded;
use super::record_batch::{BatchBuilder, records, schema_of};
use super::{EmbeddingRecord, SCHEMA_KEY, Schema};

/// Bytes of values after which a row group ends.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Rows decoded at a time; the row of a long protein has hundreds of megabytes.
const READ_ROWS: usize = 16;

/// Writes row groups as they fill.
pub(super) struct ParquetWriter {
    arrow: ArrowWriter<EmbeddingOutput>,
    batches: BatchBuilder,
    group_bytes: usize,
}

impl ParquetWriter {
    pub(super) fn new(output: EmbeddingOutput, schema: &Schema) -> io::Result<Self> {
        let batches = BatchBuilder::new(schema)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        // The manifest is complete at the end of the file only, so the Arrow schema, which carries it, is written there.
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let fields = Arc::new(ArrowSchema::new(batches.arrow_schema().fields().clone()));
        let arrow =
            ArrowWriter::try_new_with_options(output, fields, options).map_err(from_library)?;
        Ok(Self {
            arrow,
            batches,
            group_bytes: 0,
        })
    }

    fn write_batch(&mut self, batch: &RecordBatch) -> io::Result<()> {
        self.arrow.write(batch).map_err(from_library)?;
        self.group_bytes += batch.get_array_memory_size();
        if self.group_bytes >= ROW_GROUP_BYTES {
            self.group_bytes = 0;
            self.arrow.flush().map_err(from_library)?;
        }
        Ok(())
    }
}

impl RecordWriter for ParquetWriter {
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()> {
        match self.batches.add(record)? {
            Some(batch) => self.write_batch(&batch),
            None => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>, schema: &Schema) -> io::Result<()> {
        if let Some(batch) = self.batches.take()? {
            self.write_batch(&batch)?;
        }
        let json = schema.to_json()?;
        let metadata = HashMap::from([(SCHEMA_KEY.to_owned(), json.clone())]);
        let fields = self.batches.arrow_schema().fields().clone();
        let encoded = encode_arrow_schema(&ArrowSchema::new_with_metadata(fields, metadata));
        for (key, value) in [(SCHEMA_KEY, json), (ARROW_SCHEMA_META_KEY, encoded)] {
            let entry = KeyValue::new(key.to_owned(), value);
            self.arrow.append_key_value_metadata(entry);
        }
        self.arrow.into_inner().map_err(from_library)?.commit()
    }
}

/// Reads the schema from the footer, the records a few rows at a time.
pub(super) fn open(path: &Path) -> io::Result<(Schema, Records)> {
    let file = File::open(path)?;
    let builder = guarded(|| ParquetRecordBatchReaderBuilder::try_new(file))?;
    let schema = schema_of(builder.schema())?;
    let batches = guarded(|| builder.with_batch_size(READ_ROWS).build())?;
    Ok((schema.clone(), Box::new(records(batches, schema))))
}
