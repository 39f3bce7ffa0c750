//! Chains of known structures: PDB and mmCIF files (read by the crate pdbtbx), and tables of
//! coordinates.
//!
//! Only the first model and the first of alternative locations count. Where the chain is broken and
//! the numbering of residues jumps, the missing residues become `X` without coordinates, so that
//! separations are correct. A table of coordinates has JSON lines
//! `{"id", "seq", "xyz": [[x, y, z] or null, …]}` with one location per residue.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use pdbtbx::{Format, ReadOptions, StrictnessLevel};
use serde::Deserialize;
use thiserror::Error;

use crate::io::stdio;

/// Distance in Å between the C-alphas of neighbours above which a chain is broken.
const BREAK: f64 = 4.3;
/// Largest number of residues that may be missing in one break.
const GAP: isize = 200;

/// Why a structure cannot be used.
#[derive(Debug, Error)]
pub enum StructureError {
    /// The file cannot be opened or read.
    #[error("{} cannot be read", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file has no usable chain.
    #[error("{}: {what}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The problem, and the way out.
        what: String,
    },
}

/// The coordinates of a residue's atoms, in Å.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Atoms {
    /// Nitrogen of the backbone.
    pub n: Option<[f32; 3]>,
    /// C-alpha.
    pub ca: Option<[f32; 3]>,
    /// Carbon of the backbone.
    pub c: Option<[f32; 3]>,
    /// C-beta, or the representative location from a table of coordinates.
    pub cb: Option<[f32; 3]>,
}

impl Atoms {
    /// Whether the residue has neither a C-alpha nor a C-beta.
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.cb.is_none()
    }
}

/// A protein chain with coordinates.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// The id in the table, or the name of the file with `_CHAIN` appended.
    pub id: String,
    /// The name of the chain; empty for a table.
    pub name: String,
    /// One letter per residue; `X` for a missing or unknown residue.
    pub residues: Vec<u8>,
    /// The atoms of each residue.
    pub atoms: Vec<Atoms>,
}

/// All protein chains of a file, whose format is recognised by its content.
///
/// # Errors
/// A file that cannot be read, or without a protein chain.
pub fn read_chains(path: &Path) -> Result<Vec<Chain>, StructureError> {
    let mut bytes = Vec::new();
    stdio::open(path)
        .and_then(|mut reader| reader.read_to_end(&mut bytes))
        .map_err(|source| StructureError::Io {
            path: path.to_owned(),
            source,
        })?;
    let text = bytes.trim_ascii_start();
    let chains = if text.starts_with(b"{") {
        table(path, text)?
    } else {
        let format = if text.starts_with(b"data_") || text.starts_with(b"#") {
            Format::Mmcif
        } else {
            Format::Pdb
        };
        structure(path, &bytes, format)?
    };
    if chains.is_empty() {
        return Err(invalid(
            path,
            "no protein chain with coordinates; is it a PDB or mmCIF file, or a table of coordinates in JSON lines?",
        ));
    }
    Ok(chains)
}

fn invalid(path: &Path, what: impl Into<String>) -> StructureError {
    StructureError::Invalid {
        path: path.to_owned(),
        what: what.into(),
    }
}

#[derive(Deserialize)]
struct Line {
    id: String,
    seq: String,
    xyz: Vec<Option<[f32; 3]>>,
}

fn table(path: &Path, text: &[u8]) -> Result<Vec<Chain>, StructureError> {
    let mut chains = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Line { id, seq, xyz } = serde_json::from_slice(line)
            .map_err(|error| invalid(path, format!("line {}: {error}", index + 1)))?;
        if seq.len() != xyz.len() {
            let what = format!(
                "line {} ({id}): {} residues, but {} locations",
                index + 1,
                seq.len(),
                xyz.len()
            );
            return Err(invalid(path, what));
        }
        let atoms = |cb| Atoms {
            cb,
            ..Atoms::default()
        };
        chains.push(Chain {
            id,
            name: String::new(),
            residues: seq.to_ascii_uppercase().into_bytes(),
            atoms: xyz.into_iter().map(atoms).collect(),
        });
    }
    chains.retain(|chain| chain.atoms.iter().any(|atoms| !atoms.is_empty()));
    Ok(chains)
}

fn structure(path: &Path, bytes: &[u8], format: Format) -> Result<Vec<Chain>, StructureError> {
    let mut options = ReadOptions::new();
    options
        .set_format(format)
        .set_level(StrictnessLevel::Loose)
        .set_only_first_model(true)
        .set_discard_hydrogens(true)
        .set_only_atomic_coords(true);
    let (pdb, _) = options.read_raw(BufReader::new(bytes)).map_err(|errors| {
        let first = errors
            .first()
            .map(|error| error.short_description().to_owned());
        invalid(
            path,
            format!(
                "cannot be read as PDB or mmCIF: {}",
                first.unwrap_or_default()
            ),
        )
    })?;
    let mut stem = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for end in [
        ".gz", ".zst", ".bz2", ".xz", ".pdb", ".ent", ".cif", ".mmcif",
    ] {
        stem = stem.strip_suffix(end).map_or(stem.clone(), str::to_owned);
    }
    let Some(model) = pdb.models().next() else {
        return Ok(Vec::new());
    };
    let chains = model.chains().map(|chain| of_chain(&stem, chain));
    Ok(chains.filter(|chain| !chain.residues.is_empty()).collect())
}

fn of_chain(stem: &str, chain: &pdbtbx::Chain) -> Chain {
    let mut made = Chain {
        id: format!("{stem}_{}", chain.id()),
        name: chain.id().to_owned(),
        residues: Vec::new(),
        atoms: Vec::new(),
    };
    let mut last: Option<(isize, [f32; 3])> = None;
    for residue in chain.residues() {
        let (Some(letter), atoms) = (letter(residue), atoms(residue)) else {
            continue;
        };
        let Some(ca) = atoms.ca else { continue };
        let number = residue.serial_number();
        if let Some((before, place)) = last {
            let missing = number - before - 1;
            let distance: f64 = ca
                .iter()
                .zip(place)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum::<f64>()
                .sqrt();
            if distance > BREAK && (1..=GAP).contains(&missing) {
                made.residues
                    .extend(std::iter::repeat_n(b'X', missing as usize));
                made.atoms
                    .extend(std::iter::repeat_n(Atoms::default(), missing as usize));
            }
        }
        last = Some((number, ca));
        made.residues.push(letter);
        made.atoms.push(atoms);
    }
    made
}

/// The atoms of a residue, each from the first conformer that has it.
fn atoms(residue: &pdbtbx::Residue) -> Atoms {
    let mut atoms = Atoms::default();
    for atom in residue.atoms() {
        let slot = match atom.name() {
            "N" => &mut atoms.n,
            "CA" => &mut atoms.ca,
            "C" => &mut atoms.c,
            "CB" => &mut atoms.cb,
            _ => continue,
        };
        slot.get_or_insert([atom.x() as f32, atom.y() as f32, atom.z() as f32]);
    }
    atoms
}

/// The letter of an amino acid, `X` for an unknown one; `None` for a residue without a backbone,
/// which is not an amino acid.
fn letter(residue: &pdbtbx::Residue) -> Option<u8> {
    let name = residue
        .name()
        .or_else(|| residue.conformers().next().map(pdbtbx::Conformer::name))?;
    let letter = match name {
        "ALA" => b'A',
        "ARG" => b'R',
        "ASN" => b'N',
        "ASP" => b'D',
        "CYS" | "CSO" | "CSD" | "OCS" | "CME" | "CYX" => b'C',
        "GLN" | "PCA" => b'Q',
        "GLU" | "CGU" => b'E',
        "GLY" => b'G',
        "HIS" | "HSD" | "HSE" | "HID" | "HIE" | "HIP" => b'H',
        "ILE" => b'I',
        "LEU" => b'L',
        "LYS" | "MLY" | "KCX" | "ALY" | "LLP" | "M3L" | "MLZ" => b'K',
        "MET" | "MSE" | "FME" => b'M',
        "PHE" => b'F',
        "PRO" | "HYP" => b'P',
        "SER" | "SEP" => b'S',
        "THR" | "TPO" => b'T',
        "TRP" => b'W',
        "TYR" | "PTR" | "TYS" => b'Y',
        "VAL" => b'V',
        "SEC" => b'U',
        "PYL" => b'O',
        _ => {
            let has = |wanted: &str| residue.atoms().any(|atom| atom.name() == wanted);
            return (has("N") && has("CA") && has("C")).then_some(b'X');
        }
    };
    Some(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chain A has five residues, of which 3 and 4 have no coordinates, with water and a second
    /// model; chain B is a ligand.
    const PDB: &str = "\
MODEL        1
ATOM      1  N   MET A   1       1.458   0.000   0.000  1.00  0.00           N
ATOM      2  CA  MET A   1       0.000   0.000   0.000  1.00  0.00           C
ATOM      3  C   MET A   1      -0.540   1.420   0.000  1.00  0.00           C
ATOM      4  CA AGLY A   2       3.800   0.000   0.000  0.60  0.00           C
ATOM      5  CA BGLY A   2       3.900   1.000   0.000  0.40  0.00           C
HETATM    6  CA  MSE A   5      12.000   0.000   0.000  1.00  0.00           C
HETATM    7  CB  MSE A   5      12.000   1.500   0.000  1.00  0.00           C
HETATM    8  O   HOH A 101      20.000   0.000   0.000  1.00  0.00           O
HETATM    9 CA    CA B   1      30.000   0.000   0.000  1.00  0.00          CA
ENDMDL
MODEL        2
ATOM      1  CA  MET A   1       9.000   9.000   9.000  1.00  0.00           C
ENDMDL
END
";

    const MMCIF: &str = "\
data_X
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
ATOM 1 N N . MET A 1 1 1.458 0.0 0.0 1.0 0.0 1 A 1
ATOM 2 C CA . MET A 1 1 0.0 0.0 0.0 1.0 0.0 1 A 1
ATOM 3 C C . MET A 1 1 -0.54 1.42 0.0 1.0 0.0 1 A 1
ATOM 4 C CA . GLY A 1 2 3.8 0.0 0.0 1.0 0.0 2 A 1
ATOM 5 C CA . MET A 1 5 12.0 0.0 0.0 1.0 0.0 5 A 1
ATOM 6 C CB . MET A 1 5 12.0 1.5 0.0 1.0 0.0 5 A 1
";

    fn read(name: &str, text: &str) -> Result<Vec<Chain>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_chains(&path).map_err(|error| error.to_string().rsplit('/').next().unwrap().to_owned())
    }

    #[test]
    fn both_formats_give_the_same_chain() {
        for (name, text) in [("1abc.pdb", PDB), ("1abc.cif", MMCIF)] {
            let chains = read(name, text).unwrap();
            assert_eq!(chains.len(), 1, "{name}: {chains:?}");
            let chain = &chains[0];
            assert_eq!((chain.id.as_str(), chain.name.as_str()), ("1abc_A", "A"));
            assert_eq!(chain.residues, b"MGXXM", "{name}");
            assert_eq!(chain.atoms[1].ca, Some([3.8, 0.0, 0.0]), "{name}");
            assert!(chain.atoms[2].is_empty() && chain.atoms[0].cb.is_none());
            assert_eq!(chain.atoms[4].cb, Some([12.0, 1.5, 0.0]));
        }
    }

    #[test]
    fn a_table_of_coordinates() {
        let line = r#"{"id":"a","seq":"MK","atom":"CB","xyz":[[1,2,3],null]}"#;
        let chains = read("t.jsonl", line).unwrap();
        assert_eq!(chains[0].residues, b"MK");
        assert_eq!(chains[0].atoms[0].cb, Some([1.0, 2.0, 3.0]));
        let error = read("t.jsonl", r#"{"id":"a","seq":"MKV","xyz":[null]}"#).unwrap_err();
        assert_eq!(error, "t.jsonl: line 1 (a): 3 residues, but 1 locations");
    }

    #[test]
    fn nothing_resolved_is_an_error() {
        let unseen = r#"{"id":"a","seq":"M","xyz":[null]}"#;
        for (name, text) in [("t.jsonl", unseen), ("e.pdb", "END\n"), ("e.pdb", "")] {
            let error = read(name, text).unwrap_err();
            assert!(
                error.contains("no protein chain") || error.contains("cannot be read"),
                "{error}"
            );
        }
    }
}
