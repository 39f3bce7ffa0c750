use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::support::{
    Ended, ankh3, bytes, fasta, folder_with, names, nano, proteins, records, residue_classes, run,
    tiny,
};

/// Number of kills, by [`SIGNALS`] in turn.
const KILLS: usize = 56;

/// The signals that stop a run, by their names for `kill`: that of a system without memory, those of
/// a queue, of a terminal and of a limit of CPU time.
const SIGNALS: [&str; 6] = ["KILL", "TERM", "KILL", "INT", "HUP", "XCPU"];

fn stop(child: &Child, signal: &str) {
    let mut kill = Command::new("kill");
    // The run may have ended before the signal.
    kill.args(["-s", signal, &child.id().to_string()])
        .stderr(Stdio::null());
    kill.status().unwrap();
}

/// Starts a run, stops it after `delay`, and returns how it ended.
fn interrupted(mut command: Command, delay: Duration, signal: &str) -> Ended {
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    sleep(delay);
    stop(&child, signal);
    child.wait_with_output().unwrap().into()
}

/// A command that is killed and repeated.
struct Resumable<'a> {
    folder: &'a Path,
    /// The command without its outputs.
    command: String,
    /// Flag and file of each output; the first one has the journal beside it.
    outputs: Vec<(&'static str, String)>,
}

impl Resumable<'_> {
    fn arguments(&self, prefix: &str) -> String {
        let outputs = self.outputs.iter();
        let flags = outputs.map(|(flag, name)| format!(" {flag} {prefix}{name}"));
        format!("{}{}", self.command, flags.collect::<String>())
    }

    /// The bytes of all outputs and of the files beside them.
    fn bytes(&self, prefix: &str) -> Vec<Vec<Option<Vec<u8>>>> {
        let outputs = self.outputs.iter();
        let paths = outputs.map(|(_, name)| self.folder.join(format!("{prefix}{name}")));
        paths.map(|path| bytes(&path)).collect()
    }

    /// Kills the command `kills` times, then lets it end. The result must have the bytes of a run
    /// without interruption. Returns the number of runs that continued from a journal.
    fn survives(&self, kills: usize, stream: &mut ChaCha8Rng) -> usize {
        let folder = self.folder;
        let begun = Instant::now();
        run(folder, &self.arguments("whole-")).with(0);
        let duration = begun.elapsed();
        let whole = self.bytes("whole-");
        let command = format!("{} --resume", self.arguments("out-"));
        let (mut killed, mut resumed) = (0, 0);
        while killed < kills {
            let signal = SIGNALS[killed % SIGNALS.len()];
            let delay = duration.mul_f64(stream.random_range(0.0..0.9));
            // A run that was killed before may have left unfinished files, if the signal came
            // before they were deleted.
            let leftovers = unfinished(folder);
            let ended = interrupted(ankh3(folder, &command), delay, signal);
            resumed += usize::from(ended.stderr.contains("resuming: "));
            if ended.code == Some(0) {
                // The run ended before the signal.
                assert!(
                    self.bytes("out-") == whole,
                    "{command} after {killed} kills"
                );
                let names = self.outputs.iter().map(|(_, name)| name);
                names.for_each(|name| remove(&folder.join(format!("out-{name}"))));
                continue;
            }
            assert_eq!(ended.code, None, "{}", ended.stderr);
            killed += 1;
            if signal != "KILL" {
                let own = unfinished(folder)
                    .into_iter()
                    .filter(|name| !leftovers.contains(name));
                assert_eq!(
                    own.collect::<Vec<_>>(),
                    [""; 0],
                    "SIG{signal} leaves nothing unfinished"
                );
            }
        }
        let last = run(folder, &command).with(0);
        resumed += usize::from(last.stderr.contains("resuming: "));
        assert!(self.bytes("out-") == whole, "{command} in the end");
        assert_eq!(unfinished(folder), [""; 0], "{command}");
        let left = names(folder);
        let journals = left.iter().filter(|name| name.contains(".resume"));
        assert_eq!(journals.count(), 0, "{command}: {left:?}");
        resumed
    }
}

#[test]
fn killed_at_any_moment_the_same_command_ends_in_the_same_bytes() {
    let lengths: Vec<usize> = (0..220).map(|i| 1 + i * 37 % 290).collect();
    let folder = folder_with(&proteins(&lengths));
    let mut stream = ChaCha8Rng::seed_from_u64(1);
    let formats = ["npz", "npy", "h5", "jsonl"];
    let resumed: usize = formats
        .into_iter()
        .map(|format| {
            let embed = Resumable {
                folder: folder.path(),
                command: format!(
                    "embed --model {} --threads 1 --max-batch-tokens 300 in.fasta",
                    tiny()
                ),
                outputs: vec![("-o", format!("embeddings.{format}"))],
            };
            embed.survives(KILLS / formats.len(), &mut stream)
        })
        .sum();
    println!("{KILLS} kills, {resumed} runs went on from a journal");
    assert!(
        resumed >= KILLS / 4,
        "only {resumed} of the kills left a journal to go on from"
    );
}

/// Every other command that has `--resume`.
#[test]
fn every_resumable_command_survives_being_killed() {
    const KILLS_EACH: usize = 4;
    let lengths: Vec<usize> = (0..60).map(|i| 2 + i * 37 % 90).collect();
    let mut all = proteins(&lengths);
    for protein in &mut all {
        protein.residues.push('?');
    }
    let folder = folder_with(&all);
    let path = folder.path();
    let plain = fasta(&all).replace('?', "");
    fs::write(path.join("plain.fasta"), plain).unwrap();
    fs::write(path.join("t.csv"), residue_classes()).unwrap();
    let train = "probe train --train t.csv --split-column split --label-column state --task residues --epochs 1 --features onehot --feature-width 20 --body linear -o head";
    run(path, train).with(0);
    let model = tiny();
    let contacts = format!(
        "predict-contacts --model {model} --threads 1 --method jacobian --jacobian-outputs hidden plain.fasta"
    );
    let score = format!(
        "score --model {model} --threads 1 --max-batch-tokens 100 --mask-fraction 0.3 plain.fasta"
    );
    let fill = format!("mask-fill --model {model} --threads 1 --max-batch-tokens 50 in.fasta");
    let complete =
        format!("complete --model {model} --threads 1 --max-batch-tokens 100 plain.fasta");
    let predict = "probe predict --head head --per-residue plain.fasta".to_owned();
    let commands = [
        (score.clone(), vec![("-o", "scores.tsv")]),
        (
            format!("{score} --per-residue"),
            vec![("-o", "scores.jsonl")],
        ),
        (fill, vec![("-o", "filled.fasta"), ("--sites", "sites.csv")]),
        (complete, vec![("-o", "completed.fasta")]),
        (contacts.clone(), vec![("-o", "contacts.rr")]),
        (contacts.clone(), vec![("-o", "contacts.tsv")]),
        (contacts, vec![("-o", "maps.npz")]),
        (predict, vec![("-o", "classes.tsv")]),
    ];
    let mut stream = ChaCha8Rng::seed_from_u64(2);
    let mut resumed = 0;
    for (command, outputs) in commands {
        let outputs = outputs.into_iter();
        let outputs = outputs
            .map(|(flag, name)| (flag, name.to_owned()))
            .collect();
        let command = Resumable {
            folder: path,
            command,
            outputs,
        };
        resumed += command.survives(KILLS_EACH, &mut stream);
    }
    println!("{resumed} runs went on from a journal");
    assert!(resumed >= 4, "only {resumed} runs went on from a journal");
}

fn remove(out: &Path) {
    for suffix in ["", ".json", ".index.tsv"] {
        let _ = fs::remove_file(format!("{}{suffix}", out.display()));
    }
}

fn unfinished(folder: &Path) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| Path::new(name).extension().is_some_and(|end| end == "tmp"));
    names
}

/// The number of complete entries in a journal. They follow the magic bytes and the key, each after
/// eight bytes of length and four of checksum.
fn entries(journal: &Path) -> usize {
    let bytes = fs::read(journal).unwrap_or_default();
    let mut rest = bytes.get(8..).unwrap_or_default();
    let mut found = 0;
    while let Some((head, after)) = rest.split_first_chunk::<12>() {
        let length = u64::from_le_bytes(*head.first_chunk().unwrap());
        let Some(after) = after.get(usize::try_from(length).unwrap()..) else {
            break;
        };
        rest = after;
        found += 1;
    }
    // The first entry is the key.
    found.max(1) - 1
}

/// Kills a run that has computed `first` and waits for more input on stdin, and leaves its journal.
fn cut_off(folder: &Path, arguments: &str, first: &str) {
    let journal = folder.join("out.npz.resume");
    let mut child = ankh3(folder, arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A record ends where the next one begins.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(first.as_bytes()).unwrap();
    stdin.write_all(b">next\n").unwrap();
    stdin.flush().unwrap();
    let begun = Instant::now();
    let wanted = first.matches('>').count();
    while entries(&journal) < wanted {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no journal grows"
        );
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn another_runs_journal_is_refused_and_the_way_out_named() {
    let all = proteins(&[20, 30, 40]);
    let folder = folder_with(&all);
    let path = folder.path();
    let same = format!(
        "embed --model {} --max-batch-tokens 1 --resume -o out.npz",
        tiny()
    );
    cut_off(path, &same, &fasta(&all[..2]));
    let others = [
        (
            format!("{same} --prefix s2s"),
            r#"prefix was "nlu", now "s2s""#,
        ),
        (format!("{same} --layers 1"), "layers was [3], now [1]"),
        (format!("{same} --pooling mean"), "pooling was"),
        (format!("{same} --out-dtype f16"), "dtype was"),
        (format!("{same} --shard 1/2"), "shard was absent"),
        (
            format!("{same} --max-length 9 --over truncate"),
            "length_limit was absent",
        ),
        (same.replace(&tiny(), &nano()), "model_hash was"),
    ];
    for (other, difference) in others {
        let refused = run(path, &format!("{other} in.fasta")).with(1);
        let advice = [
            "out.npz.resume",
            difference,
            "delete it",
            "without --resume",
        ];
        refused.saying(&advice);
    }
    // Another input is rejected at the first record that differs.
    let mut changed = all.clone();
    changed[1].residues.push('A');
    fs::write(path.join("changed.fasta"), fasta(&changed)).unwrap();
    run(path, &format!("{same} changed.fasta"))
        .with(1)
        .saying(&[
            "the input differs from the input of the run to resume",
            &all[1].id,
            ".resume",
        ]);
    // Settings that do not influence the numbers may change: threads, batches.
    let ended = run(path, &format!("{same} --threads 1 in.fasta")).with(0);
    ended.saying(&["resuming: 2 sequences already done"]);
    run(
        path,
        &format!("embed --model {} -o whole.npz in.fasta", tiny()),
    )
    .with(0);
    assert!(bytes(&path.join("out.npz")) == bytes(&path.join("whole.npz")));
    let to_stdout = format!("embed --model {} --resume", tiny());
    run(path, &format!("{to_stdout} in.fasta"))
        .with(2)
        .saying(&["--output <FILE>"]);
    run(path, &format!("{to_stdout} -o - in.fasta"))
        .with(2)
        .saying(&["-o FILE"]);
}

#[test]
fn two_runs_do_not_share_a_journal() {
    let folder = folder_with(&proteins(&[20, 30]));
    let path = folder.path();
    let command = format!("embed --model {} --resume -o out.npz", tiny());
    let mut waiting = ankh3(path, &command);
    let mut waiting = waiting
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !path.join("out.npz.resume").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(5));
    }
    // The lock is taken directly after the file is created.
    sleep(Duration::from_millis(200));
    run(path, &format!("{command} in.fasta"))
        .with(1)
        .saying(&["in use by another run"]);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    run(path, &format!("{command} in.fasta")).with(0);
    assert_eq!(records(&path.join("out.npz")).len(), 2);
    assert_eq!(
        unfinished(path),
        [""; 0],
        "what the killed run left is gone"
    );
}

/// Regression: a journal without an entry for a rejected sequence did not match its input any more.
#[test]
fn refused_results_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let model = super::refusals::model_that_cannot_bear(path, b'W');
    let mut all = proteins(&[5, 5, 5, 5]);
    for (protein, residues) in all.iter_mut().zip(["ACD", "AWD", "DCA", "CCC"]) {
        protein.residues = residues.to_owned();
    }
    fs::write(path.join("in.fasta"), fasta(&all)).unwrap();
    let command =
        format!("embed --model {model} --on-bad skip --max-batch-tokens 1 --resume -o out.npz");
    cut_off(path, &command, &fasta(&all[..3]));
    let ended = run(path, &format!("{command} in.fasta")).with(3);
    ended.saying(&[
        "resuming: 3 sequences",
        "skipped: in.fasta: record 2",
        "NaN",
    ]);
    run(
        path,
        &format!("embed --model {model} --on-bad skip -o whole.npz in.fasta"),
    )
    .with(3);
    assert!(bytes(&path.join("out.npz")) == bytes(&path.join("whole.npz")));
    assert_eq!(records(&path.join("out.npz")).len(), 3);
}

/// The scan of a long protein is killed several times; each run continues where the last one ended.
#[test]
fn a_scan_goes_on_within_its_protein() {
    let folder = folder_with(&proteins(&[160]));
    let path = folder.path();
    let score = |rest: &str| {
        let model = nano();
        format!("score --scan --model {model} --threads 1 --max-batch-tokens 200 {rest} in.fasta")
    };
    run(path, &score("-o whole.tsv")).with(0);
    let command = score("--resume -o out.tsv");
    let part = path.join("out.tsv.part.resume");
    for kills in 1..=3 {
        let before = entries(&part);
        let mut child = ankh3(path, &command);
        let mut child = child.stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while entries(&part) < before + 5 {
            assert!(begun.elapsed() < Duration::from_secs(120), "no answer kept");
            sleep(Duration::from_millis(1));
        }
        stop(&child, "KILL");
        assert_eq!(child.wait().unwrap().code(), None, "kill {kills}");
    }
    let kept = entries(&part);
    assert!((15..160).contains(&kept), "{kept}");
    let says = format!("resuming: {kept} answers about unfinished proteins are already done");
    run(path, &command).with(0).saying(&[&says]);
    assert!(bytes(&path.join("out.tsv")) == bytes(&path.join("whole.tsv")));
    let left = [
        "in.fasta",
        "out.tsv",
        "out.tsv.json",
        "whole.tsv",
        "whole.tsv.json",
    ];
    assert_eq!(names(path), left);
}
