use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::support::{
    bytes, fasta, folder_with, names, project, proteins, records, run, run_with_stdin, tiny,
};

#[test]
fn stdin_dash_files_and_codecs_give_the_same_bytes() {
    let all = proteins(&[5, 60, 1, 33]);
    let folder = folder_with(&all);
    let path = folder.path();
    let text = fasta(&all);
    let model = tiny();
    run(
        path,
        &format!("embed --model {model} -o whole.npz in.fasta"),
    )
    .with(0);
    let whole = fs::read(path.join("whole.npz")).unwrap();

    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
    for input in [text.clone().into_bytes(), gzip(&text), zstd.clone()] {
        for dash in ["", "-"] {
            let ended = run_with_stdin(path, &format!("embed --model {model} {dash}"), &input);
            assert!(ended.with(0).stdout == whole);
        }
    }
    // Several files with different compressions, one of them on stdin, with names that do not show
    // the compression.
    fs::write(path.join("a"), gzip(&fasta(&all[..1]))).unwrap();
    fs::write(path.join("b.gz"), fasta(&all[1..2])).unwrap();
    fs::write(
        path.join("d"),
        zstd::encode_all(fasta(&all[3..]).as_bytes(), 3).unwrap(),
    )
    .unwrap();
    let arguments = format!("embed --model {model} -o parts.npz a b.gz - d");
    run_with_stdin(path, &arguments, fasta(&all[2..3]).as_bytes()).with(0);
    assert!(fs::read(path.join("parts.npz")).unwrap() == whole);
}

#[test]
fn ids_can_be_accessions() {
    let folder = folder_with(&[]);
    let path = folder.path();
    let text = ">sp|P69905|HBA_HUMAN Hemoglobin OS=Homo sapiens\nMVLSPADK\n>ref|NP_000509.1|\nMVHLTPEE\n>mine x\nMK\n";
    fs::write(path.join("in.fasta"), text).unwrap();
    let model = tiny();
    for format in [
        "npz",
        "h5",
        "parquet",
        "safetensors",
        "tsv",
        "jsonl",
        "arrow",
    ] {
        let arguments =
            format!("embed --model {model} --pooling mean --id accession -o x.{format} in.fasta");
        run(path, &arguments).with(0);
        let ids: Vec<String> = records(&path.join(format!("x.{format}")))
            .into_iter()
            .map(|record| record.id)
            .collect();
        assert_eq!(ids, ["P69905", "NP_000509.1", "mine"], "{format}");
    }
    let score = |flags: &str| {
        let arguments = format!("score --model {model} {flags} -o s.tsv in.fasta");
        run(path, &arguments).with(0);
        let manifest = fs::read_to_string(path.join("s.tsv.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let table = fs::read_to_string(path.join("s.tsv")).unwrap();
        (manifest["ids"].clone(), table)
    };
    assert_eq!(score("").0, serde_json::Value::Null);
    fs::write(path.join("v.csv"), "Protein;Mutation\nP69905;p.Val2Ala\n").unwrap();
    let (ids, table) = score("--id accession --variants v.csv");
    assert_eq!(ids, "accession");
    assert!(table.contains("\nP69905\tV2A\t"), "{table}");
    // Two records of one accession are duplicates.
    let twice = ">sp|P69905|HBA_HUMAN\nMK\n>tr|P69905|HBA_COPY\nMR\n";
    fs::write(path.join("in.fasta"), twice).unwrap();
    let embed = |flags: &str| {
        let arguments = format!("embed --model {model} --pooling mean {flags} -o d.npz in.fasta");
        run(path, &arguments)
    };
    embed("").with(0);
    embed("--id accession")
        .with(1)
        .saying(&["record 2 (P69905)", "--duplicates suffix"]);
    embed("--id accession --duplicates suffix").with(0);
    let ids: Vec<String> = records(&path.join("d.npz"))
        .into_iter()
        .map(|record| record.id)
        .collect();
    assert_eq!(ids, ["P69905", "P69905_2"]);
}

/// File of `tests/data/nasty`, exit code under `--on-bad error`, part of the message, exit code and
/// proteins under `--on-bad skip`.
type Row = (&'static str, i32, &'static [&'static str], i32, usize);

const NASTY: [Row; 26] = [
    ("01_empty_file.fasta", 1, &["no sequence"], 1, 0),
    (
        "02_empty_record.fasta",
        1,
        &["record 1 (P42212), line 1", "no residues"],
        3,
        1,
    ),
    ("03_no_header.fasta", 1, &["line 1"], 1, 0),
    (
        "04_duplicate_ids.fasta",
        1,
        &["record 2 (P42212), line 6", "--duplicates"],
        3,
        1,
    ),
    ("05_lower_case.fasta", 0, &[], 0, 2),
    ("06_crlf.fasta", 0, &[], 0, 2),
    (
        "07_stop_star.fasta",
        1,
        &["record 2 (P69905), line 6", "*"],
        3,
        1,
    ),
    ("08_gaps.fasta", 0, &[], 0, 1),
    ("09_digits.fasta", 0, &[], 0, 1),
    ("10_very_long_line.fasta", 0, &[], 0, 1),
    (
        "11_non_utf8.fasta",
        1,
        &["record 2 (P69905), line 3", "0xE9"],
        3,
        1,
    ),
    ("12_truncated.fasta.gz", 1, &["copy it again"], 1, 0),
    ("13_plain_text_named.fasta.gz", 0, &[], 0, 1),
    ("14_blank_lines_spaces.fasta", 0, &[], 0, 2),
    ("15_utf8_bom.fasta", 0, &[], 0, 1),
    ("16_no_final_newline.fasta", 0, &[], 0, 1),
    ("17_bare_header.fasta", 1, &["record 1", "line 1"], 3, 0),
    ("18_nul_bytes.fasta", 1, &["record 1", "line 1"], 3, 1),
    ("19_dna.fasta", 0, &["nucleotides"], 0, 1),
    ("20_multi_member.fasta.gz", 0, &[], 0, 2),
    ("21_long_header.fasta", 0, &[], 0, 1),
    ("22_comment_lines.fasta", 0, &[], 0, 2),
    ("23_cr_only.fasta", 0, &[], 0, 1),
    ("24_one_residue.fasta", 0, &[], 0, 3),
    (
        "25_odd_letters.fasta",
        1,
        &["record 1 (odd), line 1", "@"],
        3,
        0,
    ),
    ("26_binary.fasta", 1, &["line 1"], 1, 0),
];

#[test]
fn damaged_inputs_end_as_documented_and_no_record_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    // Only the outcome of records matters here, so long records are truncated to save time.
    let cut = "--max-length 500 --over truncate";
    for (name, code, says, skip_code, kept) in NASTY {
        let input = project("tests/data/nasty").join(name);
        let input = input.display();
        let arguments = format!("embed --model {model} --pooling mean {cut}");
        let ended = run(folder.path(), &format!("{arguments} -o {name}.tsv {input}"));
        assert_eq!(ended.code, Some(code), "{name}: {}", ended.stderr);
        let ended = ended.saying(says).saying(&[name]);
        if code != 0 {
            assert_eq!(names(folder.path()), [""; 0], "{name} left something");
            assert_eq!(ended.stderr.matches("ERROR").count(), 1, "{}", ended.stderr);
        }
        let skip = format!("{arguments} --on-bad skip -o skip.tsv {input}");
        let ended = run(folder.path(), &skip);
        assert_eq!(ended.code, Some(skip_code), "{name}: {}", ended.stderr);
        let written = if skip_code == 1 {
            0
        } else {
            records(&folder.path().join("skip.tsv")).len()
        };
        assert_eq!(written, kept, "{name}: {}", ended.stderr);
        if skip_code == 3 {
            assert_in_equals_out(&ended.stderr, written);
        }
        for name in names(folder.path()) {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}

/// Checks `K of N records left out: …`: N = K + written, and K records are listed.
fn assert_in_equals_out(stderr: &str, written: usize) {
    let line = stderr.lines().find(|line| line.contains("left out"));
    let words: Vec<&str> = line.expect(stderr).split_whitespace().collect();
    let of = words.iter().position(|word| *word == "of").unwrap();
    let number = |word: &str| word.parse::<usize>().unwrap();
    let (left_out, records) = (number(words[of - 1]), number(words[of + 1]));
    assert_eq!(records, left_out + written, "{stderr}");
    assert_eq!(stderr.matches("skipped: ").count(), left_out, "{stderr}");
}

#[test]
fn an_input_that_is_not_there_is_told_before_anything_is_computed() {
    let folder = folder_with(&proteins(&[5]));
    let model = tiny();
    let embed = |rest: &str| run(folder.path(), &format!("embed --model {model} {rest}"));
    embed("-o x.npz in.fasta missing.fasta")
        .with(1)
        .saying(&["missing.fasta", "No such file"]);
    embed("-o x.npz in.fasta .").with(1).saying(&["directory"]);
    embed("-o x.npz - -").with(1).saying(&["more than once"]);
    assert_eq!(names(folder.path()), ["in.fasta"]);
}

#[test]
fn repeated_ids_and_repeated_sequences() {
    let mut all = proteins(&[20, 30]);
    all.push(all[0].clone());
    let folder = folder_with(&all);
    let model = tiny();
    let embed = |rest: &str| {
        let arguments = format!("embed --model {model} -o out.npz in.fasta {rest}");
        run(folder.path(), &arguments)
    };
    embed("")
        .with(1)
        .saying(&["in.fasta: record 3 (sp|P00000|RANDOM/1-20), line 5"]);
    embed("--duplicates suffix").with(0);
    let suffixed = records(&folder.path().join("out.npz"));
    assert_eq!(suffixed[2].id, format!("{}_2", all[0].id));
    assert!(suffixed[2].values == suffixed[0].values);
    embed("--duplicates first").with(0);
    assert!(records(&folder.path().join("out.npz")) == suffixed[..2]);
    assert!(bytes(Path::new("out.npz")).iter().all(Option::is_none));
}
