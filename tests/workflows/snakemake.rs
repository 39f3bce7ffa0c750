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

#[test]
fn files_with_names_of_any_kind_are_computed_and_never_run() {
    if !has("snakemake") {
        return;
    }
    let folder = folder();
    let names = [
        "it's 2 \"proteins\".fasta",
        "a;touch x;$HOME.fasta",
        "back\\slash & `touch x`.fasta",
        "-a.fasta",
    ];
    for name in names {
        let path = folder.path().join(name);
        fs::write(&path, ">a\nMKVA\n>b\nMKVL\n").unwrap();
        let family = project("examples/family-held-out.fasta");
        fs::copy(family, path.with_extension("family")).unwrap();
    }
    let quoted = names.map(|name| format!("{name:?}")).join(", ");
    let rules = format!(
        r#"
NAMES = [{quoted}]
rule all:
    input:
        [f"{{name}}.tsv" for name in NAMES] + [f"learnt/{{name}}/model" for name in NAMES[:2]],
rule embed:
    input: fasta="{{name}}.fasta",
    output: embeddings="{{name}}.fasta.tsv",
    log: "logs/{{name}}.log",
    params: extra="--pooling mean --device cpu",
    wrapper: "bio/ankh3/embed"
rule pretrain:
    input: recipe="recipe.toml", train="{{name}}.family", valid="{{name}}.family",
    output:
        model=directory("learnt/{{name}}.fasta/model"),
        log="learnt/{{name}}.fasta/log.jsonl",
        recipe="learnt/{{name}}.fasta/recipe.toml",
    params: extra="--init nano --set steps=4 --set batch.tokens=64 --set data.max_residues=32",
    wrapper: "bio/ankh3/pretrain"
"#
    );
    fs::copy(
        project("workflows/family/recipe.toml"),
        folder.path().join("recipe.toml"),
    )
    .unwrap();
    fs::write(folder.path().join("Snakefile"), rules).unwrap();
    ran(&mut snakemake(folder.path(), "--cores 2"));
    let made = |file: String| assert!(folder.path().join(&file).is_file(), "{file}");
    for name in names {
        made(format!("{name}.tsv"));
    }
    for name in &names[..2] {
        made(format!("learnt/{name}/model/config.json"));
    }
    assert!(
        !folder.path().join("x").exists(),
        "a name was run as a command"
    );
}

#[test]
fn every_way_to_ask_for_gpus_reaches_the_command() {
    let table = [
        ("{}", "cpu"),
        ("{'gpu': 0}", "cpu"),
        ("{'gpu': 1}", "cuda"),
        ("{'gpu': 2}", "cuda:all"),
        ("{'gres': 'gpu:1'}", "cuda"),
        ("{'gres': 'gpu'}", "cuda"),
        ("{'gres': 'ssd:1,gpu:a100:4'}", "cuda:all"),
        ("{'gres': 'gpu:tesla_t4'}", "cuda"),
        ("{'gres': 'ssd:2'}", "cpu"),
        ("{'slurm_extra': '--gres=gpu:1'}", "cuda"),
        ("{'slurm_extra': '--qos=gpu-long --mem-per-gpu=4G'}", "cpu"),
        ("{'slurm_extra': '--constraint=x --gpus 2'}", "cuda:all"),
        ("{'slurm_extra': \"'--gpus=a100:1'\"}", "cuda"),
        ("{'slurm_extra': '--gpus-per-node=8'}", "cuda:all"),
        ("{'slurm_extra': '-G 1 --exclusive'}", "cuda"),
    ];
    // Snakemake fetches `wrapper.py` of a wrapper and nothing beside it, so each has the same lines.
    let lines_of = |name: &str| {
        let wrapper = project(&format!("snakemake/wrappers/bio/ankh3/{name}/wrapper.py"));
        let text = fs::read_to_string(wrapper).unwrap();
        let from = text.find("def gpus(").unwrap();
        let device = text.find("device = [").unwrap();
        let until = device + text[device..].find('\n').unwrap();
        text[from..until].to_owned()
    };
    let lines = lines_of("embed");
    for name in [
        "complete",
        "mask-fill",
        "predict-contacts",
        "pretrain",
        "probe",
        "score",
    ] {
        assert_eq!(lines_of(name), lines, "{name}");
    }
    let (function, device) = lines.split_at(lines.find("device = [").unwrap());
    let script = format!(
        "import re, sys\n{function}\nclass snakemake: resources = None\nfor text in sys.argv[1:]:\n    snakemake.resources = eval(text)\n    {device}\n    print(device)\n"
    );
    let mut python = crate::support::command("python3", Path::new("/"));
    python
        .arg("-c")
        .arg(script)
        .args(table.map(|(resources, _)| resources));
    let expected: Vec<&str> = table.iter().map(|(_, device)| *device).collect();
    assert_eq!(ran(&mut python).lines().collect::<Vec<_>>(), expected);
}
