use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use ankh3::output::embeddings::{EmbeddingReader, EmbeddingRecord};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

/// The path of a file of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The binary with `arguments` split at blanks, in `folder`, in an environment without the user's
/// settings.
pub fn ankh3(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ankh3"));
    command
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .env("HF_HOME", folder.join("hf"))
        .stdin(Stdio::null());
    let foreign = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("ANKH3_") || (name.starts_with("HF_") && name != "HF_HOME")
    });
    foreign.for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// The exit code and output of a run.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Ended {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Checks that the run ended with `code`.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }

    /// Checks that the messages of the run contain all of `parts`.
    #[track_caller]
    pub fn saying(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "no {part:?} in\n{}",
                self.stderr
            );
        }
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs to the end.
pub fn run(folder: &Path, arguments: &str) -> Ended {
    ankh3(folder, arguments).output().unwrap().into()
}

/// Runs to the end with `input` on stdin.
pub fn run_with_stdin(folder: &Path, arguments: &str, input: &[u8]) -> Ended {
    let mut command = ankh3(folder, arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    feed(&mut child, input);
    child.wait_with_output().unwrap().into()
}

/// Writes all input from a thread, so that neither side waits for the other. A reader may stop
/// early.
fn feed(child: &mut Child, input: &[u8]) {
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
}

/// The folder of the models, which the first test makes once per build of the binary.
static MODELS: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-models");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let built = fs::metadata(env!("CARGO_BIN_EXE_ankh3")).unwrap();
    let build = format!("{:?}", built.modified().unwrap());
    let (nano, tiny) = (folder.join("nano"), folder.join("tiny"));
    let made_by = folder.join("made-by");
    if fs::read_to_string(&made_by).is_ok_and(|found| found == build) {
        return folder;
    }
    for model in [&nano, &tiny] {
        if model.exists() {
            fs::remove_dir_all(model).unwrap();
        }
    }
    run(&folder, "init --preset nano --seed 7 nano").with(0);
    fs::create_dir(&tiny).unwrap();
    let golden = project("tests/golden/untied-gated-silu");
    for (from, name) in [
        (&golden, "config.json"),
        (&golden, "model.safetensors"),
        (&nano, "tokenizer.json"),
    ] {
        fs::copy(from.join(name), tiny.join(name)).unwrap();
    }
    fs::write(made_by, build).unwrap();
    folder
});

/// A random model of nano's shape.
pub fn nano() -> String {
    MODELS.join("nano").display().to_string()
}

/// A random model of three layers, 32 wide.
pub fn tiny() -> String {
    tiny_dir().display().to_string()
}

pub fn tiny_dir() -> PathBuf {
    MODELS.join("tiny")
}

/// A protein of a FASTA.
#[derive(Clone, Debug, PartialEq)]
pub struct Protein {
    pub id: String,
    pub residues: String,
}

/// Random proteins, `lengths` long, all different.
pub fn proteins(lengths: &[usize]) -> Vec<Protein> {
    let mut stream = ChaCha8Rng::seed_from_u64(lengths.len() as u64);
    let mut letter = || char::from(b"ACDEFGHIKLMNPQRSTVWYX"[stream.random_range(0..21)]);
    let protein = |(number, length): (usize, &usize)| Protein {
        id: format!("sp|P{number:05}|RANDOM/1-{length}"),
        residues: (0..*length).map(|_| letter()).collect(),
    };
    lengths.iter().enumerate().map(protein).collect()
}

/// Labelled proteins for a head that reads residues alone.
pub fn residue_classes() -> String {
    let mut table = "id,sequence,state,split\n".to_owned();
    for (number, protein) in proteins(&[12, 13, 14, 15, 16]).iter().enumerate() {
        let state = |letter: char| if "ACDEFGH".contains(letter) { 'a' } else { 'b' };
        let states: String = protein.residues.chars().map(state).collect();
        let split = ["train", "train", "valid", "test", "train"][number];
        table.extend([format!("p{number},{},{states},{split}\n", protein.residues)]);
    }
    table
}

/// The FASTA text of proteins.
pub fn fasta(proteins: &[Protein]) -> String {
    let record = |protein: &Protein| format!(">{} random\n{}\n", protein.id, protein.residues);
    proteins.iter().map(record).collect()
}

/// A folder with the proteins in `in.fasta`.
pub fn folder_with(proteins: &[Protein]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in.fasta"), fasta(proteins)).unwrap();
    folder
}

/// The records of an embedding file.
pub fn records(path: &Path) -> Vec<EmbeddingRecord> {
    EmbeddingReader::open(path)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// A file and the files beside it.
pub fn bytes(path: &Path) -> Vec<Option<Vec<u8>>> {
    ["", ".json", ".index.tsv"]
        .map(|suffix| fs::read(format!("{}{suffix}", path.display())).ok())
        .to_vec()
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Largest difference relative to the largest magnitude.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max) / largest
}
