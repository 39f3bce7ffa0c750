use std::fs;
use std::path::Path;
use std::process::Stdio;

use ankh3::kernels::cpu::Isa;
use serde_json::Value;

use super::support::{Ended, ankh3, folder_with, names, nano, proteins, run, tiny, tiny_dir};

#[test]
fn doctor_sees_the_machine_and_finds_it_sound() {
    let folder = tempfile::tempdir().unwrap();
    let healthy = run(folder.path(), "doctor --threads 2").with(0);
    let text = healthy.text();
    for line in [
        "version ",
        "cpu ",
        "threads      2 used",
        "memory ",
        "gpu driver ",
        "model cache ",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let checked = text
            .lines()
            .filter(|l| l.contains(isa.name()) && l.ends_with(" ok"));
        assert!(checked.count() >= 5, "{isa:?} in\n{text}");
    }
    assert!(text.ends_with("all right\n"), "{text}");
    assert_eq!(
        names(folder.path()),
        [""; 0],
        "looking at the cache makes none"
    );
    let mut nonsense = ankh3(folder.path(), "doctor");
    let ended: Ended = nonsense
        .env("ANKH3_CPU_ISA", "sse9")
        .output()
        .unwrap()
        .into();
    ended.with(1).saying(&["ANKH3_CPU_ISA=sse9"]);
}

#[test]
fn doctor_tells_a_cache_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let state = |cache: &str| {
        let mut command = ankh3(folder.path(), "doctor");
        let ended: Ended = command.env("HF_HUB_CACHE", cache).output().unwrap().into();
        let ended = ended.with(0);
        let line = ended
            .text()
            .lines()
            .find(|line| line.starts_with("model cache"));
        line.unwrap().to_owned()
    };
    assert!(state("/tmp").ends_with("(writable)"));
    if fs::metadata("/proc/version").is_ok() {
        assert!(
            state("/proc/hub").contains("not writable"),
            "{}",
            state("/proc/hub")
        );
    }
}

/// The names of the sub-commands in `COMMAND --help`, without `help`. Each name begins a line
/// between the usage and the global options, two spaces from the left.
fn sub_commands(folder: &Path, command: &str) -> Vec<String> {
    let help = run(folder, &format!("{command} --help")).with(0);
    help.text()
        .lines()
        .skip_while(|line| !line.starts_with("Usage:"))
        .take_while(|line| *line != "Global options:")
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn completions_and_manual_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let commands = sub_commands(path, "");
    let mut expected = vec!["ankh3.1".to_owned()];
    let mut names_of_all = commands.clone();
    for command in &commands {
        expected.push(format!("ankh3-{command}.1"));
        for below in sub_commands(path, command) {
            expected.push(format!("ankh3-{command}-{below}.1"));
            names_of_all.push(below);
        }
    }
    for known in ["embed", "man", "probe", "train", "fit"] {
        assert!(
            names_of_all.iter().any(|name| name == known),
            "{names_of_all:?}"
        );
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(path, &format!("completions {shell}")).with(0);
        for name in &names_of_all {
            assert!(script.text().contains(name), "{shell} lacks {name}");
        }
    }
    run(path, "man pages").with(0);
    expected.sort();
    assert_eq!(names(&path.join("pages")), expected);
    let page = fs::read_to_string(path.join("pages/ankh3-embed.1")).unwrap();
    assert!(
        page.contains("pooling") && page.contains(".TH ankh3-embed"),
        "{page}"
    );
    assert!(run(path, "man").with(0).text().contains(".TH ankh3"));
}

/// Bash can read the completion script for bash.
#[test]
fn bash_reads_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    let script = run(folder.path(), "completions bash").with(0).stdout;
    fs::write(folder.path().join("ankh3.bash"), script).unwrap();
    let check = "source ankh3.bash && complete -p ankh3";
    let mut bash = std::process::Command::new("bash");
    let bash = bash.args(["-c", check]).current_dir(folder.path());
    let output = bash.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
}

#[test]
fn inspect_tells_what_files_and_models_hold() {
    let folder = folder_with(&proteins(&[5, 70]));
    let path = folder.path();
    run(
        path,
        &format!("embed --model {} --pooling mean -o out.h5 in.fasta", nano()),
    )
    .with(0);
    let found = run(path, "inspect --json out.h5").with(0);
    let found: Value = serde_json::from_str(found.text()).unwrap();
    assert_eq!(
        (&found["records"], &found["residues"]),
        (&2.into(), &75.into())
    );
    let metadata = &found["metadata"];
    assert_eq!(
        metadata["tool"],
        concat!("ankh3 ", env!("CARGO_PKG_VERSION"))
    );
    for key in [
        "model",
        "model_hash",
        "prefix",
        "layers",
        "pooling",
        "dtype",
        "device",
        "kernels",
    ] {
        assert!(!metadata[key].is_null(), "no {key} in {metadata}");
    }
    assert_eq!(metadata["model_is_random"], true);
    run(path, "inspect out.h5").with(0);
    let model = run(path, &format!("inspect {}", nano())).with(0);
    assert!(model.text().contains("256"), "{}", model.text());
    run(path, "inspect in.fasta").with(1).saying(&["in.fasta"]);
}

#[test]
fn tokenize_prints_what_the_model_sees() {
    let folder = folder_with(&proteins(&[5]));
    let arguments = format!("tokenize --model {} in.fasta", tiny());
    let text = run(folder.path(), &arguments).with(0);
    assert!(
        text.text().contains("[NLU]") && text.text().contains("</s>"),
        "{}",
        text.text()
    );
    fs::write(folder.path().join("bad.fasta"), ">a\nAC@\n>b\nAC\n").unwrap();
    let arguments = format!("tokenize --model {} --on-bad skip bad.fasta", tiny());
    let some = run(folder.path(), &arguments)
        .with(3)
        .saying(&["1 of 2 records left out"]);
    assert_eq!(some.text().lines().count(), 2, "{}", some.text());
}

#[test]
fn empty_variables_are_unset_and_errors_have_one_line() {
    let folder = folder_with(&proteins(&[5]));
    let mut empty = ankh3(folder.path(), "embed --pooling mean -o x.npz in.fasta");
    empty.env("ANKH3_MODEL", "").env("ANKH3_THREADS", "");
    Ended::from(empty.output().unwrap())
        .with(0)
        .saying(&["model ankh3-nano", "1 sequence, 5 residues"]);
    let mut wrong = ankh3(folder.path(), "embed --model= -o x.npz in.fasta");
    Ended::from(wrong.output().unwrap()).with(1);
    let weights = tiny_dir();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(weights.join(name), folder.path().join(name)).unwrap();
    }
    let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let text = text.replace("\"d_ff\": 80", "\"d_ff\": 81");
    fs::write(folder.path().join("config.json"), text).unwrap();
    let tensors = "model.safetensors";
    fs::copy(weights.join(tensors), folder.path().join(tensors)).unwrap();
    let mut damaged = ankh3(folder.path(), "embed --model . -o x.npz in.fasta");
    damaged.env("RUST_BACKTRACE", "1");
    let ended = Ended::from(damaged.output().unwrap()).with(1);
    let error = ended.stderr.split("ERROR").nth(1).unwrap();
    assert_eq!(error.trim().lines().count(), 1, "{}", ended.stderr);
}
