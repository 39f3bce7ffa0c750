//! Closed pipes, full disks, incomplete runs, and records and files that cannot be written or read.

use std::fs;
use std::io;
use std::path::Path;

use ankh3::output::embeddings::{
    EmbeddingFormat, EmbeddingReader, EmbeddingRecord, EmbeddingWriter, RowKind,
};
use tempfile::TempDir;

use super::fixture::{
    collect, column, column_sets, names_in, pipe, plain_records, schema, try_write, write,
};
use ankh3::number::NumberType;

/// The formats that can be piped: npy needs a file beside it.
fn streamed() -> impl Iterator<Item = EmbeddingFormat> {
    let formats = EmbeddingFormat::ALL.into_iter();
    formats.filter(|format| *format != EmbeddingFormat::Npy)
}

/// The reader of a pipe must notice that a run is incomplete.
#[test]
fn a_stream_that_does_not_finish_is_no_whole_file() {
    for format in streamed() {
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
        let records = plain_records(&schema, 3000);
        let directory = TempDir::new().unwrap();
        let path = pipe(directory.path());
        let whole = collect(&path);
        write(format, &schema, &records, &path);
        // Two readers at once would share what is written.
        let whole = whole.join().unwrap();
        let half = {
            let half = collect(&path);
            let mut writer = EmbeddingWriter::create(format, &schema, &path).unwrap();
            records
                .iter()
                .take(2000)
                .for_each(|record| writer.write(record).unwrap());
            half
        };
        let half = half.join().unwrap();
        assert!(
            whole.len() > half.len() && whole.starts_with(&half),
            "{format:?}"
        );
    }
}

#[test]
fn a_closed_pipe_keeps_its_name() {
    for format in streamed() {
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
        for count in [1, 5000] {
            let records = plain_records(&schema, count);
            let directory = TempDir::new().unwrap();
            let path = pipe(directory.path());
            let reader = {
                let path = path.clone();
                std::thread::spawn(move || drop(fs::File::open(path).unwrap()))
            };
            // Opening waits for the reader, which ends at once.
            let mut writer = EmbeddingWriter::create(format, &schema, &path).unwrap();
            reader.join().unwrap();
            let written = records.iter().try_for_each(|record| writer.write(record));
            let error = written.and_then(|()| writer.finish(None)).unwrap_err();
            assert_eq!(
                error.kind(),
                io::ErrorKind::BrokenPipe,
                "{format:?} with {count} records: {error:?}"
            );
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_device_without_space_is_an_error() {
    for format in streamed() {
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
        for count in [1, 5000] {
            let records = plain_records(&schema, count);
            let device = Path::new("/dev/full");
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
    for format in EmbeddingFormat::ALL {
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("old");
        fs::write(&path, "old").unwrap();
        let mut writer = EmbeddingWriter::create(format, &schema, &path).unwrap();
        for record in plain_records(&schema, 3000) {
            writer.write(&record).unwrap();
        }
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), b"old", "{format:?}");
        assert_eq!(names_in(directory.path()), ["old"], "{format:?}");
    }
}

#[test]
fn what_a_format_cannot_hold_is_refused_with_the_way_out() {
    let pooled = vec![column("mean", 2, RowKind::PerSequence)];
    let both = vec![
        column("mean", 2, RowKind::PerSequence),
        column("per_residue", 2, RowKind::PerResidue),
    ];
    let cases = [
        (
            EmbeddingFormat::Npz,
            pooled.clone(),
            NumberType::Bf16,
            "npz has no bf16 numbers; use --out-dtype f16 or f32, or --format safetensors, which has them",
        ),
        (
            EmbeddingFormat::Tsv,
            pooled.clone(),
            NumberType::Bf16,
            "tsv has no bf16 numbers; use --out-dtype f32, or --format safetensors, which has them",
        ),
        (
            EmbeddingFormat::Npy,
            both.clone(),
            NumberType::F32,
            "npy holds one array, but 2 columns were requested; use --format npz, h5, safetensors, parquet or arrow",
        ),
        (
            EmbeddingFormat::Tsv,
            both,
            NumberType::F32,
            "a tsv has one row per protein or one row per residue, so pooled and per-residue columns cannot share it; write two files, or use --format jsonl, npz, h5, safetensors, parquet or arrow",
        ),
        (
            EmbeddingFormat::Npy,
            pooled,
            NumberType::F32,
            "npy needs a file, because its index stands beside it; use --output FILE.npy, or --format npz, which can be piped",
        ),
        (
            EmbeddingFormat::Npz,
            vec![],
            NumberType::F32,
            "there is no column to write",
        ),
        (
            EmbeddingFormat::Npz,
            vec![column("id", 1, RowKind::PerSequence)],
            NumberType::F32,
            "a column cannot be called \"id\"",
        ),
    ];
    for (format, columns, dtype, message) in cases {
        let error =
            EmbeddingWriter::create(format, &schema(columns, dtype), Path::new("/dev/null"))
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
    let schema = schema(
        vec![column("mean", 2, RowKind::PerSequence)],
        NumberType::F16,
    );
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
        let mut writer =
            EmbeddingWriter::create(EmbeddingFormat::Npz, &schema, Path::new("/dev/null")).unwrap();
        writer.write(&good).unwrap();
        let error = writer.write(&bad).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::InvalidData, message)
        );
    }
    for format in [
        EmbeddingFormat::Npz,
        EmbeddingFormat::H5,
        EmbeddingFormat::Safetensors,
    ] {
        let mut writer = EmbeddingWriter::create(format, &schema, Path::new("/dev/null")).unwrap();
        writer.write(&good).unwrap();
        let error = writer.write(&good).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{format:?}");
        let message = error.to_string();
        assert!(
            message.starts_with("record 2 (P1): there is a"),
            "{message}"
        );
        assert!(message.ends_with(" called `P1` already"), "{message}");
    }
}

#[test]
fn a_truncated_file_is_an_error() {
    for format in EmbeddingFormat::ALL {
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("cut");
        write(format, &schema, &plain_records(&schema, 10), &path);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
        let outcome = EmbeddingReader::open(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let message = outcome.expect_err(format.name()).to_string();
        assert!(
            message.starts_with(&path.display().to_string()),
            "{message}"
        );
    }
}
