//! Records, schemas and files for the tests of formats.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use ankh3::number::NumberType;
use ankh3::output::embeddings::{
    Column, EmbeddingFormat, EmbeddingReader, EmbeddingRecord, EmbeddingWriter, RowKind, Schema,
};
use ankh3::sequence::digest::InputDigest;
use half::{bf16, f16};
use serde_json::json;

/// Ids that are difficult for a format: paths, quotes, numbers, separators, other scripts.
pub fn tricky_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "P12345",
        "sp|P12345|A_HUMAN/2-90",
        "/rooted/../and/./dotted/",
        ".",
        "..",
        "with spaces  inside ",
        "quote\"d",
        "\"quoted\"",
        "it's",
        "comma,semicolon;#hash",
        "back\\slash",
        "tab\there",
        "Ünïcödé-蛋白质-🧬",
        "100%",
        "100%25",
        "%2F",
        "00123",
        "NA",
        "mean",
        "name.npy",
        "__metadata",
    ]
    .map(str::to_owned)
    .to_vec();
    ids.push("long".repeat(1000));
    ids
}

pub fn column(name: &str, width: usize, rows: RowKind) -> Column {
    Column {
        name: name.to_owned(),
        width,
        rows,
    }
}

pub fn schema(columns: Vec<Column>, dtype: NumberType) -> Schema {
    let metadata = json!({
        "model": "ankh3-nano \"quoted\" ü",
        "revision": "0123abc",
        "layers": [-1, 12],
        "prefix": "nlu",
        "dtype": dtype.name(),
        "random": true,
    });
    Schema {
        columns,
        dtype,
        metadata: serde_json::from_value(metadata).unwrap(),
    }
}

/// The digest of the input in the files of the tests.
pub fn input() -> InputDigest {
    InputDigest {
        sha256: "0123456789abcdef".repeat(4),
        records: 12,
        residues: 345,
    }
}

/// The schema of a complete file with `records` records.
pub fn complete(schema: &Schema, records: usize) -> Schema {
    let mut schema = schema.clone();
    schema.metadata.input = Some(input());
    schema.metadata.written = Some(records as u64);
    schema
}

/// Pseudo-random numbers of many magnitudes, the same in every run.
pub fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count)
        .map(|_| {
            let unit = (next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            unit * 10f32.powi((next() % 13) as i32 - 8)
        })
        .collect()
}

pub fn record(schema: &Schema, number: usize, id: String, length: usize) -> EmbeddingRecord {
    let values = schema
        .columns
        .iter()
        .enumerate()
        .map(|(c, column)| {
            let count: usize = column.shape(length).iter().product();
            values((number * 31 + c + 1) as u64, count)
        })
        .collect();
    EmbeddingRecord { id, length, values }
}

pub fn tricky_records(schema: &Schema) -> Vec<EmbeddingRecord> {
    let ids = tricky_ids().into_iter().enumerate();
    ids.map(|(number, id)| record(schema, number, id, 1 + number % 7))
        .collect()
}

pub fn plain_records(schema: &Schema, count: usize) -> Vec<EmbeddingRecord> {
    (0..count)
        .map(|n| record(schema, n, format!("P{:06}", n * 7919 % 99991), 1 + n % 3))
        .collect()
}

/// The record with the precision of a file of this schema.
pub fn rounded(record: &EmbeddingRecord, dtype: NumberType) -> EmbeddingRecord {
    let round = |value: &f32| match dtype {
        NumberType::F32 => *value,
        NumberType::F16 => f16::from_f32(*value).to_f32(),
        NumberType::Bf16 => bf16::from_f32(*value).to_f32(),
    };
    let values = record
        .values
        .iter()
        .map(|block| block.iter().map(round).collect())
        .collect();
    EmbeddingRecord {
        values,
        ..record.clone()
    }
}

pub fn write(format: EmbeddingFormat, schema: &Schema, records: &[EmbeddingRecord], path: &Path) {
    try_write(format, schema, records, path).unwrap();
}

/// The bytes of a file and of the files beside it, by the suffix of their names.
pub fn bytes(path: &Path) -> Vec<(&'static str, Vec<u8>)> {
    ["", ".json", ".index.tsv"]
        .into_iter()
        .filter_map(|suffix| {
            let beside = format!("{}{suffix}", path.display());
            fs::read(beside).ok().map(|bytes| (suffix, bytes))
        })
        .collect()
}

pub fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub fn read(path: &Path) -> Vec<EmbeddingRecord> {
    EmbeddingReader::open(path)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// The sets of columns that a format can hold.
pub fn column_sets(format: EmbeddingFormat) -> Vec<Vec<Column>> {
    let mut sets = vec![
        vec![column("per_residue", 6, RowKind::PerResidue)],
        vec![column("mean", 5, RowKind::PerSequence)],
    ];
    match format {
        EmbeddingFormat::Npy => {}
        EmbeddingFormat::Tsv => sets.push(vec![
            column("layer_1/mean", 4, RowKind::PerSequence),
            column("layer_12/mean", 3, RowKind::PerSequence),
        ]),
        _ => sets.push(vec![
            column("layer_12/per_residue", 4, RowKind::PerResidue),
            column("layer_12/mean", 4, RowKind::PerSequence),
            column("max", 3, RowKind::PerSequence),
        ]),
    }
    sets
}

pub fn dtypes(format: EmbeddingFormat) -> Vec<NumberType> {
    match format {
        EmbeddingFormat::Safetensors => vec![NumberType::F32, NumberType::F16, NumberType::Bf16],
        _ => vec![NumberType::F32, NumberType::F16],
    }
}

/// A named pipe.
pub fn pipe(directory: &Path) -> PathBuf {
    let path = directory.join("pipe");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

/// Reads everything from a named pipe.
pub fn collect(pipe: &Path) -> JoinHandle<Vec<u8>> {
    let pipe = pipe.to_owned();
    std::thread::spawn(move || fs::read(pipe).unwrap())
}

/// Writes all records and finishes the file; returns the first error.
pub fn try_write(
    format: EmbeddingFormat,
    schema: &Schema,
    records: &[EmbeddingRecord],
    path: &Path,
) -> io::Result<()> {
    let mut writer = EmbeddingWriter::create(format, schema, path)?;
    records.iter().try_for_each(|record| writer.write(record))?;
    writer.finish(Some(input()))
}
