use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::snakemake::examples;
use crate::support::{
    ankh3, command, ended, find, folder, has, model, nextflow, project, ran, same_bytes, snakemake,
};

/// Shard 2 of 2 has a record that is no protein.
const ONE_BAD: &str = ">good\nMKTAYIAKQR\n>bad\nMKT1YI!\n";

#[test]
fn a_bad_shard_fails_alone_with_its_message_in_nextflows_log() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    fs::write(folder.path().join("in.fasta"), ONE_BAD).unwrap();
    let arguments = format!(
        "run {} --contacts false --input in.fasta -with-trace trace.txt --model",
        project("workflows/proteome").display()
    );
    let (code, said) = ended(nextflow(folder.path(), &arguments).arg(model()));
    assert_eq!(code, Some(1), "{said}");
    let trace = fs::read_to_string(folder.path().join("trace.txt")).unwrap();
    assert_eq!(
        (
            trace.matches("COMPLETED").count(),
            trace.matches("FAILED").count()
        ),
        (1, 1),
        "{trace}"
    );
    let logs = find(&folder.path().join("work"), ".command.log");
    let failed = logs
        .iter()
        .map(|log| fs::read_to_string(log).unwrap())
        .find(|log| log.contains("rror"));
    let failed = failed.unwrap();
    for part in ["in.fasta", "record 2", "bad", "line 3"] {
        assert!(
            failed.contains(part) && said.contains(part),
            "no {part:?} in\n{failed}\n{said}"
        );
    }
}

#[test]
fn a_bad_shard_fails_alone_with_its_message_in_snakemakes_log() {
    if !has("snakemake") {
        return;
    }
    let folder = folder();
    examples(folder.path());
    fs::write(folder.path().join("in.fasta"), ONE_BAD).unwrap();
    fs::write(
        folder.path().join("own.yaml"),
        format!(
            "samples:\n  own: in.fasta\ncontacts: false\nshards: 2\nmodel: {}\n",
            model().display()
        ),
    )
    .unwrap();
    let snakefile = project("snakemake/workflow/Snakefile")
        .display()
        .to_string();
    let arguments = format!("--cores 1 --keep-going --configfile own.yaml --snakefile {snakefile}");
    let (code, said) = ended(&mut snakemake(folder.path(), &arguments));
    assert_eq!(code, Some(1), "{said}");
    let log = |shard: u8| {
        fs::read_to_string(
            folder
                .path()
                .join(format!("results/logs/embed/own.{shard}.log")),
        )
    };
    let (good, bad) = (log(1).unwrap(), log(2).unwrap());
    assert!(
        !good.contains("rror") && folder.path().join("results/shards/own.1.h5").is_file(),
        "{good}"
    );
    for part in ["in.fasta", "record 2", "bad", "line 3"] {
        assert!(bad.contains(part), "no {part:?} in\n{bad}");
    }
}

/// The task of `ankh3 score` whose journal below `folder` has something new; its folder and process.
fn working(folder: &Path, not: &[u32]) -> (PathBuf, u32) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(120) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let at = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_ours = at.starts_with(folder) && line.starts_with(b"ankh3\0score");
            if is_ours && !not.contains(&pid) && has_journal(&at) {
                return (at, pid);
            }
        }
        sleep(Duration::from_millis(50));
    }
    panic!("no task got as far as its journal in {}", folder.display());
}

/// Journals are a file or a folder; one is worth something when a protein is in it.
fn has_journal(at: &Path) -> bool {
    let journals = fs::read_dir(at).into_iter().flatten().flatten();
    let mut journals =
        journals.filter(|entry| entry.file_name().to_string_lossy().ends_with(".resume"));
    journals.any(|entry| {
        entry
            .metadata()
            .is_ok_and(|it| it.is_dir() || it.len() > 600)
    })
}

fn kill(signal: &str, pid: u32) {
    ran(Command::new("kill").args([signal, &pid.to_string()]));
}

/// Proteins that a resumed run found done.
fn resumed(log: &str) -> u64 {
    let words = log.split("resuming: ").nth(1).unwrap_or_default();
    words
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_task_killed_twice_goes_on_where_it_was() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let proteome = project("examples/proteome.fasta");
    let mut whole = ankh3(folder.path());
    whole.args(["score", "-o", "whole.tsv", "--model"]);
    ran(whole.arg(model()).arg(&proteome));

    let mut run = nextflow(folder.path(), "run");
    run.arg(project("tests/workflows/score.nf"))
        .arg("-c")
        .arg(project("tests/workflows/score.config"));
    run.arg("--input")
        .arg(&proteome)
        .arg("--model")
        .arg(model());
    let run = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let work = folder.path().join("work");
    let (first, one) = working(&work, &[]);
    kill("-TERM", one);
    let (second, two) = working(&work, &[one]);
    kill("-KILL", two);
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    assert_ne!(first, second);
    let logs = find(&work, ".command.log");
    assert_eq!(logs.len(), 3, "{said}");
    let mut found: Vec<u64> = logs
        .iter()
        .map(|log| resumed(&fs::read_to_string(log).unwrap()))
        .collect();
    found.sort_unstable();
    assert!(
        found[0] == 0 && found[1] >= 1 && found[2] >= found[1],
        "{found:?}\n{said}"
    );
    same_bytes(
        &folder.path().join("results/slow.tsv"),
        &folder.path().join("whole.tsv"),
    );
}

#[test]
fn a_job_killed_goes_on_where_it_was_under_snakemake() {
    if !has("snakemake") {
        return;
    }
    let folder = folder();
    let proteome = project("examples/proteome.fasta");
    fs::copy(&proteome, folder.path().join("proteins.fasta")).unwrap();
    std::os::unix::fs::symlink(model(), folder.path().join("model")).unwrap();
    let test =
        fs::read_to_string(project("snakemake/wrappers/bio/ankh3/score/test/Snakefile")).unwrap();
    fs::write(
        folder.path().join("Snakefile"),
        test.replace("--mask-fraction 0.15", ""),
    )
    .unwrap();
    let mut run = snakemake(folder.path(), "--cores 2 --retries 1");
    let run = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let at = folder.path().canonicalize().unwrap();
    let (_, one) = working(&at, &[]);
    kill("-KILL", one);
    let output = run.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let log = fs::read_to_string(folder.path().join("logs/score.log")).unwrap();
    assert!(resumed(&log) >= 1, "{log}");
    let mut whole = ankh3(folder.path());
    whole.args(["score", "-o", "whole.tsv", "--model"]);
    ran(whole.arg(model()).arg(&proteome));
    same_bytes(
        &folder.path().join("scores.tsv"),
        &folder.path().join("whole.tsv"),
    );
}

/// A task's own script once more, where no network is and everything but the task's folder is read-only: the model too, shared by two at a time.
#[test]
fn tasks_share_a_read_only_model_and_touch_neither_network_nor_anything_else() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let confined = |at: &Path, script: &str| {
        let inner = format!(
            "mount --make-rprivate / && mount --bind '{0}' '{0}' && mount -o remount,ro,bind / && cd '{0}' && {script}",
            at.display()
        );
        let mut confined = command("unshare", at);
        confined.args(["--net", "--mount", "bash", "-c", &inner]);
        confined
    };
    if ended(&mut confined(folder.path(), "true")).0 != Some(0) {
        println!("SKIPPED: no namespaces may be made here (unshare --net --mount)");
        return;
    }
    // The cage holds: outside the folder nothing can be written, and no address can be reached.
    let outside = model().join("written");
    assert_ne!(
        ended(&mut confined(
            folder.path(),
            &format!("touch '{}'", outside.display())
        ))
        .0,
        Some(0)
    );
    assert_ne!(
        ended(&mut confined(folder.path(), "exec 3<>/dev/tcp/127.0.0.1/9")).0,
        Some(0)
    );

    let arguments = format!(
        "-q run {} --contacts false --format npz --model",
        project("workflows/proteome").display()
    );
    ran(nextflow(folder.path(), &arguments).arg(model()));
    let scripts = find(&folder.path().join("work"), ".command.sh");
    let tasks: Vec<&Path> = scripts
        .iter()
        .filter(|script| fs::read_to_string(script).unwrap().contains("ankh3 embed"))
        .filter_map(|script| script.parent())
        .collect();
    assert_eq!(tasks.len(), 2);
    let made = |at: &Path| {
        let mut names = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
        let made = names.find(|path| path.extension().is_some_and(|it| it == "npz"));
        made.unwrap()
    };
    let before: Vec<Vec<u8>> = tasks
        .iter()
        .map(|task| fs::read(made(task)).unwrap())
        .collect();
    let children: Vec<_> = tasks
        .iter()
        .map(|task| {
            fs::remove_file(made(task)).unwrap();
            confined(task, "bash .command.sh").spawn().unwrap()
        })
        .collect();
    for (mut child, (task, before)) in children.into_iter().zip(tasks.iter().zip(before)) {
        assert!(child.wait().unwrap().success());
        assert!(fs::read(made(task)).unwrap() == before);
    }
}
