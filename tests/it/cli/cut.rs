//! Files that were cut are not read as if they were whole.

use std::fs;
use std::path::Path;

use super::support::{folder_with, proteins, records, run, tiny};

/// Shortens a file by `count` bytes.
fn cut(path: &Path, count: usize) {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() - count]).unwrap();
}

#[test]
fn a_table_cut_in_its_last_row_is_neither_merged_nor_reported() {
    let folder = folder_with(&proteins(&[9, 12, 7, 10]));
    let path = folder.path();
    for (format, shortened) in [("tsv", 1), ("tsv", 3), ("csv", 1), ("jsonl", 2)] {
        for shard in 1..=2 {
            let score = format!("score --model {} --shard {shard}/2", tiny());
            run(path, &format!("{score} -o {shard}.{format} in.fasta")).with(0);
        }
        cut(&path.join(format!("2.{format}")), shortened);
        for command in [
            format!("merge -o whole.{format} 1.{format} 2.{format}"),
            format!("report -o page.html 2.{format}"),
        ] {
            run(path, &command)
                .with(1)
                .saying(&[&format!("2.{format}"), "line break"]);
        }
        assert!(!path.join(format!("whole.{format}")).exists());
        assert!(!path.join("page.html").exists());
    }
}

#[test]
fn embeddings_cut_at_their_end_are_errors() {
    let folder = folder_with(&proteins(&[9, 12]));
    let path = folder.path();
    for (name, file, shortened) in [
        ("e.tsv", "e.tsv", 1),
        ("e.jsonl", "e.jsonl", 1),
        ("e.npy", "e.npy.index.tsv", 1),
        ("e.npy", "e.npy", 4),
        // The mark of its end.
        ("e.arrow", "e.arrow", 8),
        ("e.npz", "e.npz", 1),
        ("e.parquet", "e.parquet", 1),
        ("e.safetensors", "e.safetensors", 4),
        ("e.h5", "e.h5", 100),
    ] {
        let embed = format!("embed --model {} --pooling mean -o {name} in.fasta", tiny());
        run(path, &embed).with(0);
        run(path, &format!("inspect {name}")).with(0);
        cut(&path.join(file), shortened);
        run(path, &format!("inspect {name}"))
            .with(1)
            .saying(&[name]);
    }
}

#[test]
fn a_file_without_all_of_its_records_is_an_error() {
    let folder = folder_with(&proteins(&[9, 12, 7]));
    let path = folder.path();
    let embed = format!("embed --model {} --pooling mean -o e.tsv in.fasta", tiny());
    run(path, &embed).with(0);
    let text = fs::read_to_string(path.join("e.tsv")).unwrap();
    let rows: Vec<&str> = text.lines().collect();
    fs::write(path.join("e.tsv"), rows[..3].join("\n") + "\n").unwrap();
    run(path, "inspect e.tsv")
        .with(1)
        .saying(&["2 records", "3 according to its manifest"]);
}

/// Names of datasets end at 4000 bytes, because longer ones are lost where a file has many.
#[test]
fn an_id_that_h5_cannot_name_is_an_error() {
    let folder = folder_with(&[]);
    let path = folder.path();
    let embed = format!("embed --model {} --pooling mean", tiny());
    for (length, code) in [(4000, 0), (4001, 1)] {
        let ids = (0..12).map(|n| format!(">{}{n:02}\nMKT\n", "x".repeat(length - 2)));
        fs::write(path.join("long.fasta"), ids.collect::<String>()).unwrap();
        let ended = run(path, &format!("{embed} -o long.h5 long.fasta")).with(code);
        if code == 0 {
            assert_eq!(records(&path.join("long.h5")).len(), 12);
        } else {
            ended.saying(&["record 1", "4001 bytes", "h5 can hold (4000)"]);
        }
    }
}
