//! Files and streams: the same bytes, recognised by their content, with and without a manifest.

use std::fs;

use ankh3::number::NumberType;
use ankh3::output::embeddings::{
    EmbeddingFormat, EmbeddingReader, EmbeddingRecord, EmbeddingWriter, RowKind,
};
use ankh3::output::manifest::Manifest;
use tempfile::TempDir;

use super::fixture::{
    collect, column, column_sets, complete, pipe, plain_records, read, schema, write,
};

#[test]
fn what_is_no_number_survives_where_the_format_has_it() {
    let schema = schema(
        vec![column("mean", 4, RowKind::PerSequence)],
        NumberType::F16,
    );
    let record = EmbeddingRecord {
        id: "P1".into(),
        length: 3,
        values: vec![vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]],
    };
    for format in EmbeddingFormat::ALL {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("odd");
        if format == EmbeddingFormat::Jsonl {
            let mut writer = EmbeddingWriter::create(format, &schema, &path).unwrap();
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
    for format in EmbeddingFormat::ALL
        .into_iter()
        .filter(|format| *format != EmbeddingFormat::Npy)
    {
        let schema = schema(column_sets(format).remove(0), NumberType::F32);
        let records = plain_records(&schema, 50);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("file");
        write(format, &schema, &records, &path);
        let pipe = pipe(directory.path());
        let collected = collect(&pipe);
        write(format, &schema, &records, &pipe);
        let collected = collected.join().unwrap();
        assert!(collected == fs::read(&path).unwrap(), "{format:?}");
    }
}

#[test]
fn text_without_its_manifest_still_has_columns_and_values() {
    for format in [EmbeddingFormat::Tsv, EmbeddingFormat::Jsonl] {
        for columns in column_sets(format) {
            let schema = schema(columns, NumberType::F32);
            let records = plain_records(&schema, 5);
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("text");
            write(format, &schema, &records, &path);
            fs::remove_file(directory.path().join("text.json")).unwrap();
            let reader = EmbeddingReader::open(&path).unwrap();
            assert_eq!(reader.schema().columns, schema.columns, "{format:?}");
            assert_eq!(reader.schema().metadata, Manifest::default());
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
    let schema = schema(
        vec![column("mean", 2, RowKind::PerSequence)],
        NumberType::F32,
    );
    write(
        EmbeddingFormat::Npz,
        &schema,
        &plain_records(&schema, 2),
        &link,
    );
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode(), ordinary);
    assert_eq!(read(&file).len(), 2);
}

#[test]
fn another_tools_file_is_not_taken_for_ours() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("proteins.fasta");
    fs::write(&path, ">P1\nMKV\n").unwrap();
    let error = EmbeddingReader::open(&path).err().unwrap().to_string();
    assert_eq!(
        error,
        format!(
            "{}: its first bytes belong to none of the formats written by ankh3",
            path.display()
        )
    );
}

/// The format is recognised by the content, whatever the name of the file.
#[test]
fn a_file_is_known_by_its_first_bytes() {
    let schema = schema(
        vec![column("mean", 2, RowKind::PerSequence)],
        NumberType::F32,
    );
    for format in EmbeddingFormat::ALL {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("misleading.txt");
        write(format, &schema, &plain_records(&schema, 1), &path);
        assert_eq!(EmbeddingFormat::detect(&path).unwrap(), format);
    }
}

/// A number of records that differs from the manifest is an error at the end of the file, which
/// names both numbers.
#[test]
fn a_file_holds_as_many_records_as_its_manifest_says() {
    let schema = schema(
        vec![column("mean", 2, RowKind::PerSequence)],
        NumberType::F32,
    );
    let records = plain_records(&schema, 5);
    for format in [EmbeddingFormat::Tsv, EmbeddingFormat::Jsonl] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("text");
        write(format, &schema, &records, &path);
        let text = fs::read_to_string(&path).unwrap();
        let cut = text.trim_end().rfind('\n').unwrap() + 1;
        fs::write(&path, &text[..cut]).unwrap();
        let found: Vec<_> = EmbeddingReader::open(&path).unwrap().collect();
        assert_eq!(found.len(), 5, "four records and the error");
        let error = found.last().unwrap().as_ref().unwrap_err().to_string();
        assert!(
            error.contains("holds 4 records, but 5 according to its manifest"),
            "{error}"
        );
    }
}

/// Files of earlier versions have neither a digest nor a number of records.
#[test]
fn files_without_digest_and_number_of_records_are_read() {
    let schema = schema(
        vec![column("mean", 2, RowKind::PerSequence)],
        NumberType::F32,
    );
    let records = plain_records(&schema, 3);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("old.tsv");
    write(EmbeddingFormat::Tsv, &schema, &records, &path);
    let manifest = serde_json::to_string(&schema).unwrap();
    fs::write(directory.path().join("old.tsv.json"), manifest).unwrap();
    assert_eq!(EmbeddingReader::open(&path).unwrap().schema(), &schema);
    assert_eq!(read(&path), records);
}

/// The schema in a stream lacks the counts; they come from the file beside it, if that file belongs
/// to the stream.
#[test]
fn an_arrow_file_has_its_counts_beside_it() {
    let schema = schema(
        vec![column("mean", 2, RowKind::PerSequence)],
        NumberType::F32,
    );
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.arrow");
    write(
        EmbeddingFormat::Arrow,
        &schema,
        &plain_records(&schema, 3),
        &path,
    );
    let open = || EmbeddingReader::open(&path).unwrap();
    assert_eq!(open().schema(), &complete(&schema, 3));
    let mut other = complete(&schema, 7);
    other.metadata.prefix = Some("s2s".to_owned());
    let beside = directory.path().join("a.arrow.json");
    fs::write(&beside, serde_json::to_string(&other).unwrap()).unwrap();
    assert_eq!(open().schema(), &schema);
    fs::remove_file(beside).unwrap();
    assert_eq!(open().schema(), &schema);
    assert_eq!(read(&path).len(), 3);
}
