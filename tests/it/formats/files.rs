//! Files and streams: the same bytes, known by what is in them, with and without a manifest.

use std::fs;

use ankh3::output::embeddings::{Destination, EmbeddingRecord, Format, Reader, Rows, Writer};
use serde_json::Map;
use tempfile::TempDir;

use super::fixture::{Pipe, column, column_sets, plain_records, read, schema, try_write, write};
use ankh3::number::NumberType;

#[test]
fn what_is_no_number_survives_where_the_format_has_it() {
    let schema = schema(vec![column("mean", 4, Rows::PerSequence)], NumberType::F16);
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

#[test]
fn a_stream_gets_the_bytes_of_the_file() {
    for format in Format::ALL
        .into_iter()
        .filter(|format| *format != Format::Npy)
    {
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
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
            let schema = schema(columns, NumberType::F32);
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
#[cfg(unix)]
fn a_finished_file_has_ordinary_permissions_and_a_link_stays_a_link() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let ordinary = fs::metadata(&file).unwrap().permissions().mode();
    let schema = schema(vec![column("mean", 2, Rows::PerSequence)], NumberType::F32);
    write(Format::Npz, &schema, &plain_records(&schema, 2), &link);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode(), ordinary);
    assert_eq!(read(&file).len(), 2);
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

/// Names of files must not decide what is read.
#[test]
fn a_file_is_known_by_its_first_bytes() {
    let schema = schema(vec![column("mean", 2, Rows::PerSequence)], NumberType::F32);
    for format in Format::ALL {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("misleading.txt");
        write(format, &schema, &plain_records(&schema, 1), &path);
        assert_eq!(Format::detect(&path).unwrap(), format);
    }
}
