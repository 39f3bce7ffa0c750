//! The table of damaged inputs: one line per file in `data/nasty`. The same table is in
//! `docs/input.md`.

use std::fs;

use ankh3::input::sequences::Options;

use super::{GFP, HBA, nasty, read, skipping};

/// File, items before the end under `--on-bad error`, part of the message (empty without an error),
/// items under `--on-bad skip`.
type Row = (
    &'static str,
    &'static [(&'static str, usize)],
    &'static str,
    &'static [(&'static str, usize)],
);

const NASTY: [Row; 26] = [
    ("01_empty_file.fasta", &[], "no sequence in ", &[]),
    (
        "02_empty_record.fasta",
        &[],
        "record 1 (P42212), line 1: no residues",
        &[HBA],
    ),
    (
        "03_no_header.fasta",
        &[],
        "line 1: text before the first header",
        &[],
    ),
    (
        "04_duplicate_ids.fasta",
        &[GFP],
        "record 2 (P42212), line 6: an earlier record has the same id",
        &[GFP],
    ),
    ("05_lower_case.fasta", &[GFP, HBA], "", &[GFP, HBA]),
    ("06_crlf.fasta", &[GFP, HBA], "", &[GFP, HBA]),
    (
        "07_stop_star.fasta",
        &[GFP],
        "record 2 (P69905), line 6: stop '*' inside the sequence at position 41",
        &[GFP],
    ),
    ("08_gaps.fasta", &[GFP], "", &[GFP]),
    ("09_digits.fasta", &[GFP], "", &[GFP]),
    (
        "10_very_long_line.fasta",
        &[("A2ASS6", 35_213)],
        "",
        &[("A2ASS6", 35_213)],
    ),
    (
        "11_non_utf8.fasta",
        &[GFP],
        "record 2 (P69905), line 3: byte 0xE9 at position 21",
        &[GFP],
    ),
    (
        "12_truncated.fasta.gz",
        &[GFP],
        "after line 7, record 2; if the file is truncated",
        &[GFP],
    ),
    ("13_plain_text_named.fasta.gz", &[GFP], "", &[GFP]),
    ("14_blank_lines_spaces.fasta", &[GFP, HBA], "", &[GFP, HBA]),
    ("15_utf8_bom.fasta", &[GFP], "", &[GFP]),
    ("16_no_final_newline.fasta", &[GFP], "", &[GFP]),
    (
        "17_bare_header.fasta",
        &[],
        "record 1 (no id), line 1: no id after '>'",
        &[],
    ),
    (
        "18_nul_bytes.fasta",
        &[],
        "record 1 (P42212), line 1: control character U+0000 at position 239",
        &[HBA],
    ),
    (
        "19_dna.fasta",
        &[("looks_like_dna", 180)],
        "",
        &[("looks_like_dna", 180)],
    ),
    ("20_multi_member.fasta.gz", &[GFP, HBA], "", &[GFP, HBA]),
    ("21_long_header.fasta", &[GFP], "", &[GFP]),
    ("22_comment_lines.fasta", &[GFP, HBA], "", &[GFP, HBA]),
    ("23_cr_only.fasta", &[GFP], "", &[GFP]),
    (
        "24_one_residue.fasta",
        &[("one", 1), ("two", 2), ("all_x", 20)],
        "",
        &[("one", 1), ("two", 2), ("all_x", 20)],
    ),
    (
        "25_odd_letters.fasta",
        &[],
        "record 1 (odd), line 1: '@' at position 4 is not a residue",
        &[],
    ),
    (
        "26_binary.fasta",
        &[],
        "line 1: text before the first header",
        &[],
    ),
];

/// Files whose error ends the run even under `--on-bad skip`.
const FATAL: [&str; 4] = [
    "01_empty_file.fasta",
    "03_no_header.fasta",
    "12_truncated.fasta.gz",
    "26_binary.fasta",
];

#[test]
fn every_nasty_file_has_its_outcome() {
    for (name, items, message, skipped) in NASTY {
        let strict = read(&[nasty(name)], Options::default());
        assert_eq!(strict.lengths(), items, "{name}");
        assert!(
            strict.message().contains(message),
            "{name}: {}",
            strict.message()
        );
        assert_eq!(
            strict.error.is_some(),
            !message.is_empty(),
            "{name}: {}",
            strict.message()
        );
        assert!(
            message.is_empty() || strict.message().contains(name),
            "the file is named"
        );
        let lenient = read(&[nasty(name)], skipping());
        assert_eq!(lenient.lengths(), skipped, "{name} skipping");
        assert_eq!(
            lenient.error.is_some(),
            FATAL.contains(&name),
            "{name} skipping"
        );
        let partial = !message.is_empty() && !FATAL.contains(&name);
        assert_eq!(lenient.counts.is_partial(), partial, "{name}");
    }
}

#[test]
fn no_nasty_file_is_without_a_row() {
    let folder = fs::read_dir(nasty("")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "README.md").collect();
    names.sort();
    assert_eq!(names, NASTY.map(|row| row.0));
}
