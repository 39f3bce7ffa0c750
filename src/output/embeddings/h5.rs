//! HDF5 in the layout of UniProt's embedding files: `h5py.File(FILE)["P12345"][:]`.
//!
//! One column: one dataset per protein at the root, called by its id. Several columns: one group
//! per column, `file["mean"]["P12345"]`; a column `layer_12/mean` is a group in a group. A dataset
//! is `(d)` pooled, `(L, d)` per residue. HDF5 reads `/` in a name as a path and `.` as "here", so
//! in dataset names `%`, `/` and NUL are written `%25`, `%2F`, `%00` and a name of dots alone
//! begins with `%2E`: `urllib.parse.unquote` gives the id back. A name has at most 4000 bytes. Attributes of each dataset:
//! `original_id` (the id as it is in the input) and `residues` (L). Attributes of the file: one for
//! each entry of the metadata (text, or JSON for what is not text), and `ankh3`, the whole schema.
//! Groups remember their order, so that iterating gives the order of the input.
//!
//! The library writes to named files only, so the file grows in a temporary place and is
//! copied; it keeps about 3 KB per protein in memory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rust_hdf5::{DatatypeMessage, H5Dataset, H5File, H5Group, VarLenUnicode};
use serde_json::Value;

use super::codec::{RecordWriter, Records};
use super::destination::EmbeddingOutput;
use super::error::{from_hdf5, invalid_data, invalid_input};
use super::numbers::to_bytes;
use super::{Column, EmbeddingRecord, SCHEMA_KEY, Schema};
use crate::number::NumberType;
use crate::shown::shown;

/// The longest name of a dataset in bytes. A longer one does not fit into a block of the heap that
/// HDF5 keeps the names of a group in; h5py finds it elsewhere, the library of this program does not.
const MAX_NAME: usize = 4000;

const ORIGINAL_ID: &str = "original_id";

/// The name has eight letters so that, with `original_id`, each object header is a multiple of
/// eight bytes. Otherwise every header leaves a gap in the library's free list, which the library
/// searches from the start each time: closing a file of 200 000 proteins took 54 s instead of 7 s.
const RESIDUES: &str = "residues";

/// Writes datasets as they come.
pub(super) struct H5Writer {
    file: Option<H5File>,
    /// A second handle on the bytes that `file` writes.
    spool: File,
    groups: Vec<H5Group>,
    datatype: DatatypeMessage,
    output: EmbeddingOutput,
    schema: Schema,
}

impl H5Writer {
    pub(super) fn new(output: EmbeddingOutput, schema: &Schema) -> io::Result<Self> {
        let spool = output.path_spool()?;
        let file = H5File::options()
            .no_locking()
            .track_order(true)
            .create(spool.path())
            .map_err(from_hdf5)?;
        check_metadata(schema)?;
        let groups = create_groups(&file, schema)?;
        // The open handles keep the bytes of a file without a name, so a killed process leaves no
        // file behind.
        let spool = spool.into_file();
        let datatype = datatype(schema.dtype)?;
        Ok(Self {
            file: Some(file),
            spool,
            groups,
            datatype,
            output,
            schema: schema.clone(),
        })
    }
}

/// Rejects metadata that has the key of the schema.
fn check_metadata(schema: &Schema) -> io::Result<()> {
    if schema.metadata.settings.contains_key(SCHEMA_KEY) {
        return Err(invalid_input(format!(
            "metadata cannot have the key {SCHEMA_KEY:?}"
        )));
    }
    Ok(())
}

/// Writes the attributes of the file.
fn write_metadata(file: &H5File, schema: &Schema) -> io::Result<()> {
    for (key, value) in &schema.metadata.to_map()? {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        file.set_attr_string(key, &text).map_err(from_hdf5)?;
    }
    // The name by which protspace shows the model.
    if let Some(model) = &schema.metadata.model {
        file.set_attr_string("model_name", model)
            .map_err(from_hdf5)?;
    }
    file.set_attr_string(SCHEMA_KEY, &schema.to_json()?)
        .map_err(from_hdf5)
}

/// The group of each column's datasets.
fn create_groups(file: &H5File, schema: &Schema) -> io::Result<Vec<H5Group>> {
    if schema.columns.len() == 1 {
        return Ok(vec![file.root_group()]);
    }
    let mut made = HashSet::new();
    let mut groups = Vec::new();
    for column in &schema.columns {
        let mut group = file.root_group();
        let mut path = String::new();
        for part in column.name.split('/') {
            path = format!("{path}/{part}");
            let next = if made.insert(path.clone()) {
                group.create_group(part)
            } else {
                group.group(part)
            };
            group = next.map_err(from_hdf5)?;
        }
        groups.push(group);
    }
    Ok(groups)
}

impl RecordWriter for H5Writer {
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()> {
        let name = escape(&record.id);
        if name.len() > MAX_NAME {
            return Err(invalid_data(format!(
                "the id has {} bytes, more than h5 can hold ({MAX_NAME}); shorten the id, or use another --format",
                name.len()
            )));
        }
        for (index, values) in record.values.iter().enumerate() {
            let dataset = self.groups[index]
                .new_dataset::<u8>()
                .datatype(self.datatype.clone())
                .shape(self.schema.columns[index].shape(record.length))
                .create(&name)
                .map_err(|error| already(error, &record.id))?;
            let bytes = to_bytes(values, self.schema.dtype)?;
            dataset.write_raw_bytes(&bytes).map_err(from_hdf5)?;
            write_attributes(&dataset, record).map_err(from_hdf5)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, schema: &Schema) -> io::Result<()> {
        self.groups.clear();
        if let Some(file) = self.file.take() {
            write_metadata(&file, schema)?;
            file.close_no_sync().map_err(from_hdf5)?;
        }
        self.output.append(self.spool)?;
        self.output.commit()
    }
}

/// Names the id if the library reports that the name is in use.
fn already(error: rust_hdf5::Hdf5Error, id: &str) -> io::Error {
    if error.to_string().contains("already exists") {
        return invalid_data(format!("there is a dataset called `{}` already", shown(id)));
    }
    from_hdf5(error)
}

fn write_attributes(dataset: &H5Dataset, record: &EmbeddingRecord) -> rust_hdf5::Result<()> {
    let id = dataset
        .new_attr::<VarLenUnicode>()
        .shape(())
        .create(ORIGINAL_ID)?;
    id.write_string(&record.id)?;
    let residues = dataset.new_attr::<u64>().shape(()).create(RESIDUES)?;
    residues.write_numeric(&(record.length as u64))
}

fn datatype(dtype: NumberType) -> io::Result<DatatypeMessage> {
    match dtype {
        NumberType::F32 => Ok(DatatypeMessage::f32_type()),
        NumberType::F16 => Ok(DatatypeMessage::f16_type()),
        NumberType::Bf16 => Err(invalid_input("HDF5 has no bf16 numbers".into())),
    }
}

/// An id as the name of a dataset; see the head of this file.
fn escape(id: &str) -> String {
    let escaped = id
        .replace('%', "%25")
        .replace('/', "%2F")
        .replace('\0', "%00");
    if escaped.bytes().all(|byte| byte == b'.') {
        return escaped.replacen('.', "%2E", 1);
    }
    escaped
}

/// Reads the schema and the names, then the records in the order of the groups.
pub(super) fn open(path: &Path) -> io::Result<(Schema, Records)> {
    check_length(path)?;
    let file = H5File::options()
        .no_locking()
        .open(path)
        .map_err(from_hdf5)?;
    let schema = file.attr_string(SCHEMA_KEY).map_err(|_| {
        invalid_data(format!(
            "it has no `{SCHEMA_KEY}` attribute; was it written by another tool?"
        ))
    })?;
    let schema = Schema::from_json(&schema)?;
    schema.check()?;
    let names = names_of_column(&file, &schema)?;
    let of_schema = schema.clone();
    let records = names
        .into_iter()
        .map(move |name| read_record(&file, &name, &of_schema));
    Ok((schema, Box::new(records)))
}

/// Checks that the file is as long as its superblock says, because the library reads a truncated
/// file as far as it goes. Superblocks of version 2 and 3, which the library writes, have the
/// address of the end at byte 28.
fn check_length(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut superblock = [0; 36];
    file.read_exact(&mut superblock)?;
    let (begin, end) = superblock.split_at(28);
    let end = u64::from_le_bytes(end.try_into().expect("8 of 36 bytes"));
    let is_known = begin.starts_with(b"\x89HDF\r\n\x1a\n") && matches!(begin[8], 2 | 3);
    let length = file.metadata()?.len();
    if is_known && length < end {
        return Err(invalid_data(format!(
            "the file has {length} of {end} bytes, so it is truncated; make it again"
        )));
    }
    Ok(())
}

fn names_of_column(file: &H5File, schema: &Schema) -> io::Result<Vec<String>> {
    let all = file.dataset_names();
    if schema.columns.len() == 1 {
        return Ok(all);
    }
    let of = |column: &Column| {
        let prefix = format!("{}/", column.name);
        all.iter()
            .filter_map(move |path| path.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect()
    };
    let names: Vec<String> = of(&schema.columns[0]);
    if names.len() * schema.columns.len() != all.len() {
        return Err(invalid_data(
            "the columns have different numbers of datasets".into(),
        ));
    }
    Ok(names)
}

fn read_record(file: &H5File, name: &str, schema: &Schema) -> io::Result<EmbeddingRecord> {
    let mut record = EmbeddingRecord {
        id: String::new(),
        length: 0,
        values: Vec::new(),
    };
    for column in &schema.columns {
        let path = match schema.columns.len() {
            1 => name.to_owned(),
            _ => format!("{}/{name}", column.name),
        };
        let dataset = file.dataset(&path).map_err(from_hdf5)?;
        if record.values.is_empty() {
            let id = dataset.attr(ORIGINAL_ID).and_then(|id| id.read_string());
            record.id = id.map_err(from_hdf5)?;
            let length = dataset
                .attr(RESIDUES)
                .and_then(|length| length.read_numeric::<u64>());
            record.length = length.map_err(from_hdf5)? as usize;
        }
        if dataset.shape() != column.shape(record.length)
            || dataset.datatype().map_err(from_hdf5)? != datatype(schema.dtype)?
        {
            return Err(invalid_data(format!(
                "dataset `{}` does not have the shape of its column",
                shown(&path)
            )));
        }
        let bytes = dataset.read_raw_bytes().map_err(from_hdf5)?;
        record.values.push(schema.dtype.to_values(&bytes));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_path_in_them_and_stay_apart() {
        let cases = [
            ("P12345", "P12345"),
            ("sp|P12345/2-90", "sp|P12345%2F2-90"),
            ("100%2F", "100%252F"),
            (".", "%2E"),
            ("..", "%2E."),
            ("...a", "...a"),
            ("a\0b", "a%00b"),
        ];
        for (id, name) in cases {
            assert_eq!(escape(id), name);
        }
    }
}
