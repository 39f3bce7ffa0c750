//! What a format consists of: a writer of records, and the records of a file.

use std::io;

use super::{EmbeddingRecord, Schema};

/// The writer of one format. Records come in order and have the shapes of the schema.
pub(super) trait RecordWriter: Send {
    /// Writes one record.
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()>;
    /// Writes the end of the file with the final `schema`, and gives the file its name.
    fn finish(self: Box<Self>, schema: &Schema) -> io::Result<()>;
}

/// The records of one file, in the order in which they were written.
pub(super) type Records = Box<dyn Iterator<Item = io::Result<EmbeddingRecord>> + Send>;
