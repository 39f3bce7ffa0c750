use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::skip::{Lack, skip};
use crate::support::{
    ankh3, command, ended, find, folder, has, model, model_folder, nextflow, project, ran,
    same_bytes, snakemake,
};

const GOOD: &str = ">good\nMKTAYIAKQR\n";
const BAD: &str = ">good\nMKTAYIAKQR\n>bad\nMKT1YI!\n";

/// A part of the work whose input is bad, beside one whose input is good.
fn inputs(folder: &Path) {
    fs::write(folder.join("good.fasta"), GOOD).unwrap();
    fs::write(folder.join("bad.fasta"), BAD).unwrap();
}

#[track_caller]
fn names_the_bad_record(text: &str) {
    for part in ["bad.fasta", "record 2", "(bad)", "line 3"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn a_bad_input_fails_alone_with_its_message_in_nextflows_log() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    inputs(folder.path());
    let pipeline = project("workflows/proteome").display().to_string();
    let arguments = format!("run {pipeline} --contacts false --format npz -with-trace trace.txt");
    let mut run = nextflow(folder.path(), &arguments);
    run.args(["--input", "*.fasta", "--model"]);
    let (code, said) = ended(run.arg(model()));
    assert_ne!(code, Some(0), "{said}");
    let trace = fs::read_to_string(folder.path().join("trace.txt")).unwrap();
    let failed: Vec<&str> = trace
        .lines()
        .filter(|line| line.contains("FAILED"))
        .collect();
    // Every shard reads all of its FASTA, so both of the bad one fail, and nothing else does.
    assert_eq!(failed.len(), 2, "{trace}");
    assert!(
        failed.iter().all(|line| line.contains("ANKH3_EMBED (bad)")),
        "{trace}"
    );
    assert!(folder.path().join("results/good.npz").is_file(), "{said}");
    assert!(!folder.path().join("results/bad.npz").exists());
    let logs = find(&folder.path().join("work"), ".command.log");
    let logs = logs.iter().map(|log| fs::read_to_string(log).unwrap());
    let failed: Vec<String> = logs.filter(|log| log.contains("ERROR")).collect();
    assert_eq!(failed.len(), 2);
    names_the_bad_record(&failed[0]);
}

#[test]
fn a_bad_input_fails_alone_with_its_message_in_snakemakes_log() {
    if !has("snakemake") {
        return;
    }
    let folder = folder();
    inputs(folder.path());
    let samples = "samples:\n  good: good.fasta\n  bad: bad.fasta\ncontacts: false\nshards: 2\n";
    let own = format!("{samples}model: {}\n", model());
    fs::write(folder.path().join("own.yaml"), own).unwrap();
    let snakefile = project("snakemake/workflow/Snakefile")
        .display()
        .to_string();
    let arguments = format!("--cores 1 --keep-going --configfile own.yaml --snakefile {snakefile}");
    let (code, said) = ended(&mut snakemake(folder.path(), &arguments));
    assert_eq!(code, Some(1), "{said}");
    let results = folder.path().join("results");
    assert!(
        results.join("good.h5").is_file() && results.join("good.html").is_file(),
        "{said}"
    );
    assert!(!results.join("bad.h5").exists());
    let log = |name: &str| fs::read_to_string(results.join("logs/embed").join(name)).unwrap();
    assert!(!log("good.1.log").contains("ERROR"));
    names_the_bad_record(&log("bad.2.log"));
}

/// Waits for a task of `ankh3 score` below `folder` that is `ready`, and not the quick one; its
/// folder and process.
pub fn working(folder: &Path, ready: impl Fn(&Path) -> bool) -> (PathBuf, u32) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(120) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let at = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let slow = line.starts_with("ankh3\0score") && !line.contains("quick");
            if at.starts_with(folder) && slow && ready(&at) {
                return (at, pid);
            }
        }
        sleep(Duration::from_millis(20));
    }
    panic!("no task got as far in {}", folder.display());
}

/// Whether a journal holds a protein besides its own first line.
pub fn has_journal(at: &Path) -> bool {
    let names = fs::read_dir(at).into_iter().flatten().flatten();
    let mut journals =
        names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".resume"));
    journals.any(|entry| entry.metadata().is_ok_and(|it| it.len() > 600))
}

fn has_resumed(at: &Path) -> bool {
    fs::read_to_string(at.join(".command.log")).is_ok_and(|log| resumed(&log) > 0)
}

/// The shorter proteins of the example: a second or two each, a passage a residue.
pub fn shorter(folder: &Path) -> PathBuf {
    let all = fs::read_to_string(project("examples/proteome.fasta")).unwrap();
    let records = all
        .split('>')
        .filter(|record| (40..140).contains(&record.len()));
    let records: Vec<String> = records.map(|record| format!(">{record}")).collect();
    let text = records.concat();
    let path = folder.join("proteins.fasta");
    fs::write(&path, text).unwrap();
    path
}

/// The scores of one run that nothing disturbed.
pub fn whole(folder: &Path, proteins: &Path) -> PathBuf {
    let mut whole = ankh3(folder);
    whole.args(["score", "-o", "whole.tsv", "--model"]);
    ran(whole.arg(model_folder()).arg(proteins));
    folder.join("whole.tsv")
}

fn kill(signal: &str, pid: u32) {
    ran(Command::new("kill").args([signal, &pid.to_string()]));
}

/// Proteins that a resumed run found done.
pub fn resumed(log: &str) -> u64 {
    let words = log.split("resuming: ").nth(1).unwrap_or_default();
    words
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_killed_task_goes_on_where_it_was_and_a_killed_run_keeps_what_was_done() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let proteome = shorter(folder.path());
    let whole = whole(folder.path(), &proteome);
    let run = |more: &[&str]| {
        let mut run = nextflow(folder.path(), "run");
        run.arg(project("tests/workflows/score.nf"))
            .arg("-c")
            .arg(project("tests/workflows/modules.config"));
        run.arg("--input").arg(&proteome);
        run.arg("--model").arg(model_folder()).args(more);
        run.stdout(Stdio::piped()).stderr(Stdio::piped());
        run
    };
    let begun = run(&[]).spawn().unwrap();
    let work = folder.path().join("work");
    // The end of time: SIGTERM, then nothing left to ask. Three such ends are more than a task may
    // have, and the run fails.
    let (first, one) = working(&work, has_journal);
    kill("-TERM", one);
    let (second, two) = working(&work, has_resumed);
    kill("-KILL", two);
    let (third, three) = working(&work, |at| at != second && has_resumed(at));
    kill("-KILL", three);
    let output = begun.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{said}");
    let found = [&first, &second, &third]
        .map(|task| resumed(&fs::read_to_string(task.join(".command.log")).unwrap()));
    assert!(
        found[0] == 0 && found[1] >= 1 && found[2] >= found[1],
        "{found:?}\n{said}"
    );

    let output = run(&["-resume"]).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    for line in [
        "Cached process > ANKH3_SCORE (quick)",
        "Submitted process > ANKH3_SCORE (slow)",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    same_bytes(&folder.path().join("results/score/slow.tsv"), &whole);
}

#[test]
fn a_job_killed_goes_on_where_it_was_under_snakemake() {
    if !has("snakemake") {
        return;
    }
    let folder = folder();
    let proteome = shorter(folder.path());
    std::os::unix::fs::symlink(model_folder(), folder.path().join("model")).unwrap();
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
    let (_, one) = working(&at, has_journal);
    kill("-KILL", one);
    let output = run.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let log = fs::read_to_string(folder.path().join("logs/score.log")).unwrap();
    assert!(resumed(&log) >= 1, "{log}");
    let whole = whole(folder.path(), &proteome);
    same_bytes(&folder.path().join("scores.tsv"), &whole);
}

/// A task's own script once more, where no network is and everything but the task's folder is
/// read-only: the model too, shared by two at a time.
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
        skip(
            Lack::Machine,
            "the right to make namespaces (unshare --net --mount)",
        );
        return;
    }
    // The cage holds: outside the folder nothing can be written, and no address can be reached.
    let outside = model_folder().join("written");
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
    ran(nextflow(folder.path(), &arguments).arg(model_folder()));
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
            let mut task = confined(task, "bash .command.sh");
            let quiet = task.stdout(Stdio::null()).stderr(Stdio::null());
            quiet.spawn().unwrap()
        })
        .collect();
    for (mut child, (task, before)) in children.into_iter().zip(tasks.iter().zip(before)) {
        assert!(child.wait().unwrap().success());
        assert!(fs::read(made(task)).unwrap() == before);
    }
}
