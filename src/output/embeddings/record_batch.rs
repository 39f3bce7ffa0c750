//! Records as rows of Arrow tables, shared by [`super::parquet`] and [`super::arrow`].
//!
//! Columns `id` (text), `length` (int64) and one for each embedding column: a fixed-size list of
//! `d` float32 or float16 pooled, a list of such lists per residue. Nothing is null. The schema's
//! metadata has the key `ankh3`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float16Array, Float32Array, Int64Array, ListArray,
    RecordBatch, StringArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, FieldRef, Schema as ArrowSchema, SchemaRef};

use super::error::{from_library, invalid_data, invalid_input};
use super::guarded::guarded;
use super::numbers::to_f16;
use super::{Column, EmbeddingRecord, RowKind, SCHEMA_KEY, Schema};
use crate::number::NumberType;

/// Values after which a batch is full: 16 MiB in single precision.
const BATCH_VALUES: usize = 4 << 20;
/// Records after which a batch is full.
const BATCH_RECORDS: usize = 1024;

/// Collects records until a batch is full. The ends of batches depend on the records alone.
pub(super) struct BatchBuilder {
    arrow: SchemaRef,
    schema: Schema,
    ids: Vec<String>,
    lengths: Vec<i64>,
    values: Vec<Vec<f32>>,
}

impl BatchBuilder {
    pub(super) fn new(schema: &Schema) -> io::Result<Self> {
        Ok(Self {
            arrow: Arc::new(arrow_schema(schema)?),
            schema: schema.clone(),
            ids: Vec::new(),
            lengths: Vec::new(),
            values: vec![Vec::new(); schema.columns.len()],
        })
    }

    pub(super) fn arrow_schema(&self) -> SchemaRef {
        self.arrow.clone()
    }

    /// Adds a record; returns the batch if it is full.
    pub(super) fn add(&mut self, record: &EmbeddingRecord) -> io::Result<Option<RecordBatch>> {
        self.ids.push(record.id.clone());
        self.lengths.push(record.length as i64);
        for (gathered, values) in self.values.iter_mut().zip(&record.values) {
            gathered.extend_from_slice(values);
        }
        let values: usize = self.values.iter().map(Vec::len).sum();
        if values < BATCH_VALUES && self.ids.len() < BATCH_RECORDS {
            return Ok(None);
        }
        self.take()
    }

    /// The records since the last batch as a batch; `None` if there are none.
    pub(super) fn take(&mut self) -> io::Result<Option<RecordBatch>> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        let ids = std::mem::take(&mut self.ids);
        let lengths = std::mem::take(&mut self.lengths);
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(ids)),
            Arc::new(Int64Array::from(lengths.clone())),
        ];
        for (column, values) in self.schema.columns.iter().zip(&mut self.values) {
            let values = std::mem::take(values);
            arrays.push(column_array(column, self.schema.dtype, &lengths, values)?);
        }
        RecordBatch::try_new(self.arrow.clone(), arrays)
            .map(Some)
            .map_err(from_library)
    }
}

fn arrow_schema(schema: &Schema) -> io::Result<ArrowSchema> {
    let mut fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("length", DataType::Int64, false),
    ];
    for column in &schema.columns {
        let row = DataType::FixedSizeList(value_field(schema.dtype)?, width(column)?);
        let data_type = match column.rows {
            RowKind::PerSequence => row,
            RowKind::PerResidue | RowKind::PerPair => DataType::List(row_field(row)),
        };
        fields.push(Field::new(&column.name, data_type, false));
    }
    let metadata = HashMap::from([(SCHEMA_KEY.to_owned(), schema.to_json()?)]);
    Ok(ArrowSchema::new_with_metadata(fields, metadata))
}

fn value_field(dtype: NumberType) -> io::Result<FieldRef> {
    let data_type = match dtype {
        NumberType::F32 => DataType::Float32,
        NumberType::F16 => DataType::Float16,
        NumberType::Bf16 => return Err(invalid_input("Arrow has no bf16 numbers".into())),
    };
    Ok(Arc::new(Field::new("element", data_type, false)))
}

fn row_field(row: DataType) -> FieldRef {
    Arc::new(Field::new("element", row, false))
}

fn width(column: &Column) -> io::Result<i32> {
    i32::try_from(column.width).map_err(from_library)
}

fn column_array(
    column: &Column,
    dtype: NumberType,
    lengths: &[i64],
    values: Vec<f32>,
) -> io::Result<ArrayRef> {
    let values: ArrayRef = match dtype {
        NumberType::F16 => Arc::new(Float16Array::from(to_f16(&values)?)),
        _ => Arc::new(Float32Array::from(values)),
    };
    let rows = FixedSizeListArray::try_new(value_field(dtype)?, width(column)?, values, None)
        .map_err(from_library)?;
    if column.rows == RowKind::PerSequence {
        return Ok(Arc::new(rows));
    }
    let field = row_field(rows.data_type().clone());
    let offsets = OffsetBuffer::from_lengths(lengths.iter().map(|&length| length as usize));
    let list = ListArray::try_new(field, offsets, Arc::new(rows), None).map_err(from_library)?;
    Ok(Arc::new(list))
}

/// Our schema in an Arrow schema's metadata.
pub(super) fn schema_of(arrow: &ArrowSchema) -> io::Result<Schema> {
    let json = arrow.metadata().get(SCHEMA_KEY).ok_or_else(|| {
        invalid_data(format!(
            "the schema has no metadata `{SCHEMA_KEY}`; was the file written by another tool?"
        ))
    })?;
    let schema = Schema::from_json(json)?;
    schema.check()?;
    if arrow.fields() != arrow_schema(&schema)?.fields() {
        return Err(invalid_data(format!(
            "the columns differ from those in the metadata `{SCHEMA_KEY}`"
        )));
    }
    Ok(schema)
}

/// The records of a batch that has the columns [`schema_of`] checked.
pub(super) fn records_of(batch: &RecordBatch, schema: &Schema) -> Vec<EmbeddingRecord> {
    let ids = batch.column(0).as_string::<i32>();
    let lengths = batch.column(1).as_primitive::<Int64Type>();
    (0..batch.num_rows())
        .map(|row| EmbeddingRecord {
            id: ids.value(row).to_owned(),
            length: lengths.value(row) as usize,
            values: (0..schema.columns.len())
                .map(|column| block(batch.column(2 + column), row, &schema.columns[column]))
                .collect(),
        })
        .collect()
}

fn block(array: &ArrayRef, row: usize, column: &Column) -> Vec<f32> {
    let values = match column.rows {
        RowKind::PerSequence => array.as_fixed_size_list().value(row),
        RowKind::PerResidue | RowKind::PerPair => array
            .as_list::<i32>()
            .value(row)
            .as_fixed_size_list()
            .values()
            .clone(),
    };
    match values.as_primitive_opt::<Float32Type>() {
        Some(values) => values.values().to_vec(),
        None => values
            .as_primitive::<Float16Type>()
            .iter()
            .flatten()
            .map(f32::from)
            .collect(),
    }
}

/// Batches of a file as its records, one batch in memory at a time.
pub(super) fn records<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    mut batches: impl Iterator<Item = Result<RecordBatch, E>>,
    schema: Schema,
) -> impl Iterator<Item = io::Result<EmbeddingRecord>> {
    let mut is_damaged = false;
    let next = move || {
        if is_damaged {
            return None;
        }
        let read = || {
            let batch = batches.next().transpose()?;
            Ok::<_, E>(batch.map(|batch| records_of(&batch, &schema)))
        };
        let records = guarded(read);
        is_damaged = records.is_err();
        Some(match records.transpose()? {
            Ok(records) => records.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    };
    std::iter::from_fn(next).flatten()
}
