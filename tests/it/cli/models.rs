use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ankh3::tokenizer::Tokenizer;

use super::support::{Ended, ankh3, folder_with, nano, proteins, run, tiny_dir};

/// A copy of the tiny model with another vocabulary.
fn model_with(folder: &Path, tokenizer: &Tokenizer) {
    let dir = folder.join("model");
    fs::create_dir(&dir).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(tiny_dir().join(name), dir.join(name)).unwrap();
    }
    fs::write(dir.join("tokenizer.json"), tokenizer.to_tokenizer_json()).unwrap();
}

/// The vocabulary of Ankh v1 with the tokens that `ProstT5` adds.
fn with_added(tokens: &[(usize, &str)]) -> Tokenizer {
    let tokens = tokens.iter().map(|(id, token)| (*id, (*token).to_owned()));
    Tokenizer::ankh_v1()
        .with_added_tokens(tokens.collect())
        .unwrap()
}

#[test]
fn a_prefix_that_is_not_used_is_named_and_can_be_asked_for() {
    let folder = folder_with(&proteins(&[7]));
    let path = folder.path();
    model_with(path, &with_added(&[(144, "<fold2AA>"), (150, "<AA2fold>")]));
    let embed = |more: &str| {
        run(
            path,
            &format!("embed --model model --pooling mean --format tsv {more} in.fasta"),
        )
    };
    let usual = embed("-q")
        .with(0)
        .saying(&["<fold2AA>, <AA2fold>", "--prefix"]);
    let none = embed("-q --prefix none").with(0);
    assert_eq!(none.stderr, "");
    assert_eq!(none.stdout, usual.stdout);
    let asked = embed("-q --prefix <AA2fold>").with(0);
    assert_eq!(asked.stderr, "");
    assert_ne!(asked.stdout, usual.stdout);
    let other = embed("-q --prefix <fold2AA>").with(0);
    assert_ne!(other.stdout, asked.stdout);
    let tokens = run(path, "tokenize --model model --prefix <AA2fold> in.fasta").with(0);
    assert!(tokens.text().contains("\t150 "), "{}", tokens.text());
    embed("-o out.npz --prefix <AA2fold>").with(0);
    let inspected = run(path, "inspect out.npz").with(0);
    assert!(
        inspected.text().contains("<AA2fold>"),
        "{}",
        inspected.text()
    );

    embed("--prefix <other>")
        .with(1)
        .saying(&["<other>", "none, <fold2AA>, <AA2fold>"]);
    embed("--prefix nlu")
        .with(1)
        .saying(&["[NLU]", "<AA2fold>"]);
    embed("--prefix AA2fold")
        .with(2)
        .saying(&["in its brackets"]);
    // The usual models have a usual prefix, and no such warning.
    let nano = run(
        path,
        &format!(
            "embed --model {} -q --pooling mean --format tsv in.fasta",
            nano()
        ),
    );
    assert!(!nano.with(0).stderr.contains("--prefix"));
}

#[test]
fn lower_case_letters_of_a_vocabulary_are_named() {
    let folder = folder_with(&proteins(&[7]));
    model_with(folder.path(), &with_added(&[(144, "a"), (145, "d")]));
    let arguments = "embed --model model -q --pooling mean --format tsv in.fasta";
    run(folder.path(), arguments)
        .with(0)
        .saying(&["lower-case letters", "3Di"]);
}

/// A model file that is cut off while the program has it mapped ends the program with a message:
/// without a handler, the system ends it without a word.
#[cfg(target_os = "linux")]
#[test]
fn a_model_that_is_truncated_during_a_run_is_named() {
    let folder = folder_with(&proteins(&[50]));
    let path = folder.path();
    let model = path.join("model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(nano()).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, model.join(from.file_name().unwrap())).unwrap();
    }
    let mut command = ankh3(
        path,
        "embed --model model -q --threads 1 -o out.npz in.fasta",
    );
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let maps = format!("/proc/{}/maps", child.id());
    let begin = Instant::now();
    while !fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("model.safetensors")) {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "the model is mapped"
        );
        assert!(child.try_wait().unwrap().is_none(), "the program runs");
    }
    let weights = File::options()
        .write(true)
        .open(model.join("model.safetensors"));
    weights.unwrap().set_len(1 << 12).unwrap();
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    let ended = Ended {
        code: child.wait().unwrap().code(),
        stdout: Vec::new(),
        stderr,
    };
    ended.with(1).saying(&["file of the model was truncated"]);
}
