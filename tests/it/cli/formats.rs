use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ankh3::output::embeddings::{EmbeddingFormat, EmbeddingReader};
use half::{bf16, f16};
use serde_json::{Value, json};

use super::support::{bytes, folder_with, names, nano, project, proteins, run, tiny};
use ankh3::number::NumberType;

/// The interpreter with the libraries of `tests/requirements.txt`.
fn python() -> PathBuf {
    let venv = project(".venv/bin/python");
    let python = std::env::var_os("ANKH3_TEST_PYTHON").map_or(venv, PathBuf::from);
    assert!(
        python.exists(),
        "{} is missing: run tests/run, which makes it (or set ANKH3_TEST_PYTHON)",
        python.display()
    );
    python
}

fn round(value: f32, dtype: NumberType) -> f32 {
    match dtype {
        NumberType::F32 => value,
        NumberType::F16 => f16::from_f32(value).to_f32(),
        NumberType::Bf16 => bf16::from_f32(value).to_f32(),
    }
}

/// The expected content of a file: the values of `exact` (f32, another format) rounded to `dtype`,
/// with the manifest of the file.
fn expected(file: &Path, exact: &Path, dtype: NumberType) -> Value {
    let schema = EmbeddingReader::open(file).unwrap().schema().clone();
    assert_eq!(schema.dtype, dtype);
    let records: Vec<Value> = EmbeddingReader::open(exact)
        .unwrap()
        .map(Result::unwrap)
        .map(|record| {
            let rounded = |column: &Vec<f32>| column.iter().map(|v| round(*v, dtype)).collect();
            let values: Vec<Vec<f32>> = record.values.iter().map(rounded).collect();
            json!({"id": record.id, "length": record.length, "values": values})
        })
        .collect();
    json!({
        "dtype": dtype.name(),
        "metadata": schema.metadata,
        "columns": schema.columns,
        "records": records,
    })
}

fn read_by_python(format: EmbeddingFormat, file: &Path, expected: &Value) {
    let expected_file = file.with_extension("expected");
    fs::write(&expected_file, expected.to_string()).unwrap();
    let output = Command::new(python())
        .arg(project("tests/readers/read_back.py"))
        .arg(format.name())
        .args([file, &expected_file])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}", file.display());
}

/// Writes a file with `flags`, reads it with Python, and compares it with a file of another format
/// in f32.
fn reads_back(format: EmbeddingFormat, flags: &str, dtype: NumberType) {
    let folder = folder_with(&proteins(&[3, 1, 40, 12]));
    let path = folder.path();
    let file = path.join(format!("out.{}", format.name()));
    let exact = path.join(match format {
        EmbeddingFormat::Safetensors => "exact.npz",
        _ => "exact.safetensors",
    });
    let embed = |rest: &str| {
        run(
            path,
            &format!("embed --model {} {flags} {rest} in.fasta", tiny()),
        )
    };
    embed(&format!(
        "--out-dtype {} -o {}",
        dtype.name(),
        file.display()
    ))
    .with(0);
    embed(&format!("-o {}", exact.display())).with(0);
    read_by_python(format, &file, &expected(&file, &exact, dtype));
}

#[test]
fn tsv() {
    reads_back(
        EmbeddingFormat::Tsv,
        "--pooling mean,max --layers 1,-1",
        NumberType::F32,
    );
    reads_back(EmbeddingFormat::Tsv, "", NumberType::F16);
}

#[test]
fn jsonl() {
    reads_back(
        EmbeddingFormat::Jsonl,
        "--pooling per-residue,std",
        NumberType::F32,
    );
}

#[test]
fn npy() {
    reads_back(EmbeddingFormat::Npy, "", NumberType::F32);
    reads_back(EmbeddingFormat::Npy, "--pooling mean", NumberType::F16);
}

#[test]
fn npz() {
    reads_back(EmbeddingFormat::Npz, "", NumberType::F32);
    reads_back(
        EmbeddingFormat::Npz,
        "--pooling per-residue,mean",
        NumberType::F16,
    );
}

#[test]
fn h5() {
    reads_back(
        EmbeddingFormat::H5,
        "--pooling per-residue,min --layers 0,2",
        NumberType::F32,
    );
    reads_back(EmbeddingFormat::H5, "--pooling mean", NumberType::F16);
}

#[test]
fn safetensors() {
    reads_back(EmbeddingFormat::Safetensors, "", NumberType::F32);
    reads_back(
        EmbeddingFormat::Safetensors,
        "--pooling mean,std",
        NumberType::Bf16,
    );
}

#[test]
fn parquet() {
    reads_back(
        EmbeddingFormat::Parquet,
        "--pooling per-residue,max",
        NumberType::F32,
    );
}

#[test]
fn arrow() {
    reads_back(
        EmbeddingFormat::Arrow,
        "--pooling mean,per-residue",
        NumberType::F16,
    );
}

#[test]
fn stdout_carries_the_bytes_of_the_file() {
    let folder = folder_with(&proteins(&[9, 70]));
    let path = folder.path();
    for format in EmbeddingFormat::ALL {
        let arguments = format!(
            "embed --model {} --format {} in.fasta",
            tiny(),
            format.name()
        );
        let streamed = run(path, &arguments);
        if format == EmbeddingFormat::Npy {
            streamed.with(1).saying(&["--format npz"]);
            continue;
        }
        run(path, &format!("{arguments} -o file")).with(0);
        let file = fs::read(path.join("file")).unwrap();
        assert!(streamed.with(0).stdout == file, "{format:?}");
    }
}

#[test]
fn merge_turns_one_format_into_another() {
    let folder = folder_with(&proteins(&[9, 70, 4]));
    let path = folder.path();
    let embed = |name: &str| {
        run(
            path,
            &format!("embed --model {} -o {name} in.fasta", tiny()),
        )
        .with(0)
    };
    embed("from.npz");
    for format in EmbeddingFormat::ALL {
        let name = format.name();
        embed(&format!("made.{name}"));
        run(path, &format!("merge -o merged.{name} from.npz")).with(0);
        let file = |stem: &str| bytes(&path.join(format!("{stem}.{name}")));
        assert!(file("merged") == file("made"), "{format:?}");
    }
}

/// The size that is announced before a large run is correct.
#[test]
fn sizes_are_as_estimated() {
    let lengths = [150, 200, 250];
    let folder = folder_with(&proteins(&lengths));
    for format in EmbeddingFormat::ALL {
        for dtype in ["f32", "f16"] {
            let file = folder.path().join(format!("{dtype}.{}", format.name()));
            let arguments = format!(
                "embed --model {} --out-dtype {dtype} -o {} in.fasta",
                nano(),
                file.display()
            );
            run(folder.path(), &arguments).with(0);
            let schema = EmbeddingReader::open(&file).unwrap().schema().clone();
            let residues = lengths.iter().sum::<usize>() as u64;
            let estimated = schema.estimated_size(format, lengths.len() as u64, residues) as f64;
            let size = fs::metadata(&file).unwrap().len() as f64;
            assert!(
                (size / estimated - 1.0).abs() < 0.15,
                "{format:?} {dtype}: {size} bytes, {estimated} estimated"
            );
        }
    }
}

#[test]
fn merged_shards_are_the_bytes_of_one_run() {
    for format in EmbeddingFormat::ALL {
        let folder = folder_with(&proteins(&[9, 70, 2, 31, 40, 5, 5, 8]));
        let path = folder.path();
        let name = format.name();
        let embed = |rest: &str| {
            let arguments = format!("embed --model {} --pooling mean {rest} in.fasta", tiny());
            run(path, &arguments).with(0)
        };
        embed(&format!("-o whole.{name}"));
        for shards in [3, 11] {
            let parts: Vec<String> = (1..=shards).map(|i| format!("{i}.{name}")).collect();
            for (i, part) in parts.iter().enumerate() {
                embed(&format!("--shard {}/{shards} -o {part}", i + 1));
            }
            // Shards may be given in any order.
            let listed: Vec<&str> = parts.iter().rev().map(String::as_str).collect();
            let merge = format!("merge -o merged.{name} {}", listed.join(" "));
            run(path, &merge).with(0);
            let (merged, whole) = (
                path.join(format!("merged.{name}")),
                path.join(format!("whole.{name}")),
            );
            assert!(bytes(&merged) == bytes(&whole), "{format:?} in {shards}");
            run(
                path,
                &format!("merge -o less.{name} {}", listed[1..].join(" ")),
            )
            .with(1)
            .saying(&["shard"]);
            assert!(!names(path).contains(&format!("less.{name}")));
        }
    }
}
