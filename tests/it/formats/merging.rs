//! Merging shards and other files; inspecting files.

use std::path::{Path, PathBuf};

use ankh3::number::NumberType;
use ankh3::output::embeddings::inspect::inspect;
use ankh3::output::embeddings::{
    EmbeddingFormat, EmbeddingReader, EmbeddingRecord, EmbeddingWriter, RowKind, Schema,
};
use ankh3::output::merge::{MergeError, merge_embeddings};
use serde_json::Value;
use tempfile::TempDir;

use super::fixture::{
    bytes, column, column_sets, complete, input, names_in, plain_records, read, schema, write,
};

fn with_shard(schema: &Schema, shard: &str) -> Schema {
    let mut schema = schema.clone();
    schema.metadata.shard = Some(shard.to_owned());
    schema
}

/// Writes shard `number` of `of`, from 1, as a run with `--shard` does.
fn write_shard(
    format: EmbeddingFormat,
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

fn merge_files(
    paths: &[PathBuf],
    format: EmbeddingFormat,
    to: &Path,
) -> Result<u64, Box<MergeError>> {
    let readers = paths
        .iter()
        .map(|path| EmbeddingReader::open(path))
        .collect::<Result<_, _>>()
        .map_err(MergeError::from)?;
    Ok(merge_embeddings(readers, format, None, to)?)
}

#[test]
fn merged_shards_are_the_bytes_of_one_run() {
    for format in EmbeddingFormat::ALL {
        for (columns, dtype) in column_sets(format)
            .into_iter()
            .zip([NumberType::F32, NumberType::F16])
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

/// Contact maps have one matrix per protein.
#[test]
fn merged_matrices_are_the_bytes_of_one_run() {
    for format in [
        EmbeddingFormat::Npz,
        EmbeddingFormat::H5,
        EmbeddingFormat::Safetensors,
    ] {
        let schema = schema(
            vec![column("contacts", 1, RowKind::PerPair)],
            NumberType::F32,
        );
        let records = plain_records(&schema, 7);
        let directory = TempDir::new().unwrap();
        let whole = directory.path().join("whole");
        write(format, &schema, &records, &whole);
        let shards =
            [2, 1].map(|n| write_shard(format, &schema, &records, (n, 2), directory.path()));
        let merged = directory.path().join("merged");
        assert_eq!(merge_files(&shards, format, &merged).unwrap(), 7);
        assert!(bytes(&whole) == bytes(&merged), "{format:?}");
        assert_eq!(read(&merged), records);
    }
}

#[test]
fn a_merge_can_change_the_number_type() {
    let of = |dtype| schema(vec![column("mean", 3, RowKind::PerSequence)], dtype);
    let single = of(NumberType::F32);
    let records = plain_records(&single, 6);
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    write(EmbeddingFormat::Npz, &single, &records, &at("single.npz"));
    let half = Schema {
        dtype: NumberType::Bf16,
        ..single
    };
    write(EmbeddingFormat::Safetensors, &half, &records, &at("half"));
    let reader = EmbeddingReader::open(&at("single.npz")).unwrap();
    let (format, dtype) = (EmbeddingFormat::Safetensors, Some(NumberType::Bf16));
    merge_embeddings(vec![reader], format, dtype, &at("merged")).unwrap();
    assert!(bytes(&at("merged")) == bytes(&at("half")));
    // Numbers of a type that the target format lacks are written in another type.
    let reader = EmbeddingReader::open(&at("half")).unwrap();
    let error = merge_embeddings(vec![reader], EmbeddingFormat::H5, None, &at("out"));
    assert!(error.unwrap_err().to_string().contains("--out-dtype"));
    let reader = EmbeddingReader::open(&at("half")).unwrap();
    let dtype = Some(NumberType::F32);
    merge_embeddings(vec![reader], EmbeddingFormat::H5, dtype, &at("out")).unwrap();
    assert_eq!(read(&at("out")), read(&at("half")));
}

#[test]
fn shards_of_different_inputs_are_not_merged() {
    let schema = schema(
        vec![column("mean", 3, RowKind::PerSequence)],
        NumberType::F32,
    );
    let records = plain_records(&schema, 4);
    let directory = TempDir::new().unwrap();
    let paths = [1, 2].map(|number| {
        let path = directory.path().join(format!("{number}.npz"));
        let schema = with_shard(&schema, &format!("{number}/2"));
        let mut writer = EmbeddingWriter::create(EmbeddingFormat::Npz, &schema, &path).unwrap();
        let own = records.iter().skip(number - 1).step_by(2);
        own.for_each(|record| writer.write(record).unwrap());
        let mut input = input();
        input.sha256.truncate(64 - number);
        writer.finish(Some(input)).unwrap();
        path
    });
    let merged = directory.path().join("merged.npz");
    let error = merge_files(&paths, EmbeddingFormat::Npz, &merged).unwrap_err();
    assert!(matches!(*error, MergeError::Inputs { .. }));
    let error = error.to_string();
    assert!(
        paths
            .iter()
            .all(|path| error.contains(path.to_str().unwrap()))
            && error.contains("were made from different inputs"),
        "{error}"
    );
    assert!(!merged.exists());
}

#[test]
fn files_without_shards_are_joined_in_the_order_given() {
    let schema = schema(
        vec![column("mean", 3, RowKind::PerSequence)],
        NumberType::F32,
    );
    let records = plain_records(&schema, 9);
    let directory = TempDir::new().unwrap();
    let paths = ["b.parquet", "a.npz"]
        .map(|name| directory.path().join(name))
        .to_vec();
    write(EmbeddingFormat::Parquet, &schema, &records[..4], &paths[0]);
    write(EmbeddingFormat::Npz, &schema, &records[4..], &paths[1]);
    let merged = directory.path().join("merged.h5");
    assert_eq!(
        merge_files(&paths, EmbeddingFormat::H5, &merged).unwrap(),
        9
    );
    assert_eq!(read(&merged), records);
}

#[test]
fn what_cannot_be_merged_says_why_and_leaves_nothing() {
    let first = schema(
        vec![column("mean", 3, RowKind::PerSequence)],
        NumberType::F32,
    );
    let records = plain_records(&first, 6);
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let file = |name: &str, schema: &Schema, records: &[EmbeddingRecord]| {
        write(EmbeddingFormat::Jsonl, schema, records, &at(name));
        at(name)
    };
    let with = |key: &str, value: Value| {
        let mut schema = first.clone();
        let mut metadata = schema.metadata.to_map().unwrap();
        metadata.insert(key.into(), value);
        schema.metadata = serde_json::from_value(Value::Object(metadata)).unwrap();
        schema
    };
    let mut half = first.clone();
    half.dtype = NumberType::F16;
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
            "DIR/again: the id `P015838` is already in DIR/a",
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
            "DIR/short ends after 1 records, but DIR/one has more: one of the two is not complete; run that shard again (or with --resume)",
        ),
        (
            vec![
                file("few", &with_shard(&first, "1/2"), &records[..1]),
                file("two", &with_shard(&first, "2/2"), &records[3..5]),
            ],
            "DIR/few ends after 1 records, but DIR/two has more: one of the two is not complete; run that shard again (or with --resume)",
        ),
    ];
    for (paths, message) in cases {
        let before = names_in(directory.path());
        let error = merge_files(&paths, EmbeddingFormat::Npz, &at("merged.npz"))
            .unwrap_err()
            .to_string();
        let message = message.replace("DIR", &directory.path().display().to_string());
        assert_eq!(error, message);
        assert_eq!(names_in(directory.path()), before);
    }
}

#[test]
fn inspecting_sums_a_file_up() {
    for format in EmbeddingFormat::ALL {
        let schema = schema(
            vec![column("per_residue", 2, RowKind::PerResidue)],
            NumberType::F32,
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
            (schema.dtype, &complete(&schema, 2).metadata)
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
