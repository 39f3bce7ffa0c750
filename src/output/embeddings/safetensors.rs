//! SafeTensors: `safetensors.numpy.load_file(FILE)["P12345"]`, and the only format with bf16.
//!
//! The key is the id, or `id/column` when there are several columns; the tensor is `(d)` pooled,
//! `(L, d)` per residue. The schema is `__metadata__["ankh3"]`; when all columns are pooled it also
//! has the proteins' lengths (`lengths`, in order). The header precedes the data, so the data
//! wait in a temporary file. Readers of the format reject headers over 100 MB, about a million
//! proteins.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use ::safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::codec::{RecordWriter, Records};
use super::destination::EmbeddingOutput;
use super::error::{from_library, invalid_data};
use super::npz::{id_of_key, key};
use super::numbers::to_bytes;
use super::{EmbeddingRecord, SCHEMA_KEY, Schema};
use crate::shown::shown;

/// The largest header that the reference implementation accepts.
const MAX_HEADER: usize = 100_000_000;

/// An upper bound of what a tensor's entry takes in the header beyond its name: dtype, two sizes,
/// two offsets, the protein's length.
const ENTRY_BYTES: usize = 150;

/// The schema, and the lengths of proteins where no tensor shows them.
#[derive(Serialize, Deserialize)]
struct Provenance {
    #[serde(flatten)]
    schema: Schema,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lengths: Option<Vec<usize>>,
}

/// Spools tensors, keeps their names.
pub(super) struct SafetensorsWriter {
    output: EmbeddingOutput,
    spool: BufWriter<File>,
    tensors: Vec<(String, TensorInfo)>,
    names: HashSet<String>,
    offset: usize,
    header_bound: usize,
    provenance: Provenance,
}

impl SafetensorsWriter {
    pub(super) fn new(output: EmbeddingOutput, schema: &Schema) -> io::Result<Self> {
        let spool = BufWriter::with_capacity(1 << 16, output.spool()?);
        let lengths = schema.only_pooled().then(Vec::new);
        let provenance = Provenance {
            schema: schema.clone(),
            lengths,
        };
        // Twice: the JSON is itself a JSON string in the header, its quotes escaped.
        let header_bound = 2 * schema.longest().to_json()?.len() + ENTRY_BYTES;
        Ok(Self {
            output,
            spool,
            tensors: Vec::new(),
            names: HashSet::new(),
            offset: 0,
            header_bound,
            provenance,
        })
    }

    fn add(&mut self, name: String, shape: Vec<usize>, values: &[f32]) -> io::Result<()> {
        let dtype = self.provenance.schema.dtype;
        if name == "__metadata__" {
            return Err(invalid_data(format!(
                "safetensors keeps the name {name:?} for itself"
            )));
        }
        if !self.names.insert(name.clone()) {
            return Err(invalid_data(format!(
                "there is a tensor called `{}` already",
                shown(&name)
            )));
        }
        self.header_bound += serde_json::to_string(&name)?.len() + ENTRY_BYTES;
        if self.header_bound > MAX_HEADER {
            return Err(invalid_data(
                "safetensors has no room for more names (its header is limited to 100 MB); \
                 write several files with --shard, or use --format npz, h5 or parquet"
                    .into(),
            ));
        }
        let bytes = to_bytes(values, dtype)?;
        self.spool.write_all(&bytes)?;
        let data_offsets = (self.offset, self.offset + bytes.len());
        self.offset = data_offsets.1;
        self.tensors.push((
            name,
            TensorInfo {
                dtype: Dtype::from(dtype),
                shape,
                data_offsets,
            },
        ));
        Ok(())
    }
}

impl RecordWriter for SafetensorsWriter {
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()> {
        for (index, values) in record.values.iter().enumerate() {
            let schema = &self.provenance.schema;
            let column = &schema.columns[index];
            let (name, shape) = (key(&record.id, column, schema), column.shape(record.length));
            self.add(name, shape, values)?;
        }
        if let Some(lengths) = &mut self.provenance.lengths {
            lengths.push(record.length);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, schema: &Schema) -> io::Result<()> {
        self.provenance.schema = schema.clone();
        // One key only: the crate keeps this map in hash order, which differs from run to run.
        let provenance = serde_json::to_string(&self.provenance)?;
        let metadata = HashMap::from([(SCHEMA_KEY.to_owned(), provenance)]);
        let metadata = Metadata::new(Some(metadata), self.tensors).map_err(from_library)?;
        let mut header = serde_json::to_vec(&metadata)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        self.output
            .write_all(&(header.len() as u64).to_le_bytes())?;
        self.output.write_all(&header)?;
        self.output.append(
            self.spool
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?,
        )?;
        self.output.commit()
    }
}

/// Reads the schema from `__metadata__`, the records in the order of their data.
pub(super) fn open(path: &Path) -> io::Result<(Schema, Records)> {
    let mut data = BufReader::with_capacity(1 << 16, File::open(path)?);
    let file_bytes = data.get_ref().metadata()?.len();
    let (metadata, header_bytes) = read_metadata(&mut data)?;
    if 8 + header_bytes as u64 + metadata.data_len() as u64 != file_bytes {
        return Err(invalid_data(
            "it is not as long as its header promises".into(),
        ));
    }
    let provenance = metadata
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(SCHEMA_KEY));
    let provenance = provenance.ok_or_else(|| {
        invalid_data(format!(
            "it has no `{SCHEMA_KEY}` in its `__metadata__`; is it a model?"
        ))
    })?;
    let Provenance { schema, lengths } =
        serde_json::from_str(provenance).map_err(|error| invalid_data(error.to_string()))?;
    schema.check()?;
    let mut names = metadata.offset_keys();
    names.reverse();
    let lengths = lengths.map(Vec::into_iter);
    let records = SafetensorsRecords {
        data,
        metadata,
        names,
        lengths,
        schema: schema.clone(),
    };
    Ok((schema, Box::new(records)))
}

fn read_metadata(input: &mut impl Read) -> io::Result<(Metadata, usize)> {
    let mut size = [0; 8];
    input.read_exact(&mut size)?;
    let size = usize::try_from(u64::from_le_bytes(size)).unwrap_or(usize::MAX);
    if size > MAX_HEADER {
        return Err(invalid_data(
            "its header is larger than safetensors allows".into(),
        ));
    }
    let mut header = vec![0; size];
    input.read_exact(&mut header)?;
    let metadata = serde_json::from_slice(&header)
        .map_err(|error| invalid_data(format!("its header is no safetensors header: {error}")))?;
    Ok((metadata, size))
}

struct SafetensorsRecords {
    data: BufReader<File>,
    metadata: Metadata,
    /// Names still to read, the next one last.
    names: Vec<String>,
    lengths: Option<std::vec::IntoIter<usize>>,
    schema: Schema,
}

impl SafetensorsRecords {
    fn read_record(&mut self, mut name: String) -> io::Result<EmbeddingRecord> {
        let mut record = EmbeddingRecord {
            id: String::new(),
            length: 0,
            values: Vec::new(),
        };
        record.length = self.lengths.as_mut().and_then(Iterator::next).unwrap_or(0);
        for (index, column) in self.schema.columns.iter().enumerate() {
            if index > 0 {
                name = self.names.pop().unwrap_or_default();
            }
            let id = id_of_key(&name, column, &self.schema)?;
            if index == 0 {
                id.clone_into(&mut record.id);
            }
            let info = self
                .metadata
                .info(&name)
                .filter(|_| id == record.id)
                .ok_or_else(|| {
                    let id = shown(&record.id);
                    invalid_data(format!("{id}: no {:?} tensor", column.name))
                })?;
            if let [length, _] = info.shape[..] {
                record.length = length;
            }
            if info.dtype != Dtype::from(self.schema.dtype) {
                return Err(invalid_data(format!(
                    "{}: its type is {:?}",
                    shown(&name),
                    info.dtype
                )));
            }
            let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
            self.data.read_exact(&mut bytes)?;
            record.values.push(self.schema.dtype.to_values(&bytes));
        }
        Ok(record)
    }
}

impl Iterator for SafetensorsRecords {
    type Item = io::Result<EmbeddingRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.names.pop()?;
        Some(self.read_record(name))
    }
}
