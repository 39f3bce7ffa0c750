use std::fs;
use std::path::Path;

use crate::support::{ankh3, folder, has, model, project, ran, same_bytes, snakemake};

/// The examples where the pipelines' configurations look for them.
pub fn examples(folder: &Path) {
    fs::create_dir_all(folder.join("workflows")).unwrap();
    std::os::unix::fs::symlink(project("examples"), folder.join("examples")).unwrap();
    std::os::unix::fs::symlink(project("workflows/family"), folder.join("workflows/family"))
        .unwrap();
}

#[test]
fn a_scattered_proteome_is_the_bytes_of_one_run() {
    if !has("snakemake") {
        return;
    }
    let folder = folder();
    examples(folder.path());
    let arguments = format!(
        "--cores 2 --snakefile {} --profile {} --config shards=3 model={}",
        project("workflows/proteome/Snakefile").display(),
        project("snakemake/profiles/local").display(),
        model()
    );
    let run = || snakemake(folder.path(), &arguments);
    ran(&mut run());
    let mut embed = ankh3(folder.path());
    embed.args(["embed", "--pooling", "mean", "-o", "one.h5", "--model"]);
    ran(embed.arg(model()).arg("examples/proteome.fasta"));
    same_bytes(
        &folder.path().join("results/proteome.h5"),
        &folder.path().join("one.h5"),
    );
    let page = fs::read_to_string(folder.path().join("results/proteome.html")).unwrap();
    assert!(page.contains("15 proteins") && page.contains("contact map of P86711"));
    let again = ran(&mut run());
    assert!(again.contains("Nothing to be done"), "{again}");
}

#[test]
fn a_family_is_learnt_completed_scored_and_reported() {
    if !has("snakemake") {
        return;
    }
    let folder = folder();
    examples(folder.path());
    let snakefile = project("workflows/family/Snakefile").display().to_string();
    let mut run = snakemake(
        folder.path(),
        &format!("--cores 2 --snakefile {snakefile} --config"),
    );
    ran(run
        .arg("train_extra=--set steps=4")
        .arg(format!("model={}", model())));
    let page = fs::read_to_string(folder.path().join("results/family/report.html")).unwrap();
    for part in ["Completions", "Scores", "Training", "steps = 4"] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn an_unknown_key_of_the_configuration_is_refused() {
    if !has("snakemake") {
        return;
    }
    let folder = folder();
    examples(folder.path());
    let snakefile = project("workflows/proteome/Snakefile")
        .display()
        .to_string();
    let mut run = snakemake(
        folder.path(),
        &format!("-n --snakefile {snakefile} --config shard=3"),
    );
    let (code, said) = crate::support::ended(&mut run);
    assert_ne!(code, Some(0));
    assert!(said.contains("'shard' was unexpected"), "{said}");
}
