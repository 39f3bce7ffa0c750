use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::failures::{has_journal, resumed, shorter, whole, working};
use crate::snakemake::examples;
use crate::support::{
    command, find, folder, has, model, model_folder, nextflow, project, ran, same_bytes, snakemake,
};

/// A one-node Slurm with two fake GPUs, stopped when dropped.
struct Slurm(PathBuf);

impl Slurm {
    fn start(folder: &Path) -> Self {
        let here = folder.join("slurm");
        fs::create_dir_all(&here).unwrap();
        let cluster = Slurm(here);
        ran(&mut cluster.script("start"));
        cluster
    }

    fn script(&self, what: &str) -> std::process::Command {
        let script = project("tests/workflows/slurm");
        let mut command = command(script.to_str().unwrap(), &self.0);
        command.arg(what).arg(&self.0);
        command
    }

    fn configuration(&self) -> PathBuf {
        self.0.join("slurm.conf")
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        let _ = self.script("stop").output();
    }
}

/// One cluster for both engines, one after the other: there is one node.
#[test]
fn both_engines_ask_slurm_for_gpus_and_arrays_and_get_them() {
    if !has("slurm") || !has("nextflow") || !has("snakemake") {
        return;
    }
    let folder = folder();
    let slurm = Slurm::start(folder.path());
    nextflow_array(&slurm);
    nextflow_gpu(&slurm);
    nextflow_killed(&slurm);
    snakemake_gpu(&slurm);
    snakemake_proteome(&slurm);
}

const QUICK: &str = "
executor { pollInterval = '1 sec'; queueStatInterval = '2 sec' }
process { resourceLimits = [cpus: 1, memory: 1.GB, time: 30.m] }
";

fn nextflow_array(slurm: &Slurm) {
    let folder = folder();
    fs::write(folder.path().join("quick.config"), QUICK).unwrap();
    let arguments = format!(
        "run {} -profile slurm -c quick.config --slurm_array 2 --contacts false --format npz --model",
        project("workflows/proteome").display()
    );
    let mut run = nextflow(folder.path(), &arguments);
    ran(run.arg(model()).env("SLURM_CONF", slurm.configuration()));
    assert!(folder.path().join("results/proteome.npz").is_file());
    let scripts = find(&folder.path().join("work"), ".command.run");
    let array = scripts.iter().any(|script| {
        fs::read_to_string(script)
            .unwrap()
            .contains("#SBATCH --array")
    });
    assert!(array, "{scripts:?}");
}

/// This build has no CUDA and the GPUs are fake, so the tasks are stubs; what is asked for and
/// handed out is real.
fn nextflow_gpu(slurm: &Slurm) {
    let folder = folder();
    let seen = "process { beforeScript = 'echo ${CUDA_VISIBLE_DEVICES:-none} > seen' }\n";
    fs::write(folder.path().join("quick.config"), format!("{QUICK}{seen}")).unwrap();
    let arguments = format!(
        "run {} -stub -profile slurm,gpu -c quick.config --slurm_gpu_queue gpu --slurm_queue cpu --contacts false --model",
        project("workflows/proteome").display()
    );
    let mut run = nextflow(folder.path(), &arguments);
    ran(run.arg(model()).env("SLURM_CONF", slurm.configuration()));
    let mut with_gpu = 0;
    for script in find(&folder.path().join("work"), ".command.run") {
        let text = fs::read_to_string(&script).unwrap();
        let seen = fs::read_to_string(script.with_file_name("seen")).unwrap();
        if text.contains("--gres=gpu:1") {
            with_gpu += 1;
            assert!(text.contains("#SBATCH -p gpu"), "{text}");
            assert!(matches!(seen.trim(), "0" | "1"), "{seen}");
        } else {
            assert_eq!(seen.trim(), "none");
        }
    }
    assert_eq!(with_gpu, 2);
}

/// The queue ends a job as it ends one whose time is over: SIGTERM, then SIGKILL.
fn nextflow_killed(slurm: &Slurm) {
    let folder = folder();
    let proteins = shorter(folder.path());
    let whole = whole(folder.path(), &proteins);
    fs::write(folder.path().join("quick.config"), QUICK).unwrap();
    let mut run = nextflow(folder.path(), "run -profile slurm -c quick.config -c");
    run.arg(project("tests/workflows/modules.config"))
        .arg(project("tests/workflows/score.nf"))
        .arg("--input")
        .arg(&proteins)
        .arg("--model")
        .arg(model_folder());
    run.env("SLURM_CONF", slurm.configuration())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = run.spawn().unwrap();
    let (first, _) = working(&folder.path().join("work"), has_journal);
    let mut jobs = command("squeue", folder.path());
    jobs.args(["-h", "-o", "%i %Z"])
        .env("SLURM_CONF", slurm.configuration());
    let jobs = ran(&mut jobs);
    let job = jobs
        .lines()
        .find_map(|line| line.strip_suffix(first.to_str().unwrap()));
    let mut cancel = command("scancel", folder.path());
    cancel.env("SLURM_CONF", slurm.configuration());
    ran(cancel.arg(job.unwrap().trim()));
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    let logs = find(&folder.path().join("work"), ".command.log");
    let logs = logs.iter().map(|log| fs::read_to_string(log).unwrap());
    assert!(logs.map(|log| resumed(&log)).max() >= Some(1), "{said}");
    same_bytes(&folder.path().join("results/score/slow.tsv"), &whole);
}

/// A stand-in for `ankh3` writes what it was asked and which GPU it sees: this build has no CUDA.
const STAND_IN: &str = "#!/usr/bin/env bash
while (($#)); do
  asked+=\"$1 \"
  if [[ $1 == --output=* ]]; then output=${1#*=}; fi
  shift
done
echo \"${asked}GPU ${CUDA_VISIBLE_DEVICES:-none}\" >\"$output\"
";

/// Without accounting Slurm is asked by `squeue`; a node of this size takes jobs of one core.
const SLURM: &str = "--jobs 4 --slurm-no-account --slurm-status-command squeue --slurm-init-seconds-before-status-checks 1 \
    --max-threads 1 --latency-wait 20 --seconds-between-status-checks 1";

fn snakemake_gpu(slurm: &Slurm) {
    let folder = folder();
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let stand_in = bin.join("ankh3");
    fs::write(&stand_in, STAND_IN).unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("in.fasta"), ">a\nMKV\n").unwrap();
    let rule = |name: &str, resource: &str| {
        format!(
            "rule {name}:\n    input: fasta='in.fasta'\n    output: embeddings='{name}.tsv'\n    log: '{name}.log'\n    resources: {resource}\n    wrapper: 'bio/ankh3/embed'\n"
        )
    };
    let all = "rule all:\n    input: 'with.tsv', 'without.tsv', 'two.tsv'\n";
    let rules = [
        ("with", "gpu=1"),
        ("without", "gpu=0"),
        ("two", "gres='gpu:2'"),
    ];
    let rules = rules.map(|(name, resource)| rule(name, resource)).concat();
    let text = format!("{all}{rules}");
    fs::write(folder.path().join("Snakefile"), text).unwrap();
    let executor = "--executor slurm --default-resources mem_mb=500 runtime=10";
    let mut run = snakemake(folder.path(), &format!("{executor} {SLURM}"));
    let path = format!(
        "{}:{}",
        bin.display(),
        crate::support::path().to_string_lossy()
    );
    ran(run
        .env("PATH", path)
        .env("SLURM_CONF", slurm.configuration()));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let (with, without, two) = (read("with.tsv"), read("without.tsv"), read("two.tsv"));
    assert!(
        two.contains("--device cuda:all") && two.ends_with("GPU 0,1\n"),
        "{two}"
    );
    assert!(
        with.contains("--device cuda") && (with.ends_with("GPU 0\n") || with.ends_with("GPU 1\n")),
        "{with}"
    );
    assert!(
        without.contains("--device cpu") && without.ends_with("GPU none\n"),
        "{without}"
    );
}

fn snakemake_proteome(slurm: &Slurm) {
    let folder = folder();
    examples(folder.path());
    let snakefile = project("workflows/proteome/Snakefile")
        .display()
        .to_string();
    let profile = project("snakemake/profiles/slurm").display().to_string();
    let arguments = format!(
        "--profile {profile} {SLURM} --set-resources embed:runtime=10 --snakefile {snakefile} \
         --config contacts=False shards=2 format=npz model={}",
        model()
    );
    ran(snakemake(folder.path(), &arguments).env("SLURM_CONF", slurm.configuration()));
    assert!(folder.path().join("results/proteome.html").is_file());
}
