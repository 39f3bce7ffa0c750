use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use ankh3::output::embeddings::EmbeddingFormat;

use crate::skip::{Lack, skip};

use super::support::{Ended, ankh3, folder_with, names, proteins, run, tiny};

/// More bytes than a pipe holds, so that writing continues after the reader has ended.
const LENGTHS: [usize; 4] = [900, 1000, 1000, 1000];

/// Reads one byte or no byte of stdout, then closes it.
fn with_short_reader(mut command: Command, bytes: usize) -> Ended {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut vec![0; bytes]).unwrap();
    drop(stdout);
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder_with(&proteins(&LENGTHS));
    let path = folder.path();
    for format in EmbeddingFormat::ALL
        .into_iter()
        .filter(|format| *format != EmbeddingFormat::Npy)
    {
        for bytes in [0, 1] {
            let arguments = format!(
                "embed --model {} --format {} in.fasta",
                tiny(),
                format.name()
            );
            let ended = with_short_reader(ankh3(path, &arguments), bytes);
            assert_eq!(ended.code, Some(0), "{format:?}: {}", ended.stderr);
            assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
        }
    }
    run(
        path,
        &format!("embed --model {} -o out.npz in.fasta", tiny()),
    )
    .with(0);
    let others = [
        "merge out.npz".to_owned(),
        "merge --format tsv out.npz".to_owned(),
        "inspect out.npz".to_owned(),
        format!("tokenize --model {} in.fasta", tiny()),
        "models".to_owned(),
        "man".to_owned(),
        "completions bash".to_owned(),
    ];
    for other in others {
        let ended = with_short_reader(ankh3(path, &other), 0);
        assert_eq!(ended.code, Some(0), "{other}: {}", ended.stderr);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error() {
    let folder = folder_with(&proteins(&LENGTHS));
    for format in EmbeddingFormat::ALL
        .into_iter()
        .filter(|format| *format != EmbeddingFormat::Npy)
    {
        let arguments = format!(
            "embed --model {} --format {} in.fasta",
            tiny(),
            format.name()
        );
        run(folder.path(), &format!("{arguments} -o /dev/full"))
            .with(1)
            .saying(&["writing /dev/full", "No space left"]);
        let mut to_stdout = ankh3(folder.path(), &arguments);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended: Ended = to_stdout.stdout(full).output().unwrap().into();
        ended.with(1).saying(&["No space left"]);
    }
}

/// A small disk, mounted for tests that run as root.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn new(folder: &'a Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let arguments = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        let mut mount = Command::new("mount");
        let mount = mount.args(arguments).arg(folder).stderr(Stdio::null());
        let mounted = mount.status().is_ok_and(|status| status.success());
        mounted.then_some(SmallDisk(folder))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_left_half_written() {
    let input = folder_with(&proteins(&LENGTHS));
    let input = input.path().join("in.fasta");
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(folder.path(), "300k") else {
        skip(Lack::Machine, "the right to mount a small disk");
        return;
    };
    for format in EmbeddingFormat::ALL {
        let name = format!("out.{}", format.name());
        fs::write(disk.0.join(&name), "old").unwrap();
        let arguments = format!("embed --model {} -o {name} {}", tiny(), input.display());
        run(disk.0, &arguments)
            .with(1)
            .saying(&[&format!("writing {name}"), "No space left"]);
        assert_eq!(names(disk.0), [name.as_str()], "{format:?}");
        assert_eq!(fs::read(disk.0.join(&name)).unwrap(), b"old");
        fs::remove_file(disk.0.join(&name)).unwrap();
    }
    // A run can be resumed from a journal that was written to a full disk.
    let arguments = format!("embed --model {} --resume -o out.npz", tiny());
    run(disk.0, &format!("{arguments} {}", input.display()))
        .with(1)
        .saying(&["No space left"]);
    assert_eq!(names(disk.0), ["out.npz.resume"]);
    let more_room = ["-o", "remount,size=4m"];
    let mut remount = Command::new("mount");
    assert!(
        remount
            .args(more_room)
            .arg(disk.0)
            .status()
            .unwrap()
            .success()
    );
    run(disk.0, &format!("{arguments} {}", input.display())).with(0);
    assert_eq!(names(disk.0), ["out.npz"]);
}

#[test]
fn quiet_runs_say_nothing_and_messages_never_end_a_run() {
    let folder = folder_with(&proteins(&[5, 6]));
    let path = folder.path();
    run(path, "init --preset nano model").with(0);
    let arguments = format!("embed --model {} -o out.npz in.fasta", tiny());
    let loud = run(path, &arguments).with(0);
    loud.saying(&[
        "ankh3 ",
        "model ",
        "2 sequences, 11 residues",
        "peak memory",
    ]);
    assert_eq!(
        run(path, &format!("{arguments} --quiet")).with(0).stderr,
        ""
    );
    // Warnings remain: this model is labelled random.
    let random = "embed --model model -o out.npz in.fasta -q";
    run(path, random).with(0).saying(&["this model is random"]);
    assert_eq!(run(path, &format!("{random} -q")).with(0).stderr, "");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = ankh3(path, &arguments);
    let ended = command.stderr(full).status().unwrap();
    assert_eq!(ended.code(), Some(0), "a log without room");
}
