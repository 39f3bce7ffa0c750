//! Chains of mmCIF files: the loop `_atom_site` and the sequences of polymers.
//!
//! Where a file has both, the numbering of the polymer (`label_seq_id`) counts and not that of the
//! authors, and atoms without such a number (ligands, water) are no residues. Other programs leave
//! out items, so the author's names and numbers stand in for missing ones.

use std::collections::{BTreeMap, HashMap};

use super::Chain;
use super::assembly::{self, Knowledge};
use super::atom_site::{Columns, column, integer, kept, known};
use super::cif::{Cif, CifRow, Value};
use super::observed::{ChainResidues, KeptAtom, ObservedResidue, ResidueNumber};
use super::text::{Fault, Text};

/// The categories that are read.
const CATEGORIES: &[&str] = &[
    "_atom_site",
    "_entity_poly",
    "_entity_poly_seq",
    "_pdbx_poly_seq_scheme",
    "_pdbx_struct_mod_residue",
    "_struct_asym",
];

/// The protein chains of the first data block with atoms.
pub(super) fn chains(text: Text, stem: &str) -> Result<Vec<Chain>, Fault> {
    let mut cif = Cif::new(text, CATEGORIES)?;
    loop {
        let mut entry = Entry::default();
        if !cif.block(&mut |row| entry.take(row))? {
            return Err(Fault::File(
                "no loop _atom_site, which holds the atoms of an mmCIF file".to_owned(),
            ));
        }
        if entry.columns.is_some() {
            return entry.finish(stem);
        }
    }
}

/// A chain that is being read.
struct AsymUnit {
    /// The author's name.
    name: String,
    /// The name in the polymer's terms, or the author's.
    label: String,
    entity: Option<String>,
    residues: ChainResidues,
}

/// The sequence of a polymer: names by number.
type Sequence = BTreeMap<i64, String>;

/// What a data block says.
#[derive(Default)]
struct Entry {
    columns: Option<Columns>,
    model: Option<String>,
    /// Whether any atom has a number in a polymer.
    has_labels: bool,
    units: Vec<AsymUnit>,
    by_label: HashMap<String, usize>,
    /// The types of polymers by entity.
    polymers: HashMap<String, String>,
    by_entity: HashMap<String, Sequence>,
    by_asym: HashMap<String, Sequence>,
    entities: HashMap<String, String>,
    parents: HashMap<String, String>,
}

impl Entry {
    fn take(&mut self, row: &CifRow<'_>) -> Result<(), Fault> {
        let text = |item: &str| row.get(item).and_then(Value::known).map(str::to_owned);
        let pair = |a: &str, b: &str| text(a).zip(text(b));
        match row.category {
            "_atom_site" => return self.atom(row),
            "_entity_poly" => self.polymers.extend(pair("entity_id", "type")),
            "_struct_asym" => self.entities.extend(pair("id", "entity_id")),
            "_pdbx_struct_mod_residue" => {
                self.parents.extend(pair("label_comp_id", "parent_comp_id"));
            }
            "_entity_poly_seq" => {
                let number = integer(row, column(row, "num"), "_entity_poly_seq.num")?;
                residue(
                    &mut self.by_entity,
                    text("entity_id"),
                    number,
                    text("mon_id"),
                );
            }
            _ => {
                let name = "_pdbx_poly_seq_scheme.seq_id";
                let number = integer(row, column(row, "seq_id"), name)?;
                residue(&mut self.by_asym, text("asym_id"), number, text("mon_id"));
            }
        }
        Ok(())
    }

    fn atom(&mut self, row: &CifRow<'_>) -> Result<(), Fault> {
        if row.is_first {
            self.columns = Some(Columns::find(row)?);
        }
        let columns = self
            .columns
            .as_ref()
            .expect("the first row of the loop sets it");
        let model = known(row, columns.model).unwrap_or_default();
        if self.model.get_or_insert_with(|| model.to_owned()) != model {
            return Ok(());
        }
        self.has_labels |= known(row, columns.number.label).is_some();
        let atom = columns.atom.label_first(row).and_then(KeptAtom::of);
        let (Some(atom), Some(name)) = (atom, columns.component.label_first(row)) else {
            return Ok(());
        };
        let Some(atom) = kept(row, columns, atom, name)? else {
            return Ok(());
        };
        let label = columns.asym.label_first(row).unwrap_or_default();
        let at = self.by_label.get(label).copied().unwrap_or_else(|| {
            let unit = AsymUnit {
                name: columns
                    .asym
                    .author_first(row)
                    .unwrap_or_default()
                    .to_owned(),
                label: label.to_owned(),
                entity: known(row, columns.entity).map(str::to_owned),
                residues: ChainResidues::default(),
            };
            self.by_label.insert(label.to_owned(), self.units.len());
            self.units.push(unit);
            self.units.len() - 1
        });
        self.units[at].residues.add(&atom);
        Ok(())
    }

    fn finish(mut self, stem: &str) -> Result<Vec<Chain>, Fault> {
        let names: Vec<String> = self.units.iter().map(|unit| unit.name.clone()).collect();
        let mut chains: Vec<(Chain, String)> = Vec::new();
        for (unit, name) in std::mem::take(&mut self.units).into_iter().zip(names) {
            let label = unit.label.clone();
            if let Some(chain) = self.chain(stem, &name, unit)? {
                chains.push((chain, label));
            }
        }
        // Two polymers of one author's chain go by their own names.
        let shared: Vec<bool> = chains
            .iter()
            .map(|(chain, _)| {
                chains
                    .iter()
                    .filter(|(other, _)| other.name == chain.name)
                    .count()
                    > 1
            })
            .collect();
        for ((chain, label), is_shared) in chains.iter_mut().zip(shared) {
            if is_shared {
                chain.id = format!("{stem}_{label}");
                chain.name.clone_from(label);
            }
        }
        Ok(chains.into_iter().map(|(chain, _)| chain).collect())
    }

    /// The chain of a unit; none where it is no protein.
    fn chain(&mut self, stem: &str, name: &str, unit: AsymUnit) -> Result<Option<Chain>, Fault> {
        let entity = unit
            .entity
            .or_else(|| self.entities.get(&unit.label).cloned());
        let kind = entity.as_ref().and_then(|entity| self.polymers.get(entity));
        let kind = kind.map(|kind| kind.to_ascii_lowercase());
        let is_peptide = |kind: &String| kind.contains("peptid") && !kind.contains("nucleic");
        let has_other = |kind: &String| kind != "other" && !is_peptide(kind);
        if kind.as_ref().is_some_and(has_other) {
            return Ok(None);
        }
        let sequence = self.by_asym.remove(&unit.label);
        let sequence = sequence.or_else(|| self.by_entity.get(&entity?).cloned());
        let mut residues: Vec<ObservedResidue> = unit.residues.finish();
        if self.has_labels {
            residues.retain(|residue| matches!(residue.number, ResidueNumber::Label(_)));
        }
        let knowledge = Knowledge {
            parents: Some(&self.parents),
            sequence: sequence.unwrap_or_default(),
            is_polypeptide: self.has_labels && kind.as_ref().is_some_and(is_peptide),
        };
        assembly::chain(stem, name, residues, &knowledge)
    }
}

/// Adds a residue to a sequence; of several names for one number the first stays.
fn residue(
    sequences: &mut HashMap<String, Sequence>,
    of: Option<String>,
    number: Option<i64>,
    name: Option<String>,
) {
    if let (Some(of), Some(number), Some(name)) = (of, number, name) {
        sequences
            .entry(of)
            .or_default()
            .entry(number)
            .or_insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::chains_in_tests;
    use super::*;

    const HEADER: &str = "data_x\nloop_\n_atom_site.group_PDB\n_atom_site.label_atom_id\n_atom_site.label_comp_id\n_atom_site.label_asym_id\n_atom_site.label_seq_id\n_atom_site.auth_seq_id\n_atom_site.auth_asym_id\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n";

    /// Rows of C-alphas in line: group, residue, chain, number in the polymer, author's number, x.
    fn rows(rows: &[(&str, &str, &str, &str, &str, f32)]) -> String {
        let row =
            |(group, residue, asym, label, author, x): &(&str, &str, &str, &str, &str, f32)| {
                let (name, _) = asym.split_once('=').unwrap_or((asym, ""));
                let author_name = asym.split_once('=').map_or(*asym, |(_, author)| author);
                let atom = |atom: &str, x: f32| {
                    format!(
                        "{group} {atom} {residue} {name} {label} {author} {author_name} {x} 0 0\n"
                    )
                };
                atom("N", x - 1.4) + &atom("CA", *x) + &atom("C", x + 1.5)
            };
        HEADER.to_owned() + &rows.iter().map(row).collect::<String>()
    }

    fn read(content: &str) -> Result<Vec<Chain>, Fault> {
        chains(chains_in_tests::text(content)?, "s")
    }

    fn letters(content: &str) -> Vec<String> {
        chains_in_tests::letters(&read(content).unwrap())
    }

    /// Three residues, of which the last follows four missing ones, and three ligands.
    fn entry() -> String {
        rows(&[
            ("ATOM", "MET", "A=H", "2", "102", 0.0),
            ("HETATM", "MSE", "A=H", "3", "103", 3.8),
            ("ATOM", "THR", "A=H", "8", "903", 30.0),
            ("HETATM", "GLU", "B=H", ".", "1001", 33.8),
            ("HETATM", "SAM", "A=H", "?", "104", 7.6),
            ("HETATM", "HOH", "C=H", ".", "1003", 3.8),
        ])
    }

    const SEQUENCE: &str = "loop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n_entity_poly_seq.hetero\n1 1 GLY n\n1 2 MET n\n1 3 MSE y\n1 3 MET y\n1 4 ALA n\n1 5 'ALA' n\n1 6 TRP n\n1 7 TRP n\n1 8 THR n\n1 9 NH2 n\n_struct_asym.id A\n_struct_asym.entity_id 1\n";

    #[test]
    fn numbers_of_the_polymer_count() {
        assert_eq!(letters(&entry()), ["H MMXXXXT"]);
        assert_eq!(letters(&(entry() + SEQUENCE)), ["H GMMAAWWT"]);
        let scheme = SEQUENCE
            .replace("_entity_poly_seq.num", "_pdbx_poly_seq_scheme.seq_id")
            .replace(
                "_entity_poly_seq.entity_id",
                "_pdbx_poly_seq_scheme.asym_id",
            )
            .replace("_entity_poly_seq", "_pdbx_poly_seq_scheme")
            .replace("\n1 ", "\nA ");
        assert_eq!(letters(&(entry() + &scheme)), ["H GMMAAWWT"]);
        let poly =
            |kind: &str| entry() + SEQUENCE + "_entity_poly.entity_id 1\n_entity_poly.type " + kind;
        assert_eq!(letters(&poly("'polypeptide(L)'")), ["H GMMAAWWT"]);
        assert_eq!(letters(&poly("polydeoxyribonucleotide")), [""; 0]);
    }

    #[test]
    fn numbers_that_may_be_the_authors_need_a_broken_chain() {
        let same = |x| {
            rows(&[
                ("ATOM", "MET", "A", "2", "2", 0.0),
                ("ATOM", "LYS", "A", "300", "300", x),
            ])
        };
        assert_eq!(letters(&same(3.8)), ["A MK"]);
        assert_eq!(letters(&same(12.0))[0].len(), 2 + 299);
        let other = same(3.8).replace(" 2 2 ", " 2 7 ");
        assert_eq!(letters(&other)[0].len(), 2 + 299);
        let far = same(12.0).replace("300", "9000000000000000000");
        assert!(
            format!("{:?}", read(&far)).contains("line: 16"),
            "{:?}",
            read(&far)
        );
    }

    #[test]
    fn items_may_be_missing_or_in_lower_case() {
        let text = entry()
            .replace("_atom_site.", "_ATOM_SITE.")
            .replace("Cartn", "cartn");
        assert_eq!(letters(&text), ["H MMXXXXT"]);
        let unlabelled = rows(&[
            ("ATOM", "MET", "A", "?", "1", 0.0),
            ("ATOM", "LYS", "A", ".", "4", 12.0),
            ("HETATM", "GLU", "A", ".", "900", 40.0),
        ]);
        assert_eq!(letters(&unlabelled), ["A MXXK"]);
        for (item, found) in [
            ("label_asym_id", "H MMXXXXT"),
            ("label_seq_id", "H MMT"),
            ("auth_seq_id", "H MMXXXXT"),
            ("group_PDB", "H MMXXXXT"),
        ] {
            let renamed = entry().replace(&format!("_atom_site.{item}"), "_atom_site.unknown");
            assert_eq!(letters(&renamed), [found], "{item}");
        }
        for (item, what) in [
            ("Cartn_y", "no cartn_y"),
            ("label_atom_id", "neither label_atom_id nor auth_atom_id"),
            ("label_comp_id", "neither label_comp_id nor auth_comp_id"),
        ] {
            let text = entry().replace(&format!("_atom_site.{item}"), "_atom_site.unknown");
            let error = format!("{:?}", read(&text).unwrap_err());
            assert!(
                error.contains(what) && error.contains("line: 13"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_named_with_its_place() {
        for (from, to, what) in [
            (" 3.8 0 0", " 3.8 x 0", "line: 17, column: Some(29)"),
            (" 3.8 0 0", " 3.8 NaN 0", "NaN"),
            (" A 3 103", " A three 103", "label_seq_id is `three`"),
        ] {
            let error = format!("{:?}", read(&entry().replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(what), "{what}: {error}");
        }
        let cut = entry();
        let error = format!("{:?}", read(&cut[..cut.len() - 3]).unwrap_err());
        assert!(error.contains("9 values for 10 items"), "{error}");
        let standard_uncertainty = entry().replace(" 3.8 0 0", " 3.8(12) 0 0");
        assert_eq!(letters(&standard_uncertainty), ["H MMXXXXT"]);
        let fault = read("data_x\n_cell.length_a 1\n").unwrap_err();
        assert!(format!("{fault:?}").contains("_atom_site"));
    }

    #[test]
    fn polymers_of_one_author_chain_go_by_their_own_names() {
        let chain = |asym: &'static str| {
            [
                ("ATOM", "MET", asym, "1", "1", 0.0),
                ("ATOM", "LYS", asym, "2", "2", 3.8),
            ]
        };
        let both = [chain("A=H"), chain("B=H")].concat();
        assert_eq!(letters(&rows(&both)), ["A MK", "B MK"]);
    }
}
