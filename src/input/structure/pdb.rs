//! Chains of PDB files: the records ATOM, HETATM, TER, SEQRES, MODRES, MODEL and ENDMDL.
//!
//! Only the columns that contacts need are read. TER ends a chain: what follows under the same name
//! is another chain if it consists of amino acids in ATOM records, and no part of a chain otherwise.
//! Numbers that start again begin another chain, too. The second chain called A is `A-2`.
//! A chain without a name is called A, the next one behind TER B, and so on.

use std::collections::{BTreeMap, HashMap};

use super::Chain;
use super::amino_acids;
use super::assembly::{self, Knowledge};
use super::observed::{AtomRow, ChainResidues, KeptAtom, ResidueNumber};
use super::text::{Fault, Text, coordinate};
use crate::shown::shown;

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
    residues: ChainResidues,
}

#[derive(Default)]
struct Entry {
    has_atoms: bool,
    parts: Vec<Part>,
    /// The part that a chain's name stands for; none behind TER.
    open: HashMap<String, Option<usize>>,
    /// The name of the chain that has the last atom.
    last: String,
    /// Ended chains that had no name.
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
        let part = if self.parts[part].residues.starts_again(&row) {
            self.nameless += usize::from(chain.is_empty());
            self.new_part(&chain)
        } else {
            part
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
        Some(self.new_part(chain))
    }

    /// Opens another part of a chain.
    fn new_part(&mut self, chain: &str) -> usize {
        let name = if chain.is_empty() {
            char::from(b'A' + (self.nameless % 26) as u8).to_string()
        } else {
            chain.to_owned()
        };
        self.parts.push(Part {
            chain: chain.to_owned(),
            name,
            residues: ChainResidues::default(),
        });
        let part = self.parts.len() - 1;
        self.open.insert(chain.to_owned(), Some(part));
        part
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
            let what = format!("a coordinate is `{}`, not a number", shown(found));
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
            let what = format!("the occupancy is `{}`, not a number", shown(found));
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

#[cfg(test)]
mod tests {
    use super::super::chains_in_tests;
    use super::*;

    /// A line with an atom: its name, location, residue, chain (two columns), number with insertion
    /// code, x and occupancy.
    fn line(record: &str, atom: &str, residue: &str, number: &str, x: f32, rest: &str) -> String {
        let (atom, alternative) = atom.split_once('/').unwrap_or((atom, " "));
        format!(
            "{record:<6}    1  {atom:<3}{alternative}{residue:<4}A{number:>5}   {x:8.3}   0.000   0.000{rest}\n"
        )
    }

    fn ca(residue: &str, number: &str, x: f32) -> String {
        line("ATOM", "CA", residue, &format!("{number} "), x, "  1.00")
    }

    fn ligand(residue: &str, number: &str, x: f32) -> String {
        let atom = |name: &str, x| line("HETATM", name, residue, &format!("{number} "), x, "");
        atom("N", x - 1.4) + &atom("CA", x) + &atom("C", x + 1.5)
    }

    fn read(content: &str) -> Result<Vec<Chain>, Fault> {
        chains(chains_in_tests::text(content)?, "s")
    }

    fn letters(content: &str) -> Vec<String> {
        chains_in_tests::letters(&read(content).unwrap())
    }

    fn problem(text: &str) -> String {
        format!("{:?}", read(text).unwrap_err())
    }

    const TER: &str = "TER\n";

    #[test]
    fn ligands_are_no_residues_before_and_behind_ter() {
        let protein = ca("MET", "1", 0.0) + &ca("LYS", "2", 3.8) + &ca("THR", "3", 7.6);
        for name in ["GLU", "SAM", "SAH"] {
            for ter in [TER, ""] {
                let text = protein.clone() + ter + &ligand(name, "301", 20.0);
                assert_eq!(letters(&text), ["A MKT"], "{name} {ter}");
            }
        }
        // A lone amino acid is no chain.
        assert_eq!(letters(&ligand("GLU", "1", 0.0)), [""; 0]);
        assert_eq!(letters(&ca("GLU", "1", 0.0)), [""; 0]);
    }

    #[test]
    fn modified_residues_inside_the_chain_are_residues() {
        let known = ca("MET", "1", 0.0) + &ligand("MSE", "2", 3.8) + &ligand("XYZ", "3", 7.6);
        // XYZ is bound to what belongs to the chain; at the end, too.
        assert_eq!(letters(&known), ["A MMX"]);
        let modres = "MODRES 1ABC XYZ A    3  TYR  SOMETHING\n";
        assert_eq!(letters(&(modres.to_owned() + &known)), ["A MMY"]);
        let far = ca("MET", "1", 0.0) + &ca("LYS", "2", 3.8) + &ligand("SEP", "9", 20.0);
        assert_eq!(letters(&far), ["A MKXXXXXXS"]);
    }

    #[test]
    fn seqres_says_what_is_missing() {
        let seqres = "SEQRES   1 A    9  GLY MET LYS THR ALA TYR ILE ALA LYS                          1ABC  90\nSEQRES   2 B    1  MET\n";
        let (first, second) = (
            ca("MET", "1", 0.0) + &ca("LYS", "2", 3.8),
            ca("ILE", "106", 20.0),
        );
        let text = seqres.to_owned() + &first + &second + &ca("ALA", "107", 23.8);
        assert_eq!(letters(&text), ["A GMKTAYIAK"]);
        let chain = &read(&text).unwrap()[0];
        let seen: Vec<usize> = (0..9).filter(|at| !chain.atoms[*at].is_empty()).collect();
        assert_eq!(seen, [1, 2, 6, 7]);
        // Another sequence does not count.
        let other = seqres.replace("MET LYS THR", "TRP TRP TRP") + &first + &ca("ILE", "5", 20.0);
        assert_eq!(letters(&other), ["A MKXXI"]);
    }

    #[test]
    fn gaps_by_author_numbers_need_a_broken_chain() {
        let start = ca("MET", "1", 0.0);
        assert_eq!(
            letters(&(start.clone() + &ca("LYS", "4", 12.0))),
            ["A MXXK"]
        );
        assert_eq!(letters(&(start.clone() + &ca("LYS", "4", 3.8))), ["A MK"]);
        assert_eq!(
            letters(&(start.clone() + &ca("LYS", "400", 12.0))),
            ["A MK"]
        );
        let inserted =
            ["52 ", "52A", "52B"].map(|number| line("ATOM", "CA", "SER", number, 3.8, ""));
        assert_eq!(letters(&(start + &inserted.concat())), ["A MSSS"]);
        let text = ca("MET", "****", 0.0) + &ca("LYS", "***1", 12.0);
        assert!(problem(&text).contains("line: 2"), "{}", problem(&text));
    }

    #[test]
    fn chains_end_at_ter_and_where_numbers_start_again() {
        let half = ca("MET", "1", 0.0) + &ca("LYS", "2", 3.8);
        assert_eq!(letters(&(half.clone() + TER + &half)), ["A MK", "A-2 MK"]);
        assert_eq!(letters(&(half.clone() + &half)), ["A MK", "A-2 MK"]);
        let nameless = (half.clone() + TER + &half + &half).replace(" A ", "   ");
        assert_eq!(letters(&nameless), ["A MK", "B MK", "C MK"]);
        let models = format!("MODEL 1\n{half}ENDMDL\nMODEL 2\n{half}{half}ENDMDL\n");
        assert_eq!(letters(&models), ["A MK"]);
        assert_eq!(letters(&(half.clone() + "END\n" + &half)), ["A MK"]);
        // After 9999 the same chain goes on.
        let wrapped =
            ca("MET", "0", -3.8) + &half + &ca("SER", "9999", 7.6) + &ca("THR", "0", 11.4);
        assert_eq!(letters(&wrapped), ["A MMKST"]);
    }

    #[test]
    fn the_location_of_highest_occupancy_counts() {
        let at = |atom: &str, x, rest: &str| line("ATOM", atom, "LYS", "2 ", x, rest);
        let start = ca("MET", "1", 0.0);
        let x = |text: &str| read(text).unwrap()[0].atoms[1].ca.unwrap()[0];
        let pair = |a: &str, b: &str| start.clone() + &at("CA/A", 1.0, a) + &at("CA/B", 2.0, b);
        assert_eq!(x(&pair("  0.20", "  0.80")), 2.0);
        assert_eq!(x(&pair("  0.80", "  0.20")), 1.0);
        assert_eq!(x(&pair("  0.50", "  0.50")), 1.0);
        assert!(problem(&pair("  0.50", "  0.x0")).contains("line: 3, column: Some(55)"));
        // A mixture of two amino acids has the name that is most often there.
        let mixed = start.clone()
            + &at("CA/A", 1.0, "  0.30")
            + &at("CA/B", 2.0, "  0.70").replace("LYS", "ARG");
        assert_eq!(letters(&mixed), ["A MR"]);
        assert_eq!(x(&mixed), 2.0);
    }

    #[test]
    fn columns_that_do_not_matter_are_not_read() {
        let end = "  1.00 20.00           C+1\n";
        let odd =
            (ca("MET", "9999", 0.0) + &ca("LYS", "A000", 3.8)).replace("    1  CA", "*****  CA");
        assert_eq!(letters(&odd.replace('\n', end)), ["A MK"]);
        let short: Vec<&str> = odd.lines().map(|line| &line[..54]).collect();
        assert_eq!(letters(&short.join("\r\n")), ["A MK"]);
        let error = problem(&short.join("\n")[..108]);
        assert!(
            error.contains("line: 2") && error.contains("has 53"),
            "{error}"
        );
        let error = problem(&odd.replace("3.800", "3.8x0"));
        assert!(
            error.contains("line: 2, column: Some(31)") && error.contains("3.8x0"),
            "{error}"
        );
        assert!(problem(&odd.replace("  3.800", "    nan")).contains("nan"));
        let long = ca("MET", "1", 0.0) + &ca("HISD", "2", 3.8) + &ca("LYSH", "3", 7.6);
        assert_eq!(letters(&long), ["A MHK"]);
        let wide = long
            .replace("HISD", "HIS ")
            .replace("LYSH", "LYS ")
            .replace(" A ", "HA ");
        assert_eq!(letters(&wide), ["HA MHK"]);
    }

    #[test]
    fn numbers_above_9999() {
        for (text, number) in [
            ("-12", Some(-12)),
            ("9999", Some(9999)),
            ("A000", Some(10_000)),
            ("A00J", Some(10_019)),
            ("ZZZZ", Some(1_223_055)),
            ("a000", Some(1_223_056)),
            ("zzzz", Some(2_436_111)),
            ("A0", None),
            ("Aa00", None),
            ("1A00", None),
            ("", None),
        ] {
            assert_eq!(hybrid36(text), number, "{text}");
        }
    }
}
