//! `ankh3 pretrain` as a process: killed and resumed runs give the same bytes, and invalid settings
//! have clear errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod interrupted;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;

/// A corpus, held-out sequences and a tiny recipe in a directory of their own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.path("train.fasta"), fasta(1, 80)).unwrap();
        fs::write(place.path("valid.fasta"), fasta(2, 10)).unwrap();
        let recipe = format!(
            "steps = 100\ndropout = 0.1\n\
             [model]\nd_model = 16\nd_kv = 8\nd_ff = 24\nnum_heads = 2\nnum_layers = 2\nnum_decoder_layers = 1\n\
             [data]\ntrain = [{:?}]\nvalid = [{:?}]\nmax_residues = 40\n\
             [batch]\ntokens = 300\naccumulation = 2\n\
             [optimizer]\nlearning_rate = 0.02\n\
             [schedule]\nwarmup_steps = 10\n\
             [checkpoints]\nevery = 37\nkeep = 2\n\
             [evaluation]\nevery = 50\nlog_every = 1\n",
            place.path("train.fast*").display(),
            place.path("valid.fasta").display()
        );
        fs::write(place.path("recipe.toml"), recipe).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, run: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ankh3"));
        command.arg("pretrain").arg(self.path("recipe.toml"));
        command
            .arg("-o")
            .arg(self.path(run))
            .args(["--device", "cpu"])
            .args(more);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, run: &str, more: &[&str]) -> Output {
        self.command(run, more).output().unwrap()
    }

    fn weights(&self, run: &str) -> Vec<u8> {
        fs::read(self.path(run).join("model/model.safetensors")).unwrap()
    }

    /// The log without what depends on the clock.
    fn log(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("log.jsonl")).unwrap();
        let lines = text.lines().map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("tokens_per_second");
            line
        });
        lines.collect()
    }

    fn steps(&self, run: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(run).join("checkpoints")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn fasta(seed: u64, count: usize) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut text = String::new();
    for i in 0..count {
        let length = rng.random_range(5..60);
        let residues: String = (0..length)
            .map(|_| char::from(b"ACDEFGHIKLMNPQRSTVWY"[rng.random_range(0..20)]))
            .collect();
        writeln!(text, ">protein_{i}\n{residues}").unwrap();
    }
    text
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wait_for(path: &Path, child: &mut Child) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended before {}",
            path.display()
        );
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no {}",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn masking_that_the_vocabulary_cannot_have_is_named() {
    let place = Place::new();
    let sequence = "MKTAYIAKQR".repeat(80);
    let path = place.path("long.fasta");
    let sizes = [
        "--set",
        "data.max_residues=800",
        "--set",
        "batch.tokens=1600",
        "--set",
        "steps=1",
        "--set",
        "schedule.warmup_steps=0",
        "--set",
        "objectives.probabilities=[0.3]",
    ];
    let data = format!("data.train=[{path:?}]");
    let arguments = [&sizes[..], &["--set", &data]].concat();
    fs::write(&path, format!(">a\n{sequence}\n>b\n{sequence}\n")).unwrap();
    let messages = stderr(&place.run("never", &arguments));
    let says = "masking probability 0.3 cannot be reached: all sequences are longer than 750";
    assert!(messages.contains(says), "{messages}");
    fs::write(
        &path,
        format!(">a\n{sequence}\n>b\n{sequence}\n>c\nMKTAYIAKQR\n"),
    )
    .unwrap();
    let messages = stderr(&place.run("partly", &arguments));
    let says = "masking probability 0.3 is 0.281 on this corpus";
    assert!(messages.contains(says), "{messages}");
    let spans = [&arguments[..], &["--set", "objectives.span=3"]].concat();
    let messages = stderr(&place.run("spans", &spans));
    assert!(!messages.contains("masking probability"), "{messages}");
}

#[test]
fn what_cannot_work_says_why() {
    let place = Place::new();
    let occupied = place.path("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("thesis.tex"), "").unwrap();
    fs::write(place.path("empty.fasta"), "").unwrap();
    let empty = format!("data.train=[{:?}]", place.path("empty.fasta"));
    let table: [(&str, &[&str], &str); 8] = [
        ("a", &["--set", "optimizer.lr=1"], "unknown field `lr`"),
        (
            "b",
            &["--set", "data.train=[\"nowhere/*.fasta\"]"],
            "there is no file nowhere/*.fasta",
        ),
        (
            "c",
            &["--set", "batch.tokens=1000000"],
            "fewer than one step takes",
        ),
        (
            "d",
            &["--set", "model.preset=huge"],
            "it must be nano, small, base, large or xl",
        ),
        ("e", &["--set", &empty], "empty.fasta"),
        (
            "occupied",
            &[],
            "is not empty; --resume continues the run there",
        ),
        ("f", &["--init", "no/such/model"], "no/such/model"),
        (
            "g",
            &[
                "--set",
                "optimizer.learning_rate=1e30",
                "--set",
                "optimizer.clip_norm=0",
            ],
            "not finite",
        ),
    ];
    for (run, more, expected) in table {
        let output = place.run(run, more);
        assert_eq!(output.status.code(), Some(1), "{expected}");
        assert!(
            stderr(&output).contains(expected),
            "{expected}: {}",
            stderr(&output)
        );
    }
    let small = place.run(
        "small",
        &["--set", "steps=12", "--set", "evaluation.every=100"],
    );
    assert!(small.status.success(), "{}", stderr(&small));
    let model = place.path("small/model").display().to_string();
    let other = place.run("other", &["--init", &model, "--set", "model.d_ff=32"]);
    assert!(
        stderr(&other).contains("d_ff is 32 in the recipe and 24 in"),
        "{}",
        stderr(&other)
    );
    let same = [
        "--resume",
        "--set",
        "steps=12",
        "--set",
        "evaluation.every=100",
    ];
    let other = place.run("small", &[&same[..], &["--set", "model.d_ff=32"]].concat());
    assert_eq!(other.status.code(), Some(1));
    assert!(
        stderr(&other).contains("d_ff is 32 in the recipe and 24 in"),
        "{}",
        stderr(&other)
    );
    let changed = place.run(
        "small",
        &[
            "--resume",
            "--set",
            "steps=13",
            "--set",
            "evaluation.every=100",
        ],
    );
    assert!(
        changed.status.success(),
        "--set may lengthen a run: {}",
        stderr(&changed)
    );
    fs::write(place.path("train.fasta"), fasta(3, 90)).unwrap();
    let changed = place.run(
        "small",
        &[
            "--resume",
            "--set",
            "steps=14",
            "--set",
            "evaluation.every=100",
        ],
    );
    assert!(
        stderr(&changed).contains("have changed since"),
        "{}",
        stderr(&changed)
    );
}

#[test]
fn examples_are_shown() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ankh3"));
    let output = command
        .arg("pretrain")
        .arg(place.path("recipe.toml"))
        .args(["--show-examples", "6"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 18, "{text}");
    assert!(
        text.contains("encoder: [NLU] ") && text.contains("encoder: [S2S] "),
        "{text}"
    );
    assert!(text.contains("<extra_id_0>"), "{text}");
}

#[test]
fn examples_are_exported_as_the_run_sees_them() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ankh3"));
    command.arg("pretrain").arg(place.path("recipe.toml"));
    command.args(["--export-examples", "-", "--set", "steps=12"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let vocabulary = lines.next().unwrap();
    assert_eq!(vocabulary["vocabulary"][1], "</s>");
    let (held_out, train): (Vec<Value>, Vec<Value>) =
        lines.partition(|line| line["split"] == "held-out");
    // Ten sequences, four tasks.
    assert_eq!(held_out.len(), 40);
    let tokens = |key: &str, line: &Value| line[key].as_array().unwrap().len();
    // The counts in the log of the run.
    let run = place.run("run", &["--set", "steps=12"]);
    assert!(run.status.success(), "{}", stderr(&run));
    let logged = place
        .log("run")
        .into_iter()
        .filter(|line| line["kind"] == "train");
    for line in logged {
        let mine: Vec<&Value> = train
            .iter()
            .filter(|example| example["step"] == line["step"])
            .collect();
        let labels: usize = mine.iter().map(|example| tokens("labels", example)).sum();
        let sources: usize = mine.iter().map(|example| tokens("source", example)).sum();
        assert_eq!(line["labels"], labels, "{line}");
        assert_eq!(line["tokens"], labels + sources, "{line}");
        assert!(mine.iter().any(|example| example["micro_batch"] == 1));
    }
}

#[test]
fn presets_need_no_file() {
    let place = Place::new();
    let train = format!("data.train=[{:?}]", place.path("train.fasta"));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ankh3"));
        command.arg("pretrain").args(arguments).output().unwrap()
    };
    for preset in ["nano", "small", "base", "large", "xl"] {
        let shown = run(&["--preset", preset, "--set", &train, "--show-examples", "1"]);
        assert!(shown.status.success(), "{preset}: {}", stderr(&shown));
    }
    let no_data = run(&["--preset", "nano", "--show-examples", "1"]);
    assert!(
        stderr(&no_data).contains("data.train names no file"),
        "{}",
        stderr(&no_data)
    );
    let neither = run(&["--show-examples", "1"]);
    assert!(
        stderr(&neither).contains("give a recipe"),
        "{}",
        stderr(&neither)
    );
}
