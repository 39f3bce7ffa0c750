//! Our files, read by our own reader and by Python libraries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ankh3::output::embeddings::{
    EmbeddingFormat, EmbeddingReader, EmbeddingRecord, RowKind, Schema,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture::{
    bytes, column, column_sets, complete, dtypes, plain_records, read, rounded, schema,
    tricky_records, write,
};
use ankh3::number::NumberType;

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

/// A file and the content that a Python library must find.
struct Written {
    path: PathBuf,
    schema: Schema,
    records: Vec<EmbeddingRecord>,
}

/// Reads the files with the Python libraries of their formats.
fn read_by_python(format: EmbeddingFormat, files: &[Written]) {
    let mut command = Command::new(python());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/read_back.py");
    command.arg(script).arg(format.name());
    for Written {
        path,
        schema,
        records,
    } in files
    {
        let records: Vec<Value> = records
            .iter()
            .map(
                |record| json!({"id": record.id, "length": record.length, "values": record.values}),
            )
            .collect();
        let expected = json!({
            "dtype": schema.dtype.name(),
            "metadata": schema.metadata,
            "columns": schema.columns,
            "records": records,
        });
        let expected_path = format!("{}.expected", path.display());
        fs::write(&expected_path, expected.to_string()).unwrap();
        command.arg(path).arg(expected_path);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}{}",
        format.name(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn reads_back_everywhere(format: EmbeddingFormat) {
    let directory = TempDir::new().unwrap();
    let mut files = Vec::new();
    for columns in column_sets(format) {
        for dtype in dtypes(format) {
            let schema = schema(columns.clone(), dtype);
            let records = tricky_records(&schema);
            let path = directory.path().join(format!("embeddings{}", files.len()));
            write(format, &schema, &records, &path);
            let expected: Vec<_> = records.iter().map(|r| rounded(r, dtype)).collect();

            let reader = EmbeddingReader::open(&path).unwrap();
            let complete = complete(&schema, records.len());
            assert_eq!((reader.format(), reader.schema()), (format, &complete));
            let found: Vec<_> = reader.map(Result::unwrap).collect();
            assert_eq!(found, expected, "{format:?} {dtype:?} {columns:?}");

            let again = directory.path().join("again");
            write(format, &schema, &found, &again);
            assert!(
                bytes(&path) == bytes(&again),
                "{format:?} {dtype:?}: bytes differ"
            );
            files.push(Written {
                path,
                schema: complete,
                records: expected,
            });
        }
    }
    read_by_python(format, &files);
}

#[test]
fn tsv_reads_back_everywhere() {
    reads_back_everywhere(EmbeddingFormat::Tsv);
}

#[test]
fn jsonl_reads_back_everywhere() {
    reads_back_everywhere(EmbeddingFormat::Jsonl);
}

#[test]
fn npy_reads_back_everywhere() {
    reads_back_everywhere(EmbeddingFormat::Npy);
}

#[test]
fn npz_reads_back_everywhere() {
    reads_back_everywhere(EmbeddingFormat::Npz);
}

#[test]
fn h5_reads_back_everywhere() {
    reads_back_everywhere(EmbeddingFormat::H5);
}

#[test]
fn safetensors_reads_back_everywhere() {
    reads_back_everywhere(EmbeddingFormat::Safetensors);
}

#[test]
fn parquet_reads_back_everywhere() {
    reads_back_everywhere(EmbeddingFormat::Parquet);
}

#[test]
fn arrow_reads_back_everywhere() {
    reads_back_everywhere(EmbeddingFormat::Arrow);
}

/// A file with more records than a batch or a node of any index.
#[test]
fn many_records_read_back_everywhere() {
    for format in EmbeddingFormat::ALL {
        let schema = schema(
            vec![column("mean", 3, RowKind::PerSequence)],
            NumberType::F32,
        );
        let records = plain_records(&schema, 20_000);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("many");
        write(format, &schema, &records, &path);
        assert!(read(&path) == records, "{format:?}");
        read_by_python(
            format,
            &[Written {
                path,
                schema: complete(&schema, records.len()),
                records,
            }],
        );
    }
}

#[test]
fn no_records_is_a_file_too() {
    for format in EmbeddingFormat::ALL {
        let directory = TempDir::new().unwrap();
        let mut files = Vec::new();
        for columns in column_sets(format) {
            let schema = schema(columns, NumberType::F32);
            let path = directory.path().join(format!("empty{}", files.len()));
            write(format, &schema, &[], &path);
            let complete = complete(&schema, 0);
            assert_eq!(EmbeddingReader::open(&path).unwrap().schema(), &complete);
            assert_eq!(read(&path), []);
            files.push(Written {
                path,
                schema: complete,
                records: Vec::new(),
            });
        }
        read_by_python(format, &files);
    }
}

/// Every Python example of `docs/formats.md` runs on such files.
#[test]
fn the_examples_of_the_documentation_run() {
    let directory = TempDir::new().unwrap();
    let schema = schema(
        vec![column("per_residue", 4, RowKind::PerResidue)],
        NumberType::F32,
    );
    let mut records = plain_records(&schema, 3);
    records[1].id = "P12345".into();
    for format in EmbeddingFormat::ALL {
        write(
            format,
            &schema,
            &records,
            &directory.path().join(format!("emb.{}", format.name())),
        );
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats.md");
    let run = "import re, sys\n\
        blocks = re.findall('```python\\n(.*?)```', open(sys.argv[1]).read(), re.S)\n\
        assert len(blocks) == 8, len(blocks)\n\
        for block in blocks:\n    \
            names = {}\n    \
            exec(block, names)\n    \
            assert names['embedding'].shape == (2, 4), block\n";
    let output = Command::new(python())
        .args(["-c", run])
        .arg(docs)
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
