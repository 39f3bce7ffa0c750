//! The residues of a chain as their atoms are listed.

use std::collections::HashMap;

use super::Atoms;

/// The atoms that are kept: N, C-alpha, C, C-beta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptAtom {
    N,
    Ca,
    C,
    Cb,
}

impl KeptAtom {
    /// The atom of this name, if it is kept.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "N" => Some(Self::N),
            "CA" => Some(Self::Ca),
            "C" => Some(Self::C),
            "CB" => Some(Self::Cb),
            _ => None,
        }
    }
}

/// The number of a residue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ResidueNumber {
    /// The position in the sequence of the polymer.
    Label(i64),
    /// The author's number with its insertion code, as the file has them.
    Author(String),
}

/// A row of the file: one atom.
#[derive(Clone, Debug)]
pub(super) struct AtomRow<'a> {
    pub(super) line: u64,
    pub(super) atom: KeptAtom,
    pub(super) position: [f32; 3],
    pub(super) occupancy: f32,
    /// Whether it is one of several alternative locations.
    pub(super) is_alternative: bool,
    /// The name of the residue.
    pub(super) name: &'a str,
    pub(super) number: ResidueNumber,
    /// The author's number without the insertion code; none where it cannot be read.
    pub(super) author: Option<i64>,
    /// Whether the row is not marked as one of a standard polymer (`HETATM`).
    pub(super) is_hetero: bool,
}

/// A residue of the file.
#[derive(Debug)]
pub(super) struct ObservedResidue {
    /// The line of the first atom.
    pub(super) line: u64,
    pub(super) number: ResidueNumber,
    pub(super) author: Option<i64>,
    pub(super) is_hetero: bool,
    /// The name that the atoms of highest occupancy have.
    pub(super) name: String,
    pub(super) atoms: Atoms,
}

impl ObservedResidue {
    /// Distance in Å between the C-alphas of two residues; infinite where one is missing.
    pub(super) fn distance(&self, other: &Self) -> f64 {
        let (Some(a), Some(b)) = (self.atoms.ca, other.atoms.ca) else {
            return f64::INFINITY;
        };
        let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    }
}

/// The atoms that a residue has under one name. Where a residue is a mixture of two amino acids, it
/// has two names.
#[derive(Debug)]
struct Version {
    name: String,
    /// Position and occupancy, in the order of [`KeptAtom`].
    atoms: [Option<([f32; 3], f32)>; 4],
}

impl Version {
    /// The occupancy of the C-alpha, or of the atom that is most often there.
    fn occupancy(&self) -> f32 {
        match self.atoms[KeptAtom::Ca as usize] {
            Some((_, occupancy)) => occupancy,
            None => self
                .atoms
                .iter()
                .flatten()
                .map(|atom| atom.1)
                .fold(0.0, f32::max),
        }
    }
}

/// A residue that is being read.
#[derive(Debug)]
struct Unfinished {
    line: u64,
    number: ResidueNumber,
    author: Option<i64>,
    is_hetero: bool,
    versions: Vec<Version>,
}

/// The residues of a chain in the order of the file.
#[derive(Debug, Default)]
pub(super) struct ChainResidues {
    all: Vec<Unfinished>,
    /// Where the residue of a number is in `all`; the last one, if the numbers start again.
    by_number: HashMap<ResidueNumber, usize>,
}

impl ChainResidues {
    /// Adds an atom. Of several locations, that of highest occupancy stays, or the first one.
    pub(super) fn add(&mut self, row: &AtomRow<'_>) {
        let known = self.by_number.get(&row.number).copied();
        let at = known
            .filter(|at| self.belongs(*at, row))
            .unwrap_or_else(|| {
                self.by_number.insert(row.number.clone(), self.all.len());
                self.all.push(Unfinished {
                    line: row.line,
                    number: row.number.clone(),
                    author: row.author,
                    is_hetero: row.is_hetero,
                    versions: Vec::new(),
                });
                self.all.len() - 1
            });
        let versions = &mut self.all[at].versions;
        let version = versions.iter().position(|version| version.name == row.name);
        let version = version.unwrap_or_else(|| {
            versions.push(Version {
                name: row.name.to_owned(),
                atoms: [None; 4],
            });
            versions.len() - 1
        });
        let slot = &mut versions[version].atoms[row.atom as usize];
        if slot.is_none_or(|(_, occupancy)| row.occupancy > occupancy) {
            *slot = Some((row.position, row.occupancy));
        }
    }

    /// Whether the numbers start again with this atom, as those of another molecule do: after 9999
    /// they may start again within one.
    pub(super) fn starts_again(&self, row: &AtomRow<'_>) -> bool {
        let known = self.by_number.get(&row.number);
        let last = self.all.last().and_then(|last| last.author);
        let is_lower = row
            .author
            .zip(last)
            .is_some_and(|(number, last)| number < last);
        is_lower && last < Some(9999) && known.is_some_and(|at| !self.belongs(*at, row))
    }

    /// Whether the atom is one of a known residue of the same number. Author numbers may occur
    /// twice: where they start again after 9999, or where all of them are the same.
    fn belongs(&self, at: usize, row: &AtomRow<'_>) -> bool {
        if row.is_alternative || matches!(row.number, ResidueNumber::Label(_)) {
            return true;
        }
        let versions = &self.all[at].versions;
        let version = versions.iter().find(|version| version.name == row.name);
        version.is_some_and(|version| {
            at + 1 == self.all.len() || version.atoms[row.atom as usize].is_none()
        })
    }

    /// The residues, each under the name that is most often there.
    pub(super) fn finish(self) -> Vec<ObservedResidue> {
        let finished = self.all.into_iter().map(|residue| {
            let mut versions = residue.versions.into_iter();
            let first = versions.next().expect("a residue is made for an atom");
            let best = versions.fold(first, |best, next| {
                if next.occupancy() > best.occupancy() {
                    next
                } else {
                    best
                }
            });
            let [n, ca, c, cb] = best.atoms.map(|atom| atom.map(|(position, _)| position));
            ObservedResidue {
                line: residue.line,
                number: residue.number,
                author: residue.author,
                is_hetero: residue.is_hetero,
                name: best.name,
                atoms: Atoms { n, ca, c, cb },
            }
        });
        finished.collect()
    }
}
