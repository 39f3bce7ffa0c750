//! Runs that are killed, that get signals or whose disk is full, and that are resumed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Place, stderr, wait_for};
use crate::skip::{Lack, skip};

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
    // The files that a killed save leaves behind are deleted.
    fs::create_dir(place.path("cut/checkpoints/.step-00000038.AbCdEf.tmp")).unwrap();
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
    tensorboard_reads(&place.path("whole"), &log);
    tensorboard_reads(&place.path("cut"), &log);
    curves_are_drawn(&place.path("cut"));
    let evaluation = log
        .iter()
        .find(|line| line["kind"] == "evaluation")
        .unwrap();
    assert_eq!(
        evaluation["tasks"].as_array().unwrap().len(),
        4,
        "{evaluation}"
    );

    // Every command can open the checkpoint as a model.
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

    // A run that begins with another model has the shape and weights of this model.
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

/// The reader of `TensorBoard` finds each number of the log once, even if a run was killed and
/// repeated steps.
fn tensorboard_reads(run: &Path, log: &[Value]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("ANKH3_TEST_PYTHON").map_or(here.join(".venv/bin/python"), PathBuf::from);
    let script = here.join("tests/readers/read_events.py");
    let output = Command::new(&python).arg(script).arg(run).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{}: {error}; tests/run makes it", python.display());
    });
    assert!(output.status.success(), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let read = |tag: &str| -> Vec<(u64, f32)> {
        let points = found[tag]
            .as_array()
            .unwrap_or_else(|| panic!("no {tag} in {found}"));
        let point = |point: &Value| {
            (
                point[0].as_u64().unwrap(),
                point[1].as_f64().unwrap() as f32,
            )
        };
        points.iter().map(point).collect()
    };
    let logged = |kind: &str, value: &dyn Fn(&Value) -> Option<f64>| -> Vec<(u64, f32)> {
        let lines = log.iter().filter(|line| line["kind"] == kind);
        lines
            .filter_map(|line| Some((line["step"].as_u64()?, value(line)? as f32)))
            .collect()
    };
    for key in ["loss", "gradient_norm", "learning_rate"] {
        let expected = logged("train", &|line| line[key].as_f64());
        assert_eq!(expected.len(), 100);
        assert_eq!(read(&format!("train/{key}")), expected, "{key}");
    }
    let task = logged("train", &|line| line["by_task"]["completion"].as_f64());
    assert_eq!(read("train/loss/completion"), task);
    let perplexity = logged("evaluation", &|line| {
        let mut tasks = line["tasks"].as_array()?.iter();
        tasks.find(|task| task["task"] == "masking 0.15")?["residue_perplexity"].as_f64()
    });
    assert_eq!(perplexity.len(), 2);
    assert_eq!(read("held_out/residue_perplexity/masking_0.15"), perplexity);
}

fn curves_are_drawn(run: &Path) {
    let plot = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ankh3"));
        command
            .arg("plot-training")
            .args(arguments)
            .output()
            .unwrap()
    };
    let name = run.display().to_string();
    let drawn = plot(&[&name]);
    assert!(drawn.status.success(), "{}", stderr(&drawn));
    let png = fs::read(run.join("training.png")).unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let svg = run.join("curves.svg").display().to_string();
    assert!(plot(&[&name, "-o", &svg]).status.success());
    let text = fs::read_to_string(&svg).unwrap();
    for words in [
        "100 steps",
        "training loss",
        "held-out perplexity",
        "masking 0.15",
        "completion",
        "learning rate",
    ] {
        assert!(text.contains(words), "{words}");
    }
    let nowhere = plot(&["no/such/run"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("is it a run of `ankh3 pretrain`?"));
}

/// A small disk, mounted for tests that run as root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder);
        let mounted = mount.stderr(Stdio::null()).status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| SmallDisk(folder.to_owned()))
    }

    fn grow(&self, options: &str) {
        let options = format!("remount,{options}");
        let mut mount = Command::new("mount");
        assert!(
            mount
                .args(["-o", &options])
                .arg(&self.0)
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_last_good_checkpoint() {
    let place = Place::new();
    let run = place.path("run");
    fs::create_dir(&run).unwrap();
    let Some(disk) = SmallDisk::mount(&run, "size=900k") else {
        skip(Lack::Machine, "the right to mount a small disk");
        return;
    };
    let more = [
        "--set",
        "steps=60",
        "--set",
        "checkpoints.every=5",
        "--set",
        "checkpoints.keep=50",
    ];
    let full = place.run("run", &[&more[..], &["--resume"]].concat());
    assert_eq!(full.status.code(), Some(1), "{}", stderr(&full));
    assert!(stderr(&full).contains("No space left"), "{}", stderr(&full));
    let said = stderr(&full);
    assert!(
        said.contains("could not save step") && said.contains("continue with --resume"),
        "{said}"
    );
    let steps = place.steps("run");
    assert!(!steps.is_empty() && steps.len() < 12, "{steps:?}");
    assert!(
        steps.iter().all(|name| name.starts_with("step-")),
        "{steps:?}"
    );
    // With free space, the run continues and gives the same bytes as a run without interruption.
    disk.grow("size=50m");
    let rest = place.run("run", &[&more[..], &["--resume"]].concat());
    assert!(rest.status.success(), "{}", stderr(&rest));
    let whole = place.run("whole", &more);
    assert!(whole.status.success(), "{}", stderr(&whole));
    assert!(
        place.weights("run") == place.weights("whole"),
        "weights differ"
    );
    assert_eq!(place.log("run"), place.log("whole"));
}

#[cfg(unix)]
#[test]
fn signals_save() {
    let place = Place::new();
    let never = ["--set", "steps=100000", "--set", "checkpoints.every=90000"];
    let ends_saved = |child: Child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("--resume continues the run"),
            "{}",
            stderr(&output)
        );
    };
    let mut child = place.command("run", &never).spawn().unwrap();
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
    ends_saved(child);
    assert!(!place.steps("run").is_empty());
    for name in ["HUP", "XCPU"] {
        let mut child = place.command(name, &never).spawn().unwrap();
        wait_for(&place.path(name).join("log.jsonl"), &mut child);
        signal(name, &child);
        ends_saved(child);
        assert_eq!(place.steps(name).len(), 1, "{name}");
    }
}

/// One bit changed in each file of a checkpoint is an error that names the file; a checkpoint of an
/// earlier version has no checksums, and a warning says so.
#[test]
fn a_checkpoint_is_resumed_as_it_was_saved() {
    let place = Place::new();
    let sets = |steps: &str| {
        format!("--set steps={steps} --set schedule.warmup_steps=1 --set checkpoints.every=2")
    };
    let run = |arguments: &str| place.run("run", &arguments.split(' ').collect::<Vec<_>>());
    let first = run(&sets("4"));
    assert!(first.status.success(), "{}", stderr(&first));
    let checkpoint = place.path("run/checkpoints/step-00000004");
    let resume = || run(&format!("--resume {}", sets("5")));
    let sums = fs::read_to_string(checkpoint.join("SHA256SUMS")).unwrap();
    let files: Vec<&str> = sums
        .lines()
        .map(|line| line.split_once("  ").unwrap().1)
        .collect();
    let expected = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "training/model.safetensors",
        "training/state.json",
    ];
    assert!(
        expected.iter().all(|name| files.contains(name)),
        "{files:?}"
    );
    for name in expected {
        let path = checkpoint.join(name);
        let good = fs::read(&path).unwrap();
        // A digit, or the lowest bit of the last value: each file can still be read.
        let at = if path.extension().is_some_and(|end| end == "json") {
            good.iter().rposition(u8::is_ascii_digit).unwrap()
        } else {
            good.len() - 4
        };
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        let output = resume();
        assert_eq!(output.status.code(), Some(1), "{name}");
        let message = stderr(&output);
        assert!(message.contains(name), "{name}: {message}");
        fs::write(&path, good).unwrap();
    }
    fs::remove_file(checkpoint.join("SHA256SUMS")).unwrap();
    let output = resume();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("no SHA256SUMS"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn ctrl_c_saves_and_a_second_one_ends_at_once() {
    let place = Place::new();
    let never = ["--set", "steps=100000", "--set", "checkpoints.every=90000"];
    let begin = |run: &str| {
        let mut child = place.command(run, &never).spawn().unwrap();
        wait_for(&place.path(run).join("log.jsonl"), &mut child);
        child
    };
    let interrupt = |child: &Child| {
        let id = child.id().to_string();
        let sent = Command::new("kill").args(["-s", "INT", &id]).status();
        assert!(sent.unwrap().success());
    };
    let child = begin("once");
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let messages = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{messages}");
    for part in ["Ctrl-C again ends it at once", "--resume continues the run"] {
        assert!(messages.contains(part), "{messages}");
    }
    let saved = place.steps("once");
    assert_eq!(saved.len(), 1);
    // The second one may come after the run has ended by the first, so several are sent, until one
    // has ended the process as a signal does.
    let ended_by_signal = (0..5).any(|number| {
        let child = begin(&format!("twice{number}"));
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(1));
        interrupt(&child);
        child.wait_with_output().unwrap().status.code().is_none()
    });
    assert!(ended_by_signal, "no second Ctrl-C ended a run");
}
