//! The conveyor with work that needs no model.

use std::path::Path;

use anyhow::{Result, bail};

use super::*;
use crate::args::ScaleArgs;
use crate::input::sequences::Options;
use crate::io::stdio::Content;
use crate::sequence::{Origin, Sequence};

/// Counts the letters A; a sequence with a W has no result, one with a Z ends the run.
#[derive(Default)]
struct Counting {
    seen: u64,
    computed: Vec<String>,
}

impl GroupWork for Counting {
    type Output = Vec<f64>;

    fn saw(&mut self, _sequence: &Sequence) {
        self.seen += 1;
    }

    fn tokens(&self, sequence: &Sequence) -> usize {
        sequence.residues.len()
    }

    fn compute(&mut self, group: &[Sequence]) -> Result<Vec<Option<Vec<f64>>>> {
        let count = |sequence: &Sequence| {
            self.computed.push(sequence.id.clone());
            let has = |letter| sequence.residues.contains(&letter);
            if has(b'Z') {
                bail!("{}: the device is gone", sequence.id);
            }
            let count = sequence.residues.iter().filter(|letter| **letter == b'A');
            Ok((!has(b'W')).then(|| vec![count.count() as f64]))
        };
        group.iter().map(count).collect()
    }
}

/// Rows in memory.
struct Collected<'a, const KEEPS: bool>(&'a mut Vec<String>);

impl<const KEEPS: bool> RowWriter for Collected<'_, KEEPS> {
    type Output = Vec<f64>;

    const KEEPS_PLACES: bool = KEEPS;

    fn write(&mut self, sequence: &Sequence, output: Vec<f64>) -> Result<()> {
        self.0.push(format!("{} {}", sequence.id, output[0]));
        Ok(())
    }

    fn pass_over(&mut self) {
        self.0.push("-".to_owned());
    }

    fn finish(self, input: InputDigest) -> Result<Outcome> {
        self.0.push(format!("{} records", input.records));
        Ok(Outcome::Done)
    }
}

fn sequences(residues: &[&str]) -> Vec<Sequence> {
    let each = residues.iter().enumerate();
    each.map(|(number, residues)| Sequence {
        id: format!("p{number}"),
        description: String::new(),
        residues: residues.as_bytes().to_vec(),
        origin: Origin {
            file: "made.fasta".into(),
            record: number as u64 + 1,
            line: 1,
        },
    })
    .collect()
}

fn scale(shard: Option<&str>, resume: bool) -> ScaleArgs {
    ScaleArgs {
        shard: shard.map(|shard| shard.parse().unwrap()),
        resume,
    }
}

/// The outcome of a run, and the work and the rows at its end.
fn carried<const KEEPS: bool>(
    residues: &[&str],
    on_bad: OnBad,
    scale: &ScaleArgs,
    output: &Path,
) -> (Result<Outcome>, Counting, Vec<String>) {
    let options = Options {
        on_bad,
        ..Options::default()
    };
    let outputs = [(output, Content::Text)];
    let plan = RunPlan::of_sequences(sequences(residues), options, scale, &outputs).unwrap();
    let conveyor = plan.begin("key").unwrap();
    let mut work = Grouped::new(Counting::default(), 4);
    let mut rows = Vec::new();
    let collected = Collected::<KEEPS>(&mut rows);
    let delivery = conveyor.carry(&mut work, collected);
    let outcome = delivery.and_then(Delivery::finish);
    (outcome, work.work, rows)
}

#[test]
fn results_come_in_order_and_failures_keep_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.tsv");
    let input = ["A", "AAC", "W", "CA", "AAAAA", "C"];
    let (outcome, work, rows) = carried::<true>(&input, OnBad::Skip, &scale(None, false), &output);
    assert_eq!(outcome.unwrap(), Outcome::SomeFailed);
    assert_eq!(work.seen, 6);
    let all = ["p0 1", "p1 2", "-", "p3 1", "p4 5", "p5 0", "6 records"];
    assert_eq!(rows, all);
    for (shard, expected) in [
        ("1/2", ["p0 1", "-", "p4 5", "6 records"]),
        ("2/2", ["p1 2", "p3 1", "p5 0", "6 records"]),
    ] {
        let scale = scale(Some(shard), false);
        let (_, work, rows) = carried::<true>(&input, OnBad::Skip, &scale, &output);
        assert_eq!((work.seen, rows), (6, expected.map(str::to_owned).to_vec()));
    }
}

#[test]
fn a_failure_ends_a_run_that_must_not_skip_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.tsv");
    let input = ["A", "W", "AA"];
    let shard = scale(Some("1/1"), false);
    let table = [
        (
            carried::<true>(&input, OnBad::Error, &shard, &output),
            "--on-bad skip",
        ),
        (
            carried::<false>(&input, OnBad::Skip, &shard, &output),
            "merged by their order",
        ),
    ];
    for ((outcome, _, rows), advice) in table {
        let error = outcome.unwrap_err().to_string();
        let place = "made.fasta: record 2 (p1), line 1: the model's result holds NaN";
        assert!(error.contains(place) && error.contains(advice), "{error}");
        assert_eq!(rows, ["p0 1"]);
    }
}

#[test]
fn a_run_that_ended_goes_on_from_its_journal() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.tsv");
    let resume = scale(None, true);
    let cut_off = ["AAAA", "WAAA", "AACA", "ZAAA", "A"];
    let (outcome, ..) = carried::<true>(&cut_off, OnBad::Skip, &resume, &output);
    assert!(
        outcome
            .unwrap_err()
            .to_string()
            .contains("the device is gone")
    );
    let input = ["AAAA", "WAAA", "AACA", "AAAA", "A"];
    let (outcome, work, rows) = carried::<true>(&input, OnBad::Skip, &resume, &output);
    // The input of the first run differed at the fourth sequence, which had no result yet.
    assert_eq!(outcome.unwrap(), Outcome::SomeFailed);
    assert_eq!(work.computed, ["p3", "p4"]);
    assert_eq!(rows, ["p0 4", "-", "p2 3", "p3 4", "p4 1", "5 records"]);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn another_input_than_that_of_the_journal_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.tsv");
    let resume = scale(None, true);
    let (outcome, ..) = carried::<true>(&["AAAA", "ZAAA"], OnBad::Error, &resume, &output);
    assert!(outcome.is_err());
    let (outcome, ..) = carried::<true>(&["CCCC", "AAAA"], OnBad::Error, &resume, &output);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("the input differs"), "{error}");
}
