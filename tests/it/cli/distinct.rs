//! No command replaces one of its inputs, whatever flag names the input and whatever link leads to
//! it; the input keeps its bytes.

use std::fs;
use std::path::Path;

use super::support::{fasta, folder_with, proteins, residue_classes, run, run_with_stdin, tiny};

/// Runs a command whose output is an input, and checks that it is refused and changes nothing.
fn refused(folder: &Path, input: &str, arguments: &str) {
    let before = fs::read(folder.join(input)).unwrap();
    run(folder, arguments)
        .with(2)
        .saying(&["is an input and an output", "another name"]);
    assert_eq!(fs::read(folder.join(input)).unwrap(), before, "{arguments}");
}

#[test]
fn an_output_is_never_an_input() {
    let all = proteins(&[9, 12]);
    let folder = folder_with(&all);
    let path = folder.path();
    let model = tiny();
    fs::write(path.join("t.csv"), residue_classes()).unwrap();
    fs::write(path.join("v.tsv"), "id\tvariant\nx\tA1C\n").unwrap();
    fs::hard_link(path.join("in.fasta"), path.join("hard.fasta")).unwrap();
    std::os::unix::fs::symlink("in.fasta", path.join("soft.fasta")).unwrap();
    for output in ["in.fasta", "./in.fasta", "hard.fasta", "soft.fasta"] {
        for command in [
            "embed --format tsv",
            "complete",
            "score",
            "mask-fill",
            "predict-contacts --format tsv",
        ] {
            refused(
                path,
                "in.fasta",
                &format!("{command} --model {model} -o {output} in.fasta"),
            );
        }
    }
    let score = format!("score --model {model}");
    refused(
        path,
        "v.tsv",
        &format!("{score} --variants v.tsv -o v.tsv in.fasta"),
    );
    refused(path, "t.csv", &format!("{score} --dms t.csv -o t.csv"));
    let fill = format!("mask-fill --model {model} -o filled.fasta --sites soft.fasta hard.fasta");
    refused(path, "in.fasta", &fill);
    let plot = "probe train --train t.csv --task residues --plot t.csv -o head";
    refused(path, "t.csv", plot);
}

#[test]
fn files_beside_and_files_of_models_count_too() {
    let all = proteins(&[9, 12]);
    let folder = folder_with(&all);
    let path = folder.path();
    let model = tiny();
    run(
        path,
        &format!("embed --model {model} --pooling mean -o a.tsv in.fasta"),
    )
    .with(0);
    run(
        path,
        &format!("embed --model {model} --pooling mean -o a.npy in.fasta"),
    )
    .with(0);
    refused(path, "a.tsv", "merge -o a.tsv a.tsv");
    refused(
        path,
        "a.tsv.json",
        "merge --format jsonl -o a.tsv.json a.tsv",
    );
    refused(path, "a.npy.index.tsv", "merge -o a.npy.index.tsv a.npy");
    refused(path, "a.tsv", "report -o a.tsv a.tsv");
    // The manifest of the output would replace the input.
    fs::write(path.join("b.tsv.json"), fasta(&all)).unwrap();
    let beside = format!("score --model {model} -o b.tsv b.tsv.json");
    refused(path, "b.tsv.json", &beside);
    fs::create_dir(path.join("m")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(Path::new(&model).join(name), path.join("m").join(name)).unwrap();
    }
    let into_model = "embed --model m --format tsv -o m/model.safetensors in.fasta";
    refused(path, "m/model.safetensors", into_model);
    // A page may lie in the folder whose results it shows.
    run(path, "report -o page.html a.tsv").with(0);
    fs::create_dir(path.join("results")).unwrap();
    fs::copy(path.join("a.npy"), path.join("results/a.npy")).unwrap();
    fs::copy(path.join("a.npy.json"), path.join("results/a.npy.json")).unwrap();
    let index = "a.npy.index.tsv";
    fs::copy(path.join(index), path.join("results").join(index)).unwrap();
    run(path, "report -o results/page.html results").with(0);
    refused(path, "results/a.npy", "report -o results/a.npy results");
}

#[test]
fn standard_input_counts_too() {
    let all = proteins(&[9, 12]);
    let folder = folder_with(&all);
    let path = folder.path();
    let model = tiny();
    let mut command = super::support::ankh3(
        path,
        &format!("embed --model {model} --format tsv -o in.fasta"),
    );
    let input = fs::File::open(path.join("in.fasta")).unwrap();
    let ended = command.stdin(input).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert_eq!(
        fs::read_to_string(path.join("in.fasta")).unwrap(),
        fasta(&all)
    );
    let piped = format!("embed --model {model} --format tsv -o out.tsv");
    run_with_stdin(path, &piped, fasta(&all).as_bytes()).with(0);
}
