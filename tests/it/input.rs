//! FASTA as people have it: damaged files (`nasty`), duplicates, changes of letters, limits of length.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nasty;

use std::error::Error;
use std::io::Write;
use std::iter::successors;
use std::path::{Path, PathBuf};

use ankh3::input::fasta::InputError;
use ankh3::input::sequences::{Counts, Input, Item, OnBad, Options};
use ankh3::sequence::{Changes, Duplicates, Limit, Over, Rules};

const GFP: (&str, usize) = ("P42212", 238);
const HBA: (&str, usize) = ("P69905", 142);

/// The results of an input: id and length of its items, then the error at the end.
struct Outcome {
    items: Vec<Item>,
    error: Option<InputError>,
    counts: Counts,
}

impl Outcome {
    fn lengths(&self) -> Vec<(&str, usize)> {
        let lengths = |item: &Item| item.sequence.residues.len();
        self.items
            .iter()
            .map(|item| (item.sequence.id.as_str(), lengths(item)))
            .collect()
    }

    /// The error with its causes, as `main` prints it.
    fn message(&self) -> String {
        let first = self
            .error
            .as_ref()
            .map(|error| error as &(dyn Error + 'static));
        let causes = successors(first, |error| (*error).source());
        causes
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    }
}

fn read(paths: &[PathBuf], options: Options) -> Outcome {
    let mut input = match Input::open(paths, options) {
        Ok(input) => input,
        Err(error) => {
            return Outcome {
                items: vec![],
                error: Some(error),
                counts: Counts::default(),
            };
        }
    };
    let (mut items, mut error) = (vec![], None);
    for item in input.by_ref() {
        match item {
            Ok(item) => items.push(item),
            Err(end) => error = Some(end),
        }
    }
    assert!(input.next().is_none(), "nothing comes after the end");
    let counts = *input.counts();
    assert_eq!(counts.sequences, items.len() as u64);
    assert!(
        items
            .iter()
            .map(|item| item.index)
            .eq(0..items.len() as u64)
    );
    if error.is_none() {
        let Counts {
            records,
            sequences,
            failed,
            repeated,
            too_long,
            ..
        } = counts;
        assert_eq!(
            records,
            sequences + failed + repeated + too_long,
            "in == out + left out"
        );
    }
    Outcome {
        items,
        error,
        counts,
    }
}

fn nasty(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/nasty")
        .join(name)
}

fn skipping() -> Options {
    Options {
        on_bad: OnBad::Skip,
        ..Options::default()
    }
}

fn written(text: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text).expect("room on the disk");
    file
}

#[test]
fn spellings_of_one_protein_give_the_same_residues() {
    let residues = |name: &str| {
        read(&[nasty(name)], skipping()).items[0]
            .sequence
            .residues
            .clone()
    };
    let want = residues("06_crlf.fasta");
    for name in [
        "05_lower_case.fasta",
        "07_stop_star.fasta",
        "08_gaps.fasta",
        "09_digits.fasta",
        "11_non_utf8.fasta",
        "13_plain_text_named.fasta.gz",
        "14_blank_lines_spaces.fasta",
        "15_utf8_bom.fasta",
        "16_no_final_newline.fasta",
        "20_multi_member.fasta.gz",
        "21_long_header.fasta",
        "22_comment_lines.fasta",
        "23_cr_only.fasta",
    ] {
        assert_eq!(residues(name), want, "{name}");
    }
}

#[test]
fn changes_are_counted() {
    let changes = |name| read(&[nasty(name)], skipping()).counts.changes;
    let none = Changes::default();
    assert_eq!(changes("08_gaps.fasta"), Changes { gaps: 6, ..none });
    assert_eq!(
        changes("09_digits.fasta"),
        Changes {
            digits: 1 + 2 + 3 + 3,
            ..none
        }
    );
    assert_eq!(changes("07_stop_star.fasta"), Changes { stops: 1, ..none });
    assert_eq!(changes("14_blank_lines_spaces.fasta"), none);
    assert_eq!(
        read(&[nasty("19_dna.fasta")], skipping())
            .counts
            .nucleotides,
        1
    );
    let sample = read(&[sample()], Options::default());
    assert_eq!((sample.counts.sequences, sample.counts.changes), (53, none));
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sample.fasta")
}

#[test]
fn duplicates_are_numbered_or_left_out() {
    let with = |duplicates| Options {
        duplicates,
        ..Options::default()
    };
    let suffixed = read(&[nasty("04_duplicate_ids.fasta")], with(Duplicates::Suffix));
    assert_eq!(
        suffixed.lengths(),
        [GFP, ("P42212_2", 142), ("P42212_3", 238)]
    );
    let first = read(&[nasty("04_duplicate_ids.fasta")], with(Duplicates::First));
    assert_eq!(first.lengths(), [GFP]);
    assert!(first.error.is_none() && !first.counts.is_partial());
    assert_eq!(first.counts.repeated, 2);
    let bare = read(&[nasty("17_bare_header.fasta")], with(Duplicates::Suffix));
    assert_eq!(bare.lengths(), [("record_1", 238), ("record_2", 142)]);
    let bare = read(&[nasty("17_bare_header.fasta")], with(Duplicates::First));
    assert!(bare.message().contains("no id after '>'"));
}

#[test]
fn a_bad_record_takes_no_id() {
    let file = written(b">a\nM@\n>a\nMK\n>a\nMKV\n");
    let options = Options {
        duplicates: Duplicates::First,
        ..skipping()
    };
    let outcome = read(&[file.path().to_owned()], options);
    assert_eq!(outcome.lengths(), [("a", 2)]);
    assert_eq!((outcome.counts.failed, outcome.counts.repeated), (1, 1));
}

#[test]
fn several_files_are_one_run() {
    let files = [
        "06_crlf.fasta",
        "24_one_residue.fasta",
        "05_lower_case.fasta",
    ]
    .map(nasty);
    let strict = read(&files, Options::default());
    assert_eq!(strict.lengths().len(), 5);
    let message = strict.message();
    assert!(
        message.contains(
            "05_lower_case.fasta: record 1 (P42212), line 1: an earlier record has the same id"
        ),
        "{message}"
    );
    let with_empty = [nasty("01_empty_file.fasta"), nasty("24_one_residue.fasta")];
    assert!(
        read(&with_empty, Options::default())
            .message()
            .contains("01_empty_file.fasta")
    );
    let lenient = read(&with_empty, skipping());
    assert_eq!((lenient.items.len(), lenient.counts.empty_files), (3, 1));
    assert!(lenient.error.is_none() && lenient.counts.is_partial());
}

#[test]
fn a_missing_file_shows_at_once_and_stdin_is_read_once() {
    let paths = [sample(), nasty("no_such.fasta")];
    let outcome = read(&paths, Options::default());
    assert!(outcome.items.is_empty());
    assert!(
        outcome
            .message()
            .contains("no_such.fasta: cannot be opened: No such file")
    );
    let twice = read(&["-".into(), "-".into()], Options::default());
    assert!(matches!(twice.error, Some(InputError::StdinTwice)));
    assert!(matches!(
        read(&[nasty("")], Options::default()).error,
        Some(InputError::Open { .. })
    ));
}

#[test]
fn no_length_is_cut_in_silence() {
    let with = |over| Options {
        limit: Limit::new(1022, over).unwrap(),
        ..Options::default()
    };
    let files = [
        nasty("10_very_long_line.fasta"),
        nasty("24_one_residue.fasta"),
    ];
    let error = read(&files, with(Over::Error));
    assert!(
        error
            .message()
            .contains("(A2ASS6), line 1: 35213 residues, more than --max-length 1022")
    );
    let skip = read(&files, with(Over::Skip));
    assert_eq!((skip.items.len(), skip.counts.too_long), (3, 1));
    assert!(skip.counts.is_partial());
    let truncate = read(&files, with(Over::Truncate));
    assert_eq!(truncate.lengths()[0], ("A2ASS6", 1022));
    assert_eq!(truncate.counts.changes.truncated, 35_213 - 1022);
    let chunk = read(&files, with(Over::Chunk { overlap: 100 }));
    assert_eq!(chunk.lengths()[0], ("A2ASS6", 35_213));
}

#[test]
fn mask_characters_pass_if_asked_for() {
    let file = written(b">a\nmk_V?\n");
    let options = Options {
        rules: Rules::keeping(b"_?"),
        ..Options::default()
    };
    let outcome = read(&[file.path().to_owned()], options);
    assert_eq!(outcome.items[0].sequence.residues, b"MK_V?");
}

/// A small linear congruential generator: the property tests need variety, not quality.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[test]
fn whatever_is_mixed_in_nothing_is_lost() {
    const PIECES: [&[u8]; 16] = [
        b"MKV",
        b"mk",
        b"-",
        b"*",
        b"12",
        b" ",
        b"@",
        b"\0",
        b"\xe9",
        b";c",
        b"J",
        b"\t",
        b"ACGT",
        b"UZOBX",
        "é".as_bytes(),
        b".",
    ];
    const ENDS: [&[u8]; 3] = [b"\n", b"\r\n", b"\r"];
    let policies = [Duplicates::Error, Duplicates::Suffix, Duplicates::First];
    for seed in 0..200 {
        let mut random = Random(seed);
        let (mut text, records) = (Vec::new(), 1 + random.below(30));
        for _ in 0..records {
            text.extend_from_slice(b">");
            text.extend_from_slice(random.pick(&[
                &b"a"[..],
                b"b x",
                b"",
                b"a_2",
                b"\xff",
                b"\xfe",
            ]));
            text.extend_from_slice(random.pick(&ENDS));
            for _ in 0..random.below(4) {
                for _ in 0..random.below(4) {
                    text.extend_from_slice(random.pick(&PIECES));
                }
                text.extend_from_slice(random.pick(&ENDS));
            }
        }
        let file = written(&text);
        for duplicates in policies {
            let limit =
                Limit::new(8, random.pick(&[Over::Error, Over::Skip, Over::Truncate])).unwrap();
            let options = Options {
                duplicates,
                limit,
                ..skipping()
            };
            let outcome = read(&[file.path().to_owned()], options);
            assert!(
                outcome.error.is_none(),
                "seed {seed}: {}",
                outcome.message()
            );
            assert_eq!(outcome.counts.records, records as u64, "seed {seed}");
            let mut ids: Vec<&str> = outcome.lengths().iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(
                ids.len(),
                outcome.items.len(),
                "seed {seed}: ids are unique"
            );
        }
    }
}

#[test]
fn a_long_input_flows_in_order_and_can_be_left_early() {
    let text: Vec<u8> = (0..50_000)
        .flat_map(|record| {
            format!(">s{record}\n{}\n", "MKVLAT".repeat(record % 60 + 1)).into_bytes()
        })
        .collect();
    let file = written(&text);
    let outcome = read(&[file.path().to_owned()], Options::default());
    assert!(
        outcome
            .items
            .iter()
            .enumerate()
            .all(|(n, item)| item.sequence.id == format!("s{n}"))
    );
    assert_eq!(outcome.items.len(), 50_000);
    let mut input = Input::open(&[file.path().to_owned()], Options::default()).unwrap();
    assert_eq!(input.next().unwrap().unwrap().sequence.id, "s0");
}
