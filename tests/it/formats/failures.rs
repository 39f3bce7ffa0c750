//! Closed pipes, full disks, half runs, and what cannot be written or read.

use std::fs;
use std::io;

use ankh3::output::embeddings::{Destination, EmbeddingRecord, Format, Reader, Rows, Writer};
use tempfile::TempDir;

use super::fixture::{
    Pipe, column, column_sets, names_in, plain_records, schema, try_write, write,
};
use ankh3::number::NumberType;

/// Whoever reads the pipe must not take half a run for a whole one.
#[test]
fn a_stream_that_does_not_finish_is_no_whole_file() {
    for format in Format::ALL
        .into_iter()
        .filter(|format| *format != Format::Npy)
    {
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
        let records = plain_records(&schema, 3000);
        let (whole, half) = (Pipe::default(), Pipe::default());
        let stream = Destination::Stream(Box::new(whole.clone()));
        try_write(format, &schema, &records, stream).unwrap();
        let stream = Destination::Stream(Box::new(half.clone()));
        let mut writer = Writer::create(format, &schema, stream).unwrap();
        records
            .iter()
            .take(2000)
            .for_each(|record| writer.write(record).unwrap());
        drop(writer);
        let (whole, half) = (whole.bytes.lock().unwrap(), half.bytes.lock().unwrap());
        assert!(
            whole.len() > half.len() && whole.starts_with(&half),
            "{format:?}"
        );
    }
}

#[test]
fn a_closed_pipe_and_a_full_disk_keep_their_names() {
    for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
        for format in Format::ALL
            .into_iter()
            .filter(|format| *format != Format::Npy)
        {
            let schema = schema(column_sets(format).remove(0), NumberType::F32);
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
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
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
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
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
            NumberType::Bf16,
            "npz has no bf16 numbers; use --out-dtype f16 or f32, or --format safetensors, which has them",
        ),
        (
            Format::Tsv,
            pooled.clone(),
            NumberType::Bf16,
            "tsv has no bf16 numbers; use --out-dtype f32, or --format safetensors, which has them",
        ),
        (
            Format::Npy,
            both.clone(),
            NumberType::F32,
            "npy holds one array but 2 columns were asked for; use --format npz, h5, safetensors, parquet or arrow",
        ),
        (
            Format::Tsv,
            both,
            NumberType::F32,
            "a tsv has one row a protein or one row a residue, so pooled and per-residue columns cannot share it; write two files, or use --format jsonl, npz, h5, safetensors, parquet or arrow",
        ),
        (
            Format::Npy,
            pooled,
            NumberType::F32,
            "npy needs a file, because its index stands beside it; use --output FILE.npy, or --format npz, which can be piped",
        ),
        (
            Format::Npz,
            vec![],
            NumberType::F32,
            "there is no column to write",
        ),
        (
            Format::Npz,
            vec![column("id", 1, Rows::PerSequence)],
            NumberType::F32,
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
    let schema = schema(vec![column("mean", 2, Rows::PerSequence)], NumberType::F16);
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
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
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
