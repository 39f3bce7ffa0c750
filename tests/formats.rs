//! The embedding formats: read back by our own reader and by the libraries their users have,
//! merged, interrupted, sent to full disks and closed pipes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use ankh3::io::embeddings::inspect::inspect;
use ankh3::io::embeddings::merge::{MergeError, merge};
use ankh3::io::embeddings::{
    Column, Destination, EmbeddingRecord, Format, OutDtype, Reader, Rows, Schema, Writer,
};
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Ids that a format may trip over: paths, quoting, numbers, separators, other scripts.
fn tricky_ids() -> Vec<String> {
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

fn column(name: &str, width: usize, rows: Rows) -> Column {
    Column {
        name: name.to_owned(),
        width,
        rows,
    }
}

fn schema(columns: Vec<Column>, dtype: OutDtype) -> Schema {
    let Value::Object(metadata) = json!({
        "model": "ankh3-nano \"quoted\" ü",
        "revision": "0123abc",
        "layers": [-1, 12],
        "prefix": "nlu",
        "dtype": dtype.name(),
        "random": true,
    }) else {
        unreachable!("an object")
    };
    Schema {
        columns,
        dtype,
        metadata,
    }
}

/// Numbers without pattern, many magnitudes, the same each time.
fn values(seed: u64, count: usize) -> Vec<f32> {
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

fn record(schema: &Schema, number: usize, id: String, length: usize) -> EmbeddingRecord {
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

fn tricky_records(schema: &Schema) -> Vec<EmbeddingRecord> {
    let ids = tricky_ids().into_iter().enumerate();
    ids.map(|(number, id)| record(schema, number, id, 1 + number % 7))
        .collect()
}

fn plain_records(schema: &Schema, count: usize) -> Vec<EmbeddingRecord> {
    (0..count)
        .map(|n| record(schema, n, format!("P{:06}", n * 7919 % 99991), 1 + n % 3))
        .collect()
}

/// The record as a file of this schema can hold it.
fn rounded(record: &EmbeddingRecord, dtype: OutDtype) -> EmbeddingRecord {
    let round = |value: &f32| match dtype {
        OutDtype::F32 => *value,
        OutDtype::F16 => f16::from_f32(*value).to_f32(),
        OutDtype::Bf16 => bf16::from_f32(*value).to_f32(),
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

fn write(format: Format, schema: &Schema, records: &[EmbeddingRecord], path: &Path) {
    let destination = Destination::File(path.to_owned());
    let mut writer = Writer::create(format, schema, destination).unwrap();
    for record in records {
        writer.write(record).unwrap();
    }
    writer.finish().unwrap();
}

/// The file and what stands beside it, by the suffix of its name.
fn bytes(path: &Path) -> Vec<(&'static str, Vec<u8>)> {
    ["", ".json", ".index.tsv"]
        .into_iter()
        .filter_map(|suffix| {
            let beside = format!("{}{suffix}", path.display());
            fs::read(beside).ok().map(|bytes| (suffix, bytes))
        })
        .collect()
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn read(path: &Path) -> Vec<EmbeddingRecord> {
    Reader::open(path).unwrap().map(Result::unwrap).collect()
}

/// The columns sets that a format can hold.
fn column_sets(format: Format) -> Vec<Vec<Column>> {
    let mut sets = vec![
        vec![column("per_residue", 6, Rows::PerResidue)],
        vec![column("mean", 5, Rows::PerSequence)],
    ];
    match format {
        Format::Npy => {}
        Format::Tsv => sets.push(vec![
            column("layer_1/mean", 4, Rows::PerSequence),
            column("layer_12/mean", 3, Rows::PerSequence),
        ]),
        _ => sets.push(vec![
            column("layer_12/per_residue", 4, Rows::PerResidue),
            column("layer_12/mean", 4, Rows::PerSequence),
            column("max", 3, Rows::PerSequence),
        ]),
    }
    sets
}

fn dtypes(format: Format) -> Vec<OutDtype> {
    match format {
        Format::Safetensors => vec![OutDtype::F32, OutDtype::F16, OutDtype::Bf16],
        _ => vec![OutDtype::F32, OutDtype::F16],
    }
}

/// The interpreter with the libraries of `tests/requirements.txt`.
fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = std::env::var_os("ANKH3_TEST_PYTHON").map_or(venv, PathBuf::from);
    assert!(
        python.exists(),
        "{} is missing: run tests/run, which makes it from tests/requirements.txt \
         (or set ANKH3_TEST_PYTHON to a Python that has them)",
        python.display()
    );
    python
}

/// Has `path` read by the format's own libraries.
fn read_by_python(format: Format, path: &Path, schema: &Schema, records: &[EmbeddingRecord]) {
    let records: Vec<Value> = records
        .iter()
        .map(|record| json!({"id": record.id, "length": record.length, "values": record.values}))
        .collect();
    let expected = json!({
        "dtype": schema.dtype.name(),
        "metadata": schema.metadata,
        "columns": schema.columns,
        "records": records,
    });
    let expected_path = path.with_file_name("expected");
    fs::write(&expected_path, expected.to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/read_back.py");
    let output = Command::new(python())
        .arg(script)
        .arg(format.name())
        .args([path, &expected_path])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} {:?} {:?}\n{}",
        format.name(),
        schema.dtype,
        schema.columns,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn reads_back_everywhere(format: Format) {
    for columns in column_sets(format) {
        for dtype in dtypes(format) {
            let schema = schema(columns.clone(), dtype);
            let records = tricky_records(&schema);
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("embeddings");
            write(format, &schema, &records, &path);
            let expected: Vec<_> = records.iter().map(|r| rounded(r, dtype)).collect();

            let reader = Reader::open(&path).unwrap();
            assert_eq!((reader.format(), reader.schema()), (format, &schema));
            let found: Vec<_> = reader.map(Result::unwrap).collect();
            assert_eq!(found, expected, "{format:?} {dtype:?} {columns:?}");

            let again = directory.path().join("again");
            write(format, &schema, &found, &again);
            assert!(
                bytes(&path) == bytes(&again),
                "{format:?} {dtype:?}: bytes differ"
            );
            read_by_python(format, &path, &schema, &expected);
        }
    }
}

#[test]
fn tsv_reads_back_everywhere() {
    reads_back_everywhere(Format::Tsv);
}

#[test]
fn jsonl_reads_back_everywhere() {
    reads_back_everywhere(Format::Jsonl);
}

#[test]
fn npy_reads_back_everywhere() {
    reads_back_everywhere(Format::Npy);
}

#[test]
fn npz_reads_back_everywhere() {
    reads_back_everywhere(Format::Npz);
}

#[test]
fn h5_reads_back_everywhere() {
    reads_back_everywhere(Format::H5);
}

#[test]
fn safetensors_reads_back_everywhere() {
    reads_back_everywhere(Format::Safetensors);
}

#[test]
fn parquet_reads_back_everywhere() {
    reads_back_everywhere(Format::Parquet);
}

#[test]
fn arrow_reads_back_everywhere() {
    reads_back_everywhere(Format::Arrow);
}

/// More records than a batch or a node of any index has.
#[test]
fn many_records_read_back_everywhere() {
    for format in Format::ALL {
        let schema = schema(vec![column("mean", 3, Rows::PerSequence)], OutDtype::F32);
        let records = plain_records(&schema, 20_000);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("many");
        write(format, &schema, &records, &path);
        assert!(read(&path) == records, "{format:?}");
        read_by_python(format, &path, &schema, &records);
    }
}

#[test]
fn no_records_is_a_file_too() {
    for format in Format::ALL {
        for columns in column_sets(format) {
            let schema = schema(columns, OutDtype::F32);
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("empty");
            write(format, &schema, &[], &path);
            assert_eq!(Reader::open(&path).unwrap().schema(), &schema);
            assert_eq!(read(&path), []);
            read_by_python(format, &path, &schema, &[]);
        }
    }
}

#[test]
fn what_is_no_number_survives_where_the_format_has_it() {
    let schema = schema(vec![column("mean", 4, Rows::PerSequence)], OutDtype::F16);
    let record = EmbeddingRecord {
        id: "P1".into(),
        length: 3,
        values: vec![vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]],
    };
    for format in Format::ALL {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("odd");
        if format == Format::Jsonl {
            let mut writer = Writer::create(format, &schema, Destination::File(path)).unwrap();
            let error = writer.write(&record).unwrap_err();
            assert_eq!(
                error.to_string(),
                "record 1 (P1): JSON cannot hold the value NaN; any other format can"
            );
            continue;
        }
        write(format, &schema, std::slice::from_ref(&record), &path);
        let found = read(&path).remove(0).values.remove(0);
        assert!(found[0].is_nan(), "{format:?}");
        assert_eq!(
            found[1..],
            [f32::INFINITY, f32::NEG_INFINITY, -0.0],
            "{format:?}"
        );
        assert!(found[3].is_sign_negative(), "{format:?}");
    }
}

/// A stream that collects what it is given and can fail.
#[derive(Clone, Default)]
struct Pipe {
    bytes: Arc<Mutex<Vec<u8>>>,
    fail: Option<io::ErrorKind>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(kind) = self.fail {
            return Err(io::Error::from(kind));
        }
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all and finishes; the first error if any.
fn try_write(
    format: Format,
    schema: &Schema,
    records: &[EmbeddingRecord],
    destination: Destination,
) -> io::Result<()> {
    let mut writer = Writer::create(format, schema, destination)?;
    records.iter().try_for_each(|record| writer.write(record))?;
    writer.finish()
}

#[test]
fn a_stream_gets_the_bytes_of_the_file() {
    for format in Format::ALL
        .into_iter()
        .filter(|format| *format != Format::Npy)
    {
        let schema = schema(column_sets(format).remove(0), OutDtype::F32);
        let records = plain_records(&schema, 50);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("file");
        write(format, &schema, &records, &path);
        let pipe = Pipe::default();
        let stream = Destination::Stream(Box::new(pipe.clone()));
        try_write(format, &schema, &records, stream).unwrap();
        assert!(
            *pipe.bytes.lock().unwrap() == fs::read(&path).unwrap(),
            "{format:?}"
        );
    }
}

#[test]
fn text_without_its_manifest_still_has_columns_and_values() {
    for format in [Format::Tsv, Format::Jsonl] {
        for columns in column_sets(format) {
            let schema = schema(columns, OutDtype::F32);
            let records = plain_records(&schema, 5);
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("text");
            write(format, &schema, &records, &path);
            fs::remove_file(directory.path().join("text.json")).unwrap();
            let reader = Reader::open(&path).unwrap();
            assert_eq!(reader.schema().columns, schema.columns, "{format:?}");
            assert_eq!(reader.schema().metadata, Map::new());
            assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), records);
        }
    }
}

#[test]
fn a_closed_pipe_and_a_full_disk_keep_their_names() {
    for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
        for format in Format::ALL
            .into_iter()
            .filter(|format| *format != Format::Npy)
        {
            let schema = schema(column_sets(format).remove(0), OutDtype::F32);
            for count in [1, 5000] {
                let records = plain_records(&schema, count);
                let pipe = Pipe {
                    fail: Some(kind),
                    ..Pipe::default()
                };
                let stream = Destination::Stream(Box::new(pipe));
                let error = try_write(format, &schema, &records, stream).unwrap_err();
                assert_eq!(
                    error.kind(),
                    kind,
                    "{format:?} with {count} records: {error:?}"
                );
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_device_without_space_is_an_error() {
    for format in Format::ALL
        .into_iter()
        .filter(|format| *format != Format::Npy)
    {
        let schema = schema(column_sets(format).remove(0), OutDtype::F32);
        for count in [1, 5000] {
            let records = plain_records(&schema, count);
            let device = Destination::File("/dev/full".into());
            let error = try_write(format, &schema, &records, device).unwrap_err();
            assert_eq!(
                error.kind(),
                io::ErrorKind::StorageFull,
                "{format:?}: {error:?}"
            );
        }
    }
}

#[test]
fn a_writer_that_does_not_finish_leaves_what_was_there() {
    for format in Format::ALL {
        let schema = schema(column_sets(format).remove(0), OutDtype::F32);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("old");
        fs::write(&path, "old").unwrap();
        let mut writer = Writer::create(format, &schema, Destination::File(path.clone())).unwrap();
        for record in plain_records(&schema, 3000) {
            writer.write(&record).unwrap();
        }
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), b"old", "{format:?}");
        assert_eq!(names_in(directory.path()), ["old"], "{format:?}");
    }
}

#[test]
#[cfg(unix)]
fn a_finished_file_has_ordinary_permissions_and_a_link_stays_a_link() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let ordinary = fs::metadata(&file).unwrap().permissions().mode();
    let schema = schema(vec![column("mean", 2, Rows::PerSequence)], OutDtype::F32);
    write(Format::Npz, &schema, &plain_records(&schema, 2), &link);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode(), ordinary);
    assert_eq!(read(&file).len(), 2);
}

#[test]
fn what_a_format_cannot_hold_is_refused_with_the_way_out() {
    let pooled = vec![column("mean", 2, Rows::PerSequence)];
    let both = vec![
        column("mean", 2, Rows::PerSequence),
        column("per_residue", 2, Rows::PerResidue),
    ];
    let cases = [
        (
            Format::Npz,
            pooled.clone(),
            OutDtype::Bf16,
            "npz has no bf16 numbers; use --out-dtype f16 or f32, or --format safetensors, which has them",
        ),
        (
            Format::Tsv,
            pooled.clone(),
            OutDtype::Bf16,
            "tsv has no bf16 numbers; use --out-dtype f32, or --format safetensors, which has them",
        ),
        (
            Format::Npy,
            both.clone(),
            OutDtype::F32,
            "npy holds one array but 2 columns were asked for; use --format npz, h5, safetensors, parquet or arrow",
        ),
        (
            Format::Tsv,
            both,
            OutDtype::F32,
            "a tsv has one row a protein or one row a residue, so pooled and per-residue columns cannot share it; write two files, or use --format jsonl, npz, h5, safetensors, parquet or arrow",
        ),
        (
            Format::Npy,
            pooled,
            OutDtype::F32,
            "npy needs a file, because its index stands beside it; use --output FILE.npy, or --format npz, which can be piped",
        ),
        (
            Format::Npz,
            vec![],
            OutDtype::F32,
            "there is no column to write",
        ),
        (
            Format::Npz,
            vec![column("id", 1, Rows::PerSequence)],
            OutDtype::F32,
            "a column cannot be called \"id\"",
        ),
    ];
    for (format, columns, dtype, message) in cases {
        let stream = Destination::Stream(Box::new(io::sink()));
        let error = Writer::create(format, &schema(columns, dtype), stream)
            .err()
            .unwrap();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::InvalidInput, message)
        );
    }
}

#[test]
fn a_record_that_does_not_fit_is_named() {
    let schema = schema(vec![column("mean", 2, Rows::PerSequence)], OutDtype::F16);
    let good = EmbeddingRecord {
        id: "P1".into(),
        length: 3,
        values: vec![vec![1.0, 2.0]],
    };
    let cases = [
        (
            EmbeddingRecord {
                id: String::new(),
                ..good.clone()
            },
            "record 2 (): the id is empty",
        ),
        (
            EmbeddingRecord {
                id: "P2".into(),
                values: vec![vec![1.0]],
                ..good.clone()
            },
            "record 2 (P2): column \"mean\" has 1 values, which is not the shape [2]",
        ),
        (
            EmbeddingRecord {
                id: "P2".into(),
                length: 0,
                ..good.clone()
            },
            "record 2 (P2): the protein has no residues",
        ),
        (
            EmbeddingRecord {
                id: "P2".into(),
                values: vec![vec![1e6, 0.0]],
                ..good.clone()
            },
            "record 2 (P2): the value 1000000.0 is too large for f16; use --out-dtype f32",
        ),
    ];
    for (bad, message) in cases {
        let stream = Destination::Stream(Box::new(io::sink()));
        let mut writer = Writer::create(Format::Npz, &schema, stream).unwrap();
        writer.write(&good).unwrap();
        let error = writer.write(&bad).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::InvalidData, message)
        );
    }
    for format in [Format::Npz, Format::H5, Format::Safetensors] {
        let stream = Destination::Stream(Box::new(io::sink()));
        let mut writer = Writer::create(format, &schema, stream).unwrap();
        writer.write(&good).unwrap();
        let error = writer.write(&good).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{format:?}");
        let message = error.to_string();
        assert!(
            message.starts_with("record 2 (P1): there is a"),
            "{message}"
        );
        assert!(message.ends_with(" called \"P1\" already"), "{message}");
    }
}

#[test]
fn a_truncated_file_is_an_error() {
    for format in Format::ALL {
        let schema = schema(column_sets(format).remove(0), OutDtype::F32);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("cut");
        write(format, &schema, &plain_records(&schema, 10), &path);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
        let outcome = Reader::open(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let message = outcome.expect_err(format.name()).to_string();
        assert!(
            message.starts_with(&path.display().to_string()),
            "{message}"
        );
    }
}

#[test]
fn another_tools_file_is_not_taken_for_ours() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("proteins.fasta");
    fs::write(&path, ">P1\nMKV\n").unwrap();
    let error = Reader::open(&path).err().unwrap().to_string();
    assert_eq!(
        error,
        format!(
            "{}: its first bytes are those of none of the formats written by ankh3",
            path.display()
        )
    );
}

fn with_shard(schema: &Schema, shard: &str) -> Schema {
    let mut schema = schema.clone();
    schema.metadata.insert("shard".into(), shard.into());
    schema
}

/// Writes shard `number` of `of` (1-based) as a sharded run does.
fn write_shard(
    format: Format,
    schema: &Schema,
    records: &[EmbeddingRecord],
    (number, of): (usize, usize),
    directory: &Path,
) -> PathBuf {
    let path = directory.join(format!("shard{number}of{of}"));
    let own: Vec<_> = records
        .iter()
        .skip(number - 1)
        .step_by(of)
        .cloned()
        .collect();
    write(
        format,
        &with_shard(schema, &format!("{number}/{of}")),
        &own,
        &path,
    );
    path
}

fn merge_files(paths: &[PathBuf], format: Format, to: &Path) -> Result<u64, MergeError> {
    let readers = paths
        .iter()
        .map(|path| Reader::open(path))
        .collect::<Result<_, _>>()?;
    merge(readers, format, Destination::File(to.to_owned())).map(|merged| merged.records)
}

#[test]
fn merged_shards_are_the_bytes_of_one_run() {
    for format in Format::ALL {
        for (columns, dtype) in column_sets(format)
            .into_iter()
            .zip([OutDtype::F32, OutDtype::F16])
        {
            let schema = schema(columns, dtype);
            for count in [0, 1, 2, 3, 10, 11, 12] {
                let records = plain_records(&schema, count);
                let directory = TempDir::new().unwrap();
                let whole = directory.path().join("whole");
                write(format, &schema, &records, &whole);
                let shards: Vec<_> = [2, 3, 1]
                    .map(|n| write_shard(format, &schema, &records, (n, 3), directory.path()))
                    .to_vec();
                let merged = directory.path().join("merged");
                let written = merge_files(&shards, format, &merged).unwrap();
                assert_eq!(written, count as u64);
                assert!(
                    bytes(&whole) == bytes(&merged),
                    "{format:?}, {count} records"
                );
            }
        }
    }
}

#[test]
fn files_without_shards_are_joined_in_the_order_given() {
    let schema = schema(vec![column("mean", 3, Rows::PerSequence)], OutDtype::F32);
    let records = plain_records(&schema, 9);
    let directory = TempDir::new().unwrap();
    let paths = ["b.parquet", "a.npz"]
        .map(|name| directory.path().join(name))
        .to_vec();
    write(Format::Parquet, &schema, &records[..4], &paths[0]);
    write(Format::Npz, &schema, &records[4..], &paths[1]);
    let merged = directory.path().join("merged.h5");
    assert_eq!(merge_files(&paths, Format::H5, &merged).unwrap(), 9);
    assert_eq!(read(&merged), records);
}

#[test]
fn what_cannot_be_merged_says_why_and_leaves_nothing() {
    let first = schema(vec![column("mean", 3, Rows::PerSequence)], OutDtype::F32);
    let records = plain_records(&first, 6);
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let file = |name: &str, schema: &Schema, records: &[EmbeddingRecord]| {
        write(Format::Jsonl, schema, records, &at(name));
        at(name)
    };
    let with = |key: &str, value: Value| {
        let mut schema = first.clone();
        schema.metadata.insert(key.into(), value);
        schema
    };
    let mut half = first.clone();
    half.dtype = OutDtype::F16;
    let mut wide = first.clone();
    wide.columns[0].name = "max".into();

    let a = file("a", &first, &records[..3]);
    let one = file("one", &with_shard(&first, "1/2"), &records[..3]);
    let cases: Vec<(Vec<PathBuf>, &str)> = vec![
        (vec![], "there are no files to merge"),
        (
            vec![
                a.clone(),
                file("prefix", &with("prefix", "s2s".into()), &records[3..]),
            ],
            "DIR/a and DIR/prefix cannot be merged: prefix is \"nlu\" in the first, \"s2s\" in the second",
        ),
        (
            vec![
                a.clone(),
                file("extra", &with("pooling", "mean".into()), &records[3..]),
            ],
            "DIR/a and DIR/extra cannot be merged: pooling is absent in the first, \"mean\" in the second",
        ),
        (
            vec![a.clone(), file("half", &half, &records[3..])],
            "DIR/a and DIR/half cannot be merged: dtype is f32 in the first, f16 in the second",
        ),
        (
            vec![a.clone(), file("wide", &wide, &records[3..])],
            "DIR/a and DIR/wide cannot be merged: columns is [{\"name\":\"mean\",\"width\":3,\"rows\":\"per_sequence\"}] in the first, [{\"name\":\"max\",\"width\":3,\"rows\":\"per_sequence\"}] in the second",
        ),
        (
            vec![a.clone(), file("again", &first, &records[2..])],
            "DIR/again: the id \"P015838\" came before, in DIR/a",
        ),
        (
            vec![a.clone(), one.clone()],
            "DIR/a and DIR/one cannot be merged: shard is absent in the first, \"1/2\" in the second",
        ),
        (
            vec![one.clone()],
            "shard 2/2 is missing; give all 2 files of the run",
        ),
        (
            vec![
                one.clone(),
                file("uno", &with_shard(&first, "1/2"), &records[3..]),
            ],
            "DIR/one and DIR/uno are both shard 1/2",
        ),
        (
            vec![
                one.clone(),
                file("third", &with_shard(&first, "2/3"), &records[3..]),
            ],
            "DIR/one and DIR/third cannot be merged: shard is 1/2 in the first, 2/3 in the second",
        ),
        (
            vec![
                one.clone(),
                file("zero", &with_shard(&first, "0/2"), &records[3..]),
            ],
            "DIR/zero: its shard \"0/2\" is not of the form i/n with 1 ≤ i ≤ n",
        ),
        (
            vec![
                one.clone(),
                file("short", &with_shard(&first, "2/2"), &records[3..4]),
            ],
            "DIR/short ends after 1 records, but DIR/one goes on: one of the two is not complete; rerun it (or its --resume)",
        ),
        (
            vec![
                file("few", &with_shard(&first, "1/2"), &records[..1]),
                file("two", &with_shard(&first, "2/2"), &records[3..5]),
            ],
            "DIR/few ends after 1 records, but DIR/two goes on: one of the two is not complete; rerun it (or its --resume)",
        ),
    ];
    for (paths, message) in cases {
        let before = names_in(directory.path());
        let error = merge_files(&paths, Format::Npz, &at("merged.npz"))
            .unwrap_err()
            .to_string();
        let message = message.replace("DIR", &directory.path().display().to_string());
        assert_eq!(error, message);
        assert_eq!(names_in(directory.path()), before);
    }
}

#[test]
fn inspecting_sums_a_file_up() {
    for format in Format::ALL {
        let schema = schema(
            vec![column("per_residue", 2, Rows::PerResidue)],
            OutDtype::F32,
        );
        let one = EmbeddingRecord {
            id: "P1".into(),
            length: 1,
            values: vec![vec![-2.0, 4.0]],
        };
        let two = EmbeddingRecord {
            id: "P2".into(),
            length: 2,
            values: vec![vec![1.0, 0.5, 3.0, -0.5]],
        };
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("file");
        write(format, &schema, &[one, two], &path);
        let summary = inspect(&path).unwrap();
        assert_eq!(summary.format, format);
        assert_eq!(
            (summary.records, summary.residues, summary.lengths),
            (2, 3, Some((1, 2)))
        );
        assert_eq!(
            (summary.dtype, &summary.metadata),
            (schema.dtype, &schema.metadata)
        );
        let [column] = &summary.columns[..] else {
            panic!("one column")
        };
        assert_eq!((&column.column, column.rows), (&schema.columns[0], 3));
        assert_eq!(
            (column.min, column.max, column.mean),
            (Some(-2.0), Some(4.0), Some(1.0))
        );
        assert_eq!(column.non_finite, 0);
    }
}

/// Names of files must not decide what is read.
#[test]
fn a_file_is_known_by_its_first_bytes() {
    let schema = schema(vec![column("mean", 2, Rows::PerSequence)], OutDtype::F32);
    for format in Format::ALL {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("misleading.txt");
        write(format, &schema, &plain_records(&schema, 1), &path);
        assert_eq!(Format::detect(&path).unwrap(), format);
    }
}
