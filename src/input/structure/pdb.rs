//! Chains of PDB files: the records ATOM, HETATM, TER, SEQRES, MODRES, MODEL and ENDMDL.
//!
//! Only the columns that contacts need are read. TER ends a chain: what follows under the same name
//! is another chain if it consists of amino acids in ATOM records, and no part of a chain otherwise.
//! A chain without a name is called A, the next one behind TER B, and so on.

use std::collections::{BTreeMap, HashMap};

use super::Chain;
use super::amino_acids;
use super::assembly::{self, Knowledge};
use super::observed::{AtomRow, KeptAtom, ResidueNumber, Residues};
use super::text::{Fault, Text, coordinate, shown};

/// Columns up to the end of the coordinates.
const LEAST_COLUMNS: usize = 54;

/// The protein chains of the first model.
pub(super) fn chains(mut text: Text, stem: &str) -> Result<Vec<Chain>, Fault> {
    let mut entry = Entry::default();
    loop {
        let record = text
            .line
            .get(..6)
            .unwrap_or(&text.line)
            .to_ascii_uppercase();
        match record.trim_ascii_end() {
            [b'A', b'T', b'O', b'M', ..] => entry.atom(&text, false)?,
            [b'H', b'E', b'T', b'A', ..] => entry.atom(&text, true)?,
            b"TER" => entry.end_chain(),
            b"SEQRES" => entry.sequence(&text.line),
            b"MODRES" => entry.modification(&text.line),
            b"MODEL" | b"ENDMDL" | b"END" if entry.has_atoms => break,
            _ => {}
        }
        if !text.advance()? {
            break;
        }
    }
    entry.finish(stem)
}

/// The characters of some columns, counted from 1, without blanks around them.
fn columns(line: &[u8], first: usize, last: usize) -> &str {
    let end = last.min(line.len());
    let bytes = line.get(first - 1..end).unwrap_or_default().trim_ascii();
    // A column that holds other characters than ASCII matches nothing that is looked for.
    std::str::from_utf8(bytes).unwrap_or("\u{fffd}")
}

/// A chain, or the part of one before or behind TER.
struct Part {
    /// The chain's name in the file.
    chain: String,
    /// The chain's name for users.
    name: String,
    residues: Residues,
}

#[derive(Default)]
struct Entry {
    has_atoms: bool,
    parts: Vec<Part>,
    /// The part that a chain's name stands for; none behind TER.
    open: HashMap<String, Option<usize>>,
    /// The name of the chain that has the last atom.
    last: String,
    /// Chains without a name that have ended.
    nameless: usize,
    /// Whether chains have names of two characters, from column 21 on.
    has_wide_names: bool,
    sequences: HashMap<String, Vec<String>>,
    parents: HashMap<String, String>,
}

impl Entry {
    fn atom(&mut self, text: &Text, is_hetero: bool) -> Result<(), Fault> {
        let line = &text.line;
        self.has_atoms = true;
        let (name, chain) = self.residue(line);
        self.last.clone_from(&chain);
        let Some(atom) = KeptAtom::of(columns(line, 13, 16)) else {
            return Ok(());
        };
        let Some(part) = self.part(&chain, is_hetero) else {
            return Ok(());
        };
        let is_alternative = !columns(line, 17, 17).is_empty();
        let row = AtomRow {
            line: text.number(),
            atom,
            position: position(text)?,
            occupancy: occupancy(text, is_alternative)?,
            is_alternative,
            name: &name,
            number: ResidueNumber::Author(columns(line, 23, 27).to_owned()),
            author: number(line),
            is_hetero,
        };
        self.parts[part].residues.add(&row);
        Ok(())
    }

    /// The names of the residue and the chain. Column 21 belongs to a name of four letters, or to a
    /// chain of two, both of which extend the format.
    fn residue(&mut self, line: &[u8]) -> (String, String) {
        let [three, four] = [columns(line, 18, 20), columns(line, 18, 21)];
        let [one, two] = [columns(line, 22, 22), columns(line, 21, 22)];
        let is_longer = three.len() < four.len();
        let is_name = amino_acids::standard(four).is_some();
        let is_three = amino_acids::standard(three).is_some();
        self.has_wide_names |= is_longer && is_three && !is_name && !one.is_empty();
        if is_longer && (self.has_wide_names || (!is_name && !one.is_empty())) {
            (three.to_owned(), two.to_owned())
        } else {
            (four.to_owned(), one.to_owned())
        }
    }

    /// The part of a chain that a row belongs to; none for a `HETATM` behind TER.
    fn part(&mut self, chain: &str, is_hetero: bool) -> Option<usize> {
        match self.open.get(chain) {
            Some(Some(part)) => return Some(*part),
            Some(None) if is_hetero => return None,
            _ => {}
        }
        let name = if chain.is_empty() {
            char::from(b'A' + (self.nameless % 26) as u8).to_string()
        } else {
            chain.to_owned()
        };
        self.parts.push(Part {
            chain: chain.to_owned(),
            name,
            residues: Residues::default(),
        });
        let part = self.parts.len() - 1;
        self.open.insert(chain.to_owned(), Some(part));
        Some(part)
    }

    /// TER: the chain of the last atom ends.
    fn end_chain(&mut self) {
        if self.has_atoms {
            self.nameless += usize::from(self.last.is_empty());
            self.open.insert(self.last.clone(), None);
        }
    }

    /// SEQRES: up to 13 residues of a chain.
    fn sequence(&mut self, line: &[u8]) {
        let names = columns(line, 20, 70).split_ascii_whitespace();
        let chain = columns(line, 11, 12).to_owned();
        self.sequences
            .entry(chain)
            .or_default()
            .extend(names.map(str::to_owned));
    }

    /// MODRES: a modified residue and the one that it was made from.
    fn modification(&mut self, line: &[u8]) {
        let names = [columns(line, 13, 15), columns(line, 25, 27)].map(str::to_owned);
        let [modified, parent] = names;
        self.parents.insert(modified, parent);
    }

    fn finish(self, stem: &str) -> Result<Vec<Chain>, Fault> {
        let mut chains: Vec<Chain> = Vec::new();
        let mut times: HashMap<String, usize> = HashMap::new();
        for part in self.parts {
            let sequence = self
                .sequences
                .get(&part.chain)
                .into_iter()
                .flatten()
                .cloned();
            let knowledge = Knowledge {
                parents: Some(&self.parents),
                sequence: (1..).zip(sequence).collect::<BTreeMap<_, _>>(),
                is_polypeptide: false,
            };
            let residues = part.residues.finish();
            let Some(mut chain) = assembly::chain(stem, &part.name, residues, &knowledge)? else {
                continue;
            };
            let times = times.entry(part.name).or_default();
            *times += 1;
            if *times > 1 {
                chain.name = format!("{}-{times}", chain.name);
                chain.id = format!("{stem}_{}", chain.name);
            }
            chains.push(chain);
        }
        Ok(chains)
    }
}

/// The coordinates of an atom.
fn position(text: &Text) -> Result<[f32; 3], Fault> {
    if text.line.len() < LEAST_COLUMNS {
        let what = format!(
            "an atom's coordinates end in column {LEAST_COLUMNS}, but the line has {}; is the file complete?",
            text.line.len()
        );
        return Err(Fault::line(text.number(), what));
    }
    let mut position = [0.0; 3];
    for (axis, value) in position.iter_mut().enumerate() {
        let first = 31 + 8 * axis;
        let found = columns(&text.line, first, first + 7);
        *value = coordinate(found).ok_or_else(|| {
            let what = format!("a coordinate is {}, not a number", shown(found));
            Fault::at(text.number(), first, what)
        })?;
    }
    Ok(position)
}

/// The occupancy, 1 where it is left out; it must be a number only where it decides.
fn occupancy(text: &Text, is_alternative: bool) -> Result<f32, Fault> {
    let found = columns(&text.line, 55, 60);
    match coordinate(found) {
        Some(occupancy) => Ok(occupancy),
        None if is_alternative && !found.is_empty() => {
            let what = format!("the occupancy is {}, not a number", shown(found));
            Err(Fault::at(text.number(), 55, what))
        }
        None => Ok(1.0),
    }
}

/// A residue's number; a digit in the column of the insertion code is the fifth one of a long number.
fn number(line: &[u8]) -> Option<i64> {
    let last = if line.get(26).is_some_and(u8::is_ascii_digit) {
        27
    } else {
        26
    };
    hybrid36(columns(line, 23, last))
}

/// A number of up to four characters, of which those above 9999 are in hybrid-36
/// (<https://cci.lbl.gov/hybrid_36>); none for anything else.
fn hybrid36(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let is_upper = bytes.first()?.is_ascii_uppercase();
    if !bytes[0].is_ascii_alphabetic() {
        return text.parse().ok();
    }
    let is_other_case =
        |byte: &u8| byte.is_ascii_alphabetic() && byte.is_ascii_uppercase() != is_upper;
    if bytes.len() != 4 || bytes.iter().any(is_other_case) {
        return None;
    }
    let value = i64::from_str_radix(text, 36).ok()?;
    let first = 10 * 36i64.pow(3);
    let lower = if is_upper { 0 } else { 26 * 36i64.pow(3) };
    Some(value - first + lower + 10_000)
}
