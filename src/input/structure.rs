//! Chains of known structures: PDB and mmCIF files, and tables of coordinates.
//!
//! Chains are those of amino acids in the first model. Of alternative locations of an atom, that of
//! highest occupancy counts. Residues without coordinates are part of a chain, so that separations
//! are correct: where the file gives the whole sequence (SEQRES, `_entity_poly_seq`) they have their
//! letters, otherwise those that the numbers say are missing are `X`. A table of coordinates has
//! JSON lines `{"id", "seq", "xyz": [[x, y, z] or null, …]}` with one location per residue.

mod amino_acids;
mod assembly;
mod atom_site;
#[cfg(test)]
mod chains_in_tests;
mod cif;
mod coordinate_table;
mod mmcif;
mod observed;
mod pdb;
mod placement;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::text::{Fault, Text};
use crate::io::stdio;

/// Why a structure cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum StructureError {
    /// The file cannot be opened or read.
    #[error("{} cannot be read", .path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A place in the file is wrong.
    #[error("{}, line {line}{}: {what}", .path.display(), of_column(*.column))]
    Place {
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// Number of the byte in the line, from 1; none where the whole line is wrong.
        column: Option<usize>,
        /// The problem, and the way out.
        what: String,
    },
    /// The file has no usable chain.
    #[error("{}: {what}", .path.display())]
    Invalid {
        path: PathBuf,
        /// The problem, and the way out.
        what: String,
    },
}

fn of_column(column: Option<usize>) -> String {
    column.map_or_else(String::new, |column| format!(", column {column}"))
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
    let none = "no protein chain with coordinates; is it a PDB or mmCIF file, or a table of coordinates in JSON lines?";
    let path = path.to_owned();
    match chains(&path) {
        Ok(chains) if chains.is_empty() => Err(StructureError::Invalid {
            path,
            what: none.to_owned(),
        }),
        Ok(chains) => Ok(chains),
        Err(Fault::Io(source)) => Err(StructureError::Io { path, source }),
        Err(Fault::At { line, column, what }) => Err(StructureError::Place {
            path,
            line,
            column,
            what,
        }),
        Err(Fault::File(what)) => Err(StructureError::Invalid { path, what }),
    }
}

fn chains(path: &Path) -> Result<Vec<Chain>, Fault> {
    let text = Text::begin(stdio::open(path)?)?;
    let first = text.line.trim_ascii();
    let is_cif = first
        .get(..5)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"data_"));
    if first.starts_with(b"{") {
        coordinate_table::chains(text)
    } else if is_cif {
        mmcif::chains(text, &stem(path))
    } else {
        pdb::chains(text, &stem(path))
    }
}

/// The name of a file without the extensions of formats, with which ids of chains begin.
fn stem(path: &Path) -> String {
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
    stem
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
        assert_eq!(error, "t.jsonl, line 1: `a`: 3 residues, but 1 locations");
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
