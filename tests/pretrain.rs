//! `ankh3 pretrain` as a process: runs that are killed and go on give the same bytes, and what cannot work says why.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
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
    fn log(&self, run: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(run).join("log.jsonl")).unwrap();
        let lines = text.lines().map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
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
fn thirty_seven_steps_a_kill_and_the_rest_are_a_hundred() {
    let place = Place::new();
    let whole = place.run("whole", &["--threads", "1"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    assert_eq!(place.steps("whole"), ["step-00000074", "step-00000100"]);

    let mut child = place
        .command("cut", &["--threads", "2", "--resume"])
        .spawn()
        .unwrap();
    wait_for(&place.path("cut/checkpoints/step-00000037"), &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !place.path("cut/model").exists(),
        "it was killed too late to prove anything"
    );
    // What a killed save leaves behind is swept up.
    fs::create_dir(place.path("cut/checkpoints/.unfinished-abc")).unwrap();
    let rest = place.run("cut", &["--threads", "2", "--resume"]);
    assert!(rest.status.success(), "{}", stderr(&rest));
    assert!(
        place.weights("whole") == place.weights("cut"),
        "weights differ"
    );
    assert_eq!(place.log("whole"), place.log("cut"));
    assert_eq!(place.steps("cut"), ["step-00000074", "step-00000100"]);

    let log = place.log("whole");
    let losses: Vec<f64> = log
        .iter()
        .filter(|line| line["kind"] == "train")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(losses.len(), 100);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(
        mean(&losses[90..]) < mean(&losses[..10]) - 1.0,
        "{losses:?}"
    );
    let evaluation = log
        .iter()
        .find(|line| line["kind"] == "evaluation")
        .unwrap();
    assert_eq!(
        evaluation["tasks"].as_array().unwrap().len(),
        4,
        "{evaluation}"
    );

    // The checkpoint is a model like any other.
    let mut embed = Command::new(env!("CARGO_BIN_EXE_ankh3"));
    embed.args([
        "embed",
        "--device",
        "cpu",
        "--pooling",
        "mean",
        "--format",
        "tsv",
        "--model",
    ]);
    let embedded = embed
        .arg(place.path("whole/model"))
        .arg(place.path("valid.fasta"))
        .output()
        .unwrap();
    assert!(embedded.status.success(), "{}", stderr(&embedded));
    assert!(!stderr(&embedded).contains("random"));

    // Continued from another model: its shape and its weights.
    let model = place.path("whole/model").display().to_string();
    let more = [
        "--init",
        &model,
        "--set",
        "steps=20",
        "--set",
        "schedule.warmup_steps=1",
    ];
    let more = place.run("more", &more);
    assert!(more.status.success(), "{}", stderr(&more));
    assert!(place.log("more")[0]["loss"].as_f64().unwrap() < losses[0] - 1.0);
}

#[cfg(unix)]
#[test]
fn signals_save() {
    let place = Place::new();
    let mut child = place
        .command(
            "run",
            &["--set", "steps=100000", "--set", "checkpoints.every=90000"],
        )
        .spawn()
        .unwrap();
    let signal = |name: &str, child: &Child| {
        assert!(
            Command::new("kill")
                .args(["-s", name, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    };
    wait_for(&place.path("run/log.jsonl"), &mut child);
    std::thread::sleep(Duration::from_millis(200));
    signal("USR1", &child);
    let begun = Instant::now();
    while place.steps("run").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        child.try_wait().unwrap().is_none(),
        "SIGUSR1 must not end the run"
    );
    signal("TERM", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("go on with --resume"),
        "{}",
        stderr(&output)
    );
    assert!(!place.steps("run").is_empty());
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
            "less than one step takes",
        ),
        (
            "d",
            &["--set", "model.preset=huge"],
            "it must be nano, small, base, large or xl",
        ),
        ("e", &["--set", &empty], "empty.fasta"),
        ("occupied", &[], "is not empty; go on with it by --resume"),
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
        stderr(&other).contains("the recipe's d_ff is 32, that of"),
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
