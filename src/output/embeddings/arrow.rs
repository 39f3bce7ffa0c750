//! Apache Arrow IPC stream: `pyarrow.ipc.open_stream(FILE).read_all()`; suitable for pipes.
//!
//! One row per protein; columns as in `record_batch.rs`, in batches of about 16 MiB. A stream
//! begins with its schema, before the input is read, so the manifest in the stream lacks the number
//! of records and the digest of the input. A file has the complete manifest beside it as
//! `FILE.json`.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;

use super::codec::{RecordWriter, Records};
use super::destination::{EmbeddingOutput, read_schema};
use super::error::{from_library, invalid_data};
use super::guarded::guarded;
use super::record_batch::{BatchBuilder, records, schema_of};
use super::{EmbeddingRecord, Schema};

/// Writes batches as they fill.
pub(super) struct ArrowWriter {
    stream: StreamWriter<EmbeddingOutput>,
    batches: BatchBuilder,
}

impl ArrowWriter {
    pub(super) fn new(output: EmbeddingOutput, schema: &Schema) -> io::Result<Self> {
        let batches = BatchBuilder::new(schema)?;
        let stream = StreamWriter::try_new(output, &batches.arrow_schema());
        Ok(Self {
            stream: stream.map_err(from_library)?,
            batches,
        })
    }

    fn write_batch(&mut self, batch: &RecordBatch) -> io::Result<()> {
        self.stream.write(batch).map_err(from_library)
    }
}

impl RecordWriter for ArrowWriter {
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
        let output = self.stream.into_inner().map_err(from_library)?;
        output.write_schema(schema)?;
        output.commit()
    }
}

/// The mark at the end of a stream, without which Arrow's reader takes a file that was cut off
/// between two batches for complete.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Checks that the stream has its end, and goes back to its start.
fn check_end(file: &mut BufReader<File>) -> io::Result<()> {
    let mut end = [0; END.len()];
    let is_long = file.seek(SeekFrom::End(0))? >= END.len() as u64;
    if is_long {
        file.seek(SeekFrom::End(-(END.len() as i64)))?;
        file.read_exact(&mut end)?;
    }
    if end != END {
        return Err(invalid_data(
            "the stream has no end, so the file is truncated; make it again".into(),
        ));
    }
    file.rewind()
}

/// Reads the schema, then the records batch by batch. The schema in `FILE.json` is used if it
/// differs from the schema in the stream only by the counts.
pub(super) fn open(path: &Path) -> io::Result<(Schema, Records)> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    check_end(&mut file)?;
    let stream = guarded(|| StreamReader::try_new(file, None))?;
    let first = schema_of(&stream.schema())?;
    let complete = read_schema(path)?.filter(|complete| complete.before_records() == first);
    let schema = complete.unwrap_or(first);
    Ok((schema.clone(), Box::new(records(stream, schema))))
}
