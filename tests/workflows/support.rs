use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::skip::{Lack, skip};

/// A file of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Whether the engine is there; without it the test is skipped.
pub fn has(engine: &str) -> bool {
    let status = fs::read_to_string(project(".tools/status"))
        .expect(".tools/status is missing: run tests/run, or tests/workflows/engines once");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(engine))
        .unwrap_or(" unknown");
    if line.trim() == "ok" {
        return true;
    }
    let lack = if line.contains("needs root") {
        Lack::Machine
    } else {
        Lack::Tool
    };
    skip(lack, &format!("{engine}:{line}"));
    false
}

/// A folder that goes away with the test. It is below `target`: queues' jobs and bind mounts see
/// it.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// What the pipelines take for their model where none is named.
pub fn model() -> &'static str {
    "nano"
}

/// A random nano model in a directory, made once for all tests of this run.
pub fn model_folder() -> &'static Path {
    static MODEL: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("workflow-model");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        ran(ankh3(&folder).args(["init", "--preset", "nano", "nano"]));
        folder.join("nano")
    });
    &MODEL
}

/// `ankh3` and the engines before everything else on the path.
pub fn path() -> OsString {
    let binary = Path::new(env!("CARGO_BIN_EXE_ankh3")).parent().unwrap();
    let mut folders = vec![binary.to_owned(), project(".tools/bin")];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    std::env::join_paths(folders).unwrap()
}

/// A command in `folder`, which is its home too.
pub fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env("PATH", path())
        .env("HOME", folder)
        .env("XDG_CACHE_HOME", folder.join(".cache"))
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("SLURM_CONF")
        .stdin(Stdio::null());
    let foreign = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("ANKH3_") || name.starts_with("NXF_") || name.starts_with("SNAKEMAKE_")
    });
    foreign.for_each(|name| {
        command.env_remove(name);
    });
    command
}

pub fn ankh3(folder: &Path) -> Command {
    command("ankh3", folder)
}

/// Nextflow with `arguments` split at blanks.
pub fn nextflow(folder: &Path, arguments: &str) -> Command {
    let mut command = command("nextflow", folder);
    command.args(arguments.split_whitespace());
    command
}

/// Snakemake with the project's wrappers and `arguments` split at blanks.
pub fn snakemake(folder: &Path, arguments: &str) -> Command {
    let wrappers = format!("file://{}/", project("snakemake/wrappers").display());
    let mut command = command("snakemake", folder);
    command
        .args(["--wrapper-prefix", &wrappers])
        .args(arguments.split_whitespace());
    command
}

/// How it ended, and what it said on both channels.
pub fn ended(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code(), said)
}

/// Runs what must succeed; what it said.
#[track_caller]
pub fn ran(command: &mut Command) -> String {
    let (code, said) = ended(command);
    assert_eq!(code, Some(0), "{command:?}\n{said}");
    said
}

/// All files below `folder` with that name, in the order of their paths.
pub fn find(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(find(&path, name));
        } else if path.file_name().is_some_and(|it| it == name) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[track_caller]
pub fn same_bytes(left: &Path, right: &Path) {
    let read = |path: &Path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(
        read(left) == read(right),
        "{} and {} differ",
        left.display(),
        right.display()
    );
}
