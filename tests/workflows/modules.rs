use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::hub_server::{HubServer, Repository};
use crate::support::{ankh3, ended, folder, has, nextflow, project, ran, same_bytes, snakemake};

/// Two proteins, and a record that is left out as asked: every command then ends with 3, and no
/// task may fail for it.
const PROTEINS: &str = ">a\nMKTXYIAKQRQISFVKSHFSRQ\n>bad\nMKT1YI!\n>b\nMKXAYLLSVEQGLLKDPTNEALL\n";

/// A command that reads proteins: its module, its wrapper, its options, its output as the module
/// and as the wrapper names it.
struct Reader {
    command: &'static str,
    module: &'static str,
    options: &'static str,
    made: &'static str,
    wrapped: &'static str,
}

const READERS: [Reader; 6] = [
    Reader {
        command: "embed",
        module: "embed",
        options: "--pooling mean",
        made: "test.tsv",
        wrapped: "proteins.npz",
    },
    Reader {
        command: "mask-fill",
        module: "maskfill",
        options: "--mask-x",
        made: "test.fasta",
        wrapped: "filled.fasta",
    },
    Reader {
        command: "complete",
        module: "complete",
        options: "--top-p 0.9 --seed 1",
        made: "test.fasta",
        wrapped: "completed.fasta",
    },
    Reader {
        command: "score",
        module: "score",
        options: "--mask-fraction 0.15",
        made: "test.tsv",
        wrapped: "scores.tsv",
    },
    Reader {
        command: "predict-contacts",
        module: "predictcontacts",
        options: "--method jacobian --jacobian-outputs hidden",
        made: "test.rr",
        wrapped: "contacts.rr",
    },
    Reader {
        command: "probe predict",
        module: "probe",
        options: "--head head",
        made: "test.tsv",
        wrapped: "predictions.tsv",
    },
];

/// A hub on this machine, the proteins, the model as it will be downloaded, and a head fitted on
/// it.
struct Bench {
    folder: tempfile::TempDir,
    hub: HubServer,
    /// Its folder, of the name that the engine's rule gives it: outputs tell it.
    model: PathBuf,
}

impl Bench {
    fn new(model: &str) -> Self {
        let folder = folder();
        let bench = Bench {
            model: folder.path().join("known").join(model),
            folder,
            hub: HubServer::start(Repository::safetensors()),
        };
        let at = bench.folder.path();
        fs::write(at.join("proteins.fasta"), PROTEINS).unwrap();
        fs::create_dir_all(&bench.model).unwrap();
        for (name, content) in bench.hub.repository().files() {
            fs::write(bench.model.join(name), content).unwrap();
        }
        let rows = (1..9).map(|n| format!("MKTAYIAKQR{}\t{n}\n", "ACDEFGHI".split_at(n - 1).1));
        let table = format!("sequence\tlabel\n{}", rows.collect::<String>());
        fs::write(at.join("labels.tsv"), table).unwrap();
        let train = "probe train --task number --body linear --epochs 1 --train labels.tsv --output head --model";
        let mut train_head = ankh3(at);
        train_head.args(train.split_whitespace());
        ran(train_head.arg(&bench.model));
        bench
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What the command itself writes, without any engine.
    fn direct(&self, reader: &Reader, output: &str) -> PathBuf {
        let here = self.path().join("direct").join(reader.module);
        fs::create_dir_all(&here).unwrap();
        let written = here.join(output);
        let mut run = ankh3(self.path());
        run.args(reader.command.split(' '))
            .args(reader.options.split(' '));
        if reader.command == "mask-fill" {
            run.arg("--sites").arg(here.join("sites.tsv"));
        }
        run.args(["--on-bad", "skip", "--model"]).arg(&self.model);
        run.arg("--output").arg(&written).arg("proteins.fasta");
        let (code, said) = ended(&mut run);
        assert_eq!(code, Some(3), "{said}");
        written
    }
}

const MODULES: [&str; 10] = [
    "COMPLETE",
    "EMBED",
    "FETCH",
    "MASKFILL",
    "MERGE",
    "PREDICTCONTACTS",
    "PRETRAIN",
    "PROBE",
    "REPORT",
    "SCORE",
];

#[track_caller]
fn all_tell_their_version(said: &str) {
    for module in MODULES {
        let line = format!("MADE ANKH3_{module} {}", env!("CARGO_PKG_VERSION"));
        assert!(said.contains(&line), "{module}: {said}");
    }
}

fn modules(folder: &Path, arguments: &str) -> std::process::Command {
    let mut run = nextflow(folder, "run");
    run.arg(project("tests/workflows/modules.nf"))
        .arg("-c")
        .arg(project("tests/workflows/modules.config"))
        .args(arguments.split_whitespace());
    run
}

#[test]
fn every_module_has_a_stub_that_makes_all_its_outputs_and_tells_its_version() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    all_tell_their_version(&ran(&mut modules(folder.path(), "-stub")));
}

#[test]
fn every_module_makes_the_bytes_of_its_command() {
    if !has("nextflow") {
        return;
    }
    let bench = Bench::new("ankh3-large");
    let settings = |module: &str, setting: &str| {
        let name = module.to_uppercase();
        let published = format!("publishDir = [path: 'results/{module}', mode: 'copy']");
        format!("process {{ withName: 'ANKH3_{name}' {{ {published}\n {setting} }} }}\n")
    };
    let mut config = settings("merge", "ext.prefix = 'merged'");
    config += &settings("pretrain", "ext.args = '--set steps=3'");
    config += &settings("fetch", "");
    config += &settings("report", "");
    for reader in &READERS {
        // The head is an input of its module.
        let options = reader.options.replace("--head head", "");
        let options = format!("ext.args = '{options} --on-bad skip'");
        config += &settings(reader.module, &options);
    }
    fs::write(bench.path().join("args.config"), config).unwrap();
    let arguments = "-c args.config --input proteins.fasta --shard 1/1 --head head";
    let mut run = modules(bench.path(), arguments);
    run.env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", bench.hub.endpoint());
    all_tell_their_version(&ran(&mut run));

    let made = |module: &str| bench.path().join(format!("results/{module}"));
    for reader in &READERS {
        let (stem, extension) = reader.made.split_once('.').unwrap();
        let name = match reader.module {
            "predictcontacts" | "probe" => reader.made.to_owned(),
            _ => format!("{stem}.1of1.{extension}"),
        };
        let direct = bench.direct(reader, reader.made);
        same_bytes(&made(reader.module).join(name), &direct);
    }
    let embeddings = bench.path().join("direct/embed/test.tsv");
    same_bytes(&made("merge").join("merged.tsv"), &embeddings);
    let page = fs::read_to_string(made("report").join("test.html")).unwrap();
    assert!(page.contains("2 proteins"), "{page}");
    let weights = "ankh3-large/model.safetensors";
    let known = bench.model.join("model.safetensors");
    same_bytes(&made("fetch").join(weights), &known);
    let trained = made("pretrain").join("test/model/model.safetensors");
    assert!(trained.is_file());
    let log = File::open(made("pretrain").join("test/log.jsonl")).unwrap();
    assert!(BufReader::new(log).lines().count() >= 2);
}

#[test]
fn every_wrapper_makes_the_bytes_of_its_command() {
    if !has("snakemake") {
        return;
    }
    let bench = Bench::new("model");
    let wrappers = project("snakemake/wrappers/bio/ankh3");
    let mut snakefile =
        "rule all:\n    default_target: True\n    input: 'all.npz', 'report.html', 'trained', \
        'filled.fasta', 'completed.fasta', 'scores.tsv', 'contacts.rr', 'predictions.tsv'\n"
            .to_owned();
    let mut count = 0;
    for wrapper in fs::read_dir(&wrappers).unwrap() {
        let example = wrapper.unwrap().path().join("test/Snakefile");
        let example = fs::read_to_string(example).unwrap();
        let reads = example.contains("fasta=\"proteins.fasta\",\n        model=");
        snakefile += "\n\n";
        snakefile += &if reads {
            example.replace("extra=\"", "extra=\"--on-bad skip ")
        } else {
            example.replace("train=\"proteins", "train=\"family")
        };
        count += 1;
    }
    assert_eq!(count, MODULES.len());
    fs::write(bench.path().join("Snakefile"), snakefile).unwrap();
    for (part, shard) in [("a.npz", "1/2"), ("b.npz", "2/2")] {
        let mut run = ankh3(bench.path());
        run.args(["embed", "--pooling", "mean", "--on-bad", "skip"]);
        run.args(["--shard", shard, "-o", part, "--model"]);
        run.arg(&bench.model).arg("proteins.fasta");
        let (code, said) = ended(&mut run);
        assert_eq!(code, Some(3), "{said}");
    }
    for file in ["workflows/family/recipe.toml", "examples/family.fasta"] {
        let file = project(file);
        fs::copy(&file, bench.path().join(file.file_name().unwrap())).unwrap();
    }
    let mut run = snakemake(bench.path(), "--cores 2");
    run.env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", bench.hub.endpoint());
    ran(&mut run);
    for reader in &READERS {
        let direct = bench.direct(reader, reader.wrapped);
        same_bytes(&bench.path().join(reader.wrapped), &direct);
        let name = reader.command.split(' ').next().unwrap();
        let log = bench.path().join(format!("logs/{name}.log"));
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("(bad)"), "{name}: {log}");
    }
    same_bytes(
        &bench.path().join("all.npz"),
        &bench.path().join("proteins.npz"),
    );
    assert!(bench.path().join("trained/model.safetensors").is_file());
}
