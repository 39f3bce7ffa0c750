//! One NumPy array of all rows, `(proteins, d)` pooled or `(residues of all proteins, d)`.
//!
//! `FILE.index.tsv` has the rows of each protein: `id  length  start  rows`; the rows of a protein
//! are `array[start : start + rows]`. The schema is in `FILE.json`. A stream can have neither file
//! beside it and is an error. The header has the number of rows, so the values wait in a temporary
//! file.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use npyz::WriterBuilder as _;

use super::codec::{RecordWriter, Records};
use super::destination::{EmbeddingOutput, read_schema};
use super::error::{from_library, invalid_data, invalid_input};
use super::numbers::to_bytes;
use super::{EmbeddingRecord, Schema};
use crate::io::whole_lines::WholeLines;
use crate::number::NumberType;
use crate::output::manifest::with_suffix;

const INDEX: &str = ".index.tsv";
const INDEX_HEADER: [&str; 4] = ["id", "length", "start", "rows"];

/// Collects the values in a temporary file and writes the index.
pub(super) struct NpyWriter {
    output: EmbeddingOutput,
    spool: BufWriter<File>,
    index: csv::Writer<EmbeddingOutput>,
    schema: Schema,
    rows: usize,
}

impl NpyWriter {
    pub(super) fn new(output: EmbeddingOutput, schema: &Schema) -> io::Result<Self> {
        let Some(index) = output.beside(INDEX)? else {
            return Err(invalid_input(
                "npy needs a file, because its index stands beside it; use --output FILE.npy, or \
                 --format npz, which can be piped"
                    .into(),
            ));
        };
        let mut index = csv::WriterBuilder::new()
            .delimiter(b'\t')
            .from_writer(index);
        index.write_record(INDEX_HEADER).map_err(from_library)?;
        let spool = BufWriter::with_capacity(1 << 16, output.spool()?);
        Ok(Self {
            output,
            spool,
            index,
            schema: schema.clone(),
            rows: 0,
        })
    }
}

impl RecordWriter for NpyWriter {
    fn write(&mut self, record: &EmbeddingRecord) -> io::Result<()> {
        let rows = self.schema.columns[0].rows_of(record.length);
        self.spool
            .write_all(&to_bytes(&record.values[0], self.schema.dtype)?)?;
        let numbers = [record.length, self.rows, rows].map(|number| number.to_string());
        let row = [&record.id, &numbers[0], &numbers[1], &numbers[2]];
        self.index.write_record(row).map_err(from_library)?;
        self.rows += rows;
        Ok(())
    }

    fn finish(mut self: Box<Self>, schema: &Schema) -> io::Result<()> {
        let shape = [self.rows, self.schema.columns[0].width];
        write_header(&mut self.output, self.schema.dtype, &shape)?;
        let spool = self
            .spool
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        self.output.append(spool)?;
        self.output.write_schema(schema)?;
        self.index
            .into_inner()
            .map_err(csv::IntoInnerError::into_error)?
            .commit()?;
        self.output.commit()
    }
}

/// NumPy's name of a number type; bf16 has none and is rejected earlier.
fn descriptor(dtype: NumberType) -> io::Result<npyz::TypeStr> {
    let name = match dtype {
        NumberType::F32 => "<f4",
        NumberType::F16 => "<f2",
        NumberType::Bf16 => return Err(invalid_input("NumPy has no bf16 numbers".into())),
    };
    name.parse().map_err(from_library)
}

/// Writes the header of an array of `shape`; its values follow in C order.
pub(super) fn write_header(
    output: impl Write,
    dtype: NumberType,
    shape: &[usize],
) -> io::Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
    npyz::WriteOptions::new_header_only()
        .dtype(npyz::DType::Plain(descriptor(dtype)?))
        .shape(&shape)
        .writer(output)
        .write_header_only()?;
    Ok(())
}

/// Reads a header and gives the array's shape.
pub(super) fn read_header(input: impl Read, dtype: NumberType) -> io::Result<Vec<usize>> {
    let header = npyz::NpyHeader::from_reader(input)?;
    if header.dtype() != npyz::DType::Plain(descriptor(dtype)?) || header.order() != npyz::Order::C
    {
        return Err(invalid_data(format!(
            "it holds no {} array in C order",
            dtype.name()
        )));
    }
    Ok(header.shape().iter().map(|&size| size as usize).collect())
}

/// Reads the schema from `FILE.json` and the records by `FILE.index.tsv`.
pub(super) fn open(path: &Path) -> io::Result<(Schema, Records)> {
    let schema = read_schema(path)?
        .ok_or_else(|| invalid_data("there is no FILE.json beside it with its schema".into()))?;
    let mut array = BufReader::with_capacity(1 << 16, File::open(path)?);
    let shape = read_header(&mut array, schema.dtype)?;
    let [_, width] = shape[..] else {
        return Err(invalid_data(format!(
            "its shape {shape:?} is not (rows, values)"
        )));
    };
    if schema.columns.len() != 1 || schema.columns[0].width != width {
        return Err(invalid_data(
            "its shape is not that of the column in FILE.json".into(),
        ));
    }
    let index = File::open(with_suffix(path, INDEX))
        .map_err(|error| invalid_data(format!("its FILE{INDEX} cannot be read: {error}")))?;
    let index = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .from_reader(WholeLines::new(BufReader::new(index)));
    let first = array.stream_position()?;
    let absurd = || invalid_data(format!("its shape {shape:?} is absurd"));
    let row_bytes = width.checked_mul(schema.dtype.size()).ok_or_else(absurd)?;
    let bytes = shape[0].checked_mul(row_bytes).ok_or_else(absurd)?;
    // From here on, products of rows of this array cannot overflow.
    array_length_check(path, first, bytes)?;
    let (dtype, column, total) = (schema.dtype, schema.columns[0].clone(), shape[0]);
    let records = index.into_deserialize().map(move |row| {
        let (id, length, start, rows): (String, usize, usize, usize) = row.map_err(from_library)?;
        if rows != column.rows_of(length) || start.checked_add(rows).is_none_or(|end| end > total) {
            return Err(invalid_data(format!(
                "FILE{INDEX} gives {id} {rows} rows from {start} on for a length of {length}; the array has {total} rows"
            )));
        }
        let mut bytes = vec![0; rows * row_bytes];
        let offset = (first + (start * row_bytes) as u64) as i64;
        let here = array.stream_position()? as i64;
        array.seek_relative(offset - here)?;
        array.read_exact(&mut bytes)?;
        Ok(EmbeddingRecord {
            id,
            length,
            values: vec![dtype.to_values(&bytes)],
        })
    });
    Ok((schema, Box::new(records)))
}

/// Rejects a truncated array when the file is opened, not at the last record.
fn array_length_check(path: &Path, first: u64, bytes: usize) -> io::Result<()> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    if end.checked_sub(first) != Some(bytes as u64) {
        return Err(invalid_data(format!(
            "the file has {end} bytes, but {} according to its header",
            first.saturating_add(bytes as u64)
        )));
    }
    Ok(())
}
