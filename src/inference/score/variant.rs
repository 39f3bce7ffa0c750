//! Variants in the usual notations: `A24G`, or with several substitutions `A24G:H30L`; also as the
//! HGVS writes them, `p.Ala24Gly`, `p.(Ala24Gly)` and `p.[Ala24Gly;His30Leu]`
//! (<https://hgvs-nomenclature.org>). Positions count from 1.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::inference::residues::STANDARD;

/// The replacement of one residue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Substitution {
    /// The residue that the protein has.
    pub wild_type: u8,
    /// The position, from 1.
    pub position: usize,
    /// The new residue.
    pub mutant: u8,
}

/// Simultaneous substitutions, by ascending position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    substitutions: Vec<Substitution>,
}

/// Why a variant cannot be scored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum VariantError {
    /// The text does not have the form `A24G`.
    #[error(
        "`{0}` is not a substitution; write the residue, its position from 1 and the new residue, such as A24G, and several as A24G:H30L"
    )]
    Form(String),
    /// A notation of something else than a substitution.
    #[error("`{0}` is {1}, not a substitution")]
    OtherChange(String, &'static str),
    /// A protein before the variant.
    #[error(
        "`{0}` names its protein; write the protein into a column `id`, and the variant alone into a column `variant`"
    )]
    Named(String),
    /// A letter that is not one of the 20.
    #[error("`{0}` names `{1}`, which is not one of the 20 standard residues")]
    NotStandard(String, char),
    /// Two substitutions of one position.
    #[error("`{0}` changes position {1} twice")]
    Twice(String, usize),
    /// Beyond the protein's end.
    #[error("{substitution}: there is no position {}, the sequence has {length} residues", .substitution.position)]
    Beyond {
        substitution: Substitution,
        /// Residues of the protein.
        length: usize,
    },
    /// The protein has another residue there.
    #[error(
        "{substitution}: the sequence has {} at position {}, not {}; are the positions counted from 1, along this sequence?",
        char::from(*.found), .substitution.position, char::from(.substitution.wild_type)
    )]
    WildType {
        substitution: Substitution,
        found: u8,
    },
}

impl Variant {
    /// One substitution.
    pub fn single(substitution: Substitution) -> Self {
        Self {
            substitutions: vec![substitution],
        }
    }

    /// The substitutions, by ascending position.
    pub fn substitutions(&self) -> &[Substitution] {
        &self.substitutions
    }

    /// The mutant of a protein.
    ///
    /// # Errors
    /// A position beyond the end, or a residue that differs from the variant's wild type.
    pub fn apply(&self, residues: &[u8]) -> Result<Vec<u8>, VariantError> {
        self.replace(residues, |s| (s.wild_type, s.mutant))
    }

    /// The protein of which `mutant` is this variant.
    ///
    /// # Errors
    /// A position beyond the end, or a residue that differs from the variant's mutant residue.
    pub fn revert(&self, mutant: &[u8]) -> Result<Vec<u8>, VariantError> {
        self.replace(mutant, |s| (s.mutant, s.wild_type))
    }

    fn replace(
        &self,
        residues: &[u8],
        from_to: impl Fn(&Substitution) -> (u8, u8),
    ) -> Result<Vec<u8>, VariantError> {
        let mut replaced = residues.to_vec();
        for &substitution in &self.substitutions {
            let (from, to) = from_to(&substitution);
            let length = residues.len();
            let residue =
                replaced
                    .get_mut(substitution.position - 1)
                    .ok_or(VariantError::Beyond {
                        substitution,
                        length,
                    })?;
            if *residue != from {
                let (wild_type, mutant) = (from, to);
                return Err(VariantError::WildType {
                    substitution: Substitution {
                        wild_type,
                        mutant,
                        ..substitution
                    },
                    found: *residue,
                });
            }
            *residue = to;
        }
        Ok(replaced)
    }
}

/// The standard residues in three letters, in the order of [`STANDARD`].
const THREE_LETTERS: [&str; 20] = [
    "Ala", "Cys", "Asp", "Glu", "Phe", "Gly", "His", "Ile", "Lys", "Leu", "Met", "Asn", "Pro",
    "Gln", "Arg", "Ser", "Thr", "Val", "Trp", "Tyr",
];

/// Residues in three letters that are not among the 20, and their letters.
const OTHER_THREE_LETTERS: [(&str, char); 6] = [
    ("Asx", 'B'),
    ("Glx", 'Z'),
    ("Pyl", 'O'),
    ("Sec", 'U'),
    ("Xaa", 'X'),
    ("Xle", 'J'),
];

/// A residue in one letter or three.
fn residue(word: &str, text: &str) -> Result<u8, VariantError> {
    let form = || VariantError::Form(text.to_owned());
    let is_word = |three: &&str| three.eq_ignore_ascii_case(word);
    if let Some(place) = THREE_LETTERS.iter().position(is_word) {
        return Ok(STANDARD[place]);
    }
    let other = OTHER_THREE_LETTERS.iter().find(|(three, _)| is_word(three));
    let letter = match (other, word.as_bytes()) {
        (Some((_, letter)), _) => *letter as u8,
        (None, [letter]) => letter.to_ascii_uppercase(),
        _ => return Err(form()),
    };
    match letter {
        _ if STANDARD.contains(&letter) => Ok(letter),
        b'A'..=b'Z' => Err(VariantError::NotStandard(
            text.to_owned(),
            char::from(letter),
        )),
        _ => Err(form()),
    }
}

/// What a notation means that is no substitution; `after` is what follows the position.
fn other_change(text: &str, after: &str) -> Option<&'static str> {
    let after = after.to_ascii_lowercase();
    let has = |word| after.contains(word);
    if matches!(text.to_ascii_lowercase().as_str(), "=" | "wt" | "_wt") || after == "=" {
        return Some("no change");
    }
    if matches!(text, "?" | "0" | "0?") || after == "?" {
        return Some("an unknown change");
    }
    let changes = [
        ("fs", "a frameshift"),
        ("ext", "an extension"),
        ("delins", "a deletion with an insertion"),
        ("del", "a deletion"),
        ("dup", "a duplication"),
        ("ins", "an insertion"),
        ("ter", "a stop codon"),
        ("*", "a stop codon"),
    ];
    let found = changes.iter().find(|(word, _)| has(word));
    found.map(|(_, change)| *change)
}

impl FromStr for Substitution {
    type Err = VariantError;

    fn from_str(text: &str) -> Result<Self, VariantError> {
        let form = || VariantError::Form(text.to_owned());
        let (before, rest) = match text.find(|c: char| c.is_ascii_digit()) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let (digits, after) = rest.split_at(end.unwrap_or(rest.len()));
        if let Some(change) = other_change(text, after) {
            return Err(VariantError::OtherChange(text.to_owned(), change));
        }
        let position = digits.parse().ok().filter(|position| *position > 0);
        Ok(Self {
            position: position.ok_or_else(form)?,
            wild_type: residue(before, text)?,
            mutant: residue(after, text)?,
        })
    }
}

/// The text within a pair of brackets around all of it, or the text itself.
fn within(text: &str, open: char, close: char) -> &str {
    let inner = text.strip_prefix(open);
    let inner = inner.and_then(|inner| inner.strip_suffix(close));
    inner.unwrap_or(text)
}

/// The substitutions of a text: `A24G`, `A24G:H30L`, `p.Ala24Gly`, `p.[(Ala24Gly;His30Leu)]`.
fn parts(text: &str) -> Result<Vec<&str>, VariantError> {
    let other = |what| Err(VariantError::OtherChange(text.to_owned(), what));
    let is_nucleic = |prefix: &&str| text.starts_with(*prefix);
    if ["c.", "g.", "m.", "n.", "r."].iter().any(is_nucleic) {
        return other("a change of DNA or RNA");
    }
    if text.contains("];[") {
        return other("a pair of alleles");
    }
    if text.contains(":p.") && !text.starts_with("p.") {
        return Err(VariantError::Named(text.to_owned()));
    }
    let list = within(text.strip_prefix("p.").unwrap_or(text), '[', ']');
    let list = within(list, '(', ')');
    let part = |part| {
        let part = str::trim(part);
        within(part.strip_prefix("p.").unwrap_or(part), '(', ')')
    };
    Ok(list.split([':', ';', ',', '/', '+']).map(part).collect())
}

impl FromStr for Variant {
    type Err = VariantError;

    fn from_str(text: &str) -> Result<Self, VariantError> {
        let mut substitutions: Vec<Substitution> = parts(text.trim())?
            .into_iter()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        substitutions.sort_by_key(|substitution| substitution.position);
        let twice = substitutions
            .windows(2)
            .find(|pair| pair[0].position == pair[1].position);
        match twice {
            Some(pair) => Err(VariantError::Twice(text.to_owned(), pair[0].position)),
            None => Ok(Self { substitutions }),
        }
    }
}

impl fmt::Display for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wild_type, mutant) = (char::from(self.wild_type), char::from(self.mutant));
        write!(f, "{wild_type}{}{mutant}", self.position)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, substitution) in self.substitutions.iter().enumerate() {
            if number > 0 {
                f.write_str(":")?;
            }
            substitution.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Variant>().unwrap_err().to_string()
    }

    #[test]
    fn variants_are_parsed_and_shown() {
        for (text, shown) in [
            ("A24G", "A24G"),
            (" h30l:A24G ", "A24G:H30L"),
            ("K2K", "K2K"),
            ("p.K2A", "K2A"),
            ("p.Lys2Ala", "K2A"),
            ("p.(LYS2ala)", "K2A"),
            ("(K2A)", "K2A"),
            ("p.[Thr3Ser;Lys2Ala]", "K2A:T3S"),
            ("p.[(Lys2Ala;Thr3Ser)]", "K2A:T3S"),
            ("p.Lys2Ala:p.Thr3Ser", "K2A:T3S"),
            ("K2A,T3S", "K2A:T3S"),
            ("K2A/T3S", "K2A:T3S"),
            ("T3S + K2A", "K2A:T3S"),
            ("T3S; K2A", "K2A:T3S"),
        ] {
            assert_eq!(text.parse::<Variant>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "A",
            "AG",
            "A0G",
            "24",
            "A24",
            "24G",
            "A-1G",
            "A+1G",
            "A24G:",
            "A24G,,H30L",
            "A24G H30L",
            "é2A",
            "A2é",
            "Lyx2Ala",
            "KK2A",
            "p.",
            "p.[Lys2Ala",
            "A999999999999999999999G",
        ] {
            assert!(error(bad).contains("is not a substitution"), "{bad}");
        }
        assert!(error("A24X").contains("`X`"));
        assert!(error("p.Ala24Sec").contains("`U`"));
        for (other, what) in [
            ("p.Lys2=", "no change"),
            ("p.(=)", "no change"),
            ("WT", "no change"),
            ("p.Lys2del", "a deletion"),
            ("p.Lys2_Thr4del", "a deletion"),
            ("p.Lys2_Thr3delinsAlaSer", "a deletion with an insertion"),
            ("p.Lys2_Thr3insAla", "an insertion"),
            ("p.Lys2dup", "a duplication"),
            ("p.Lys2AlafsTer5", "a frameshift"),
            ("p.Lys2fs", "a frameshift"),
            ("p.Ter11LysextTer5", "an extension"),
            ("p.Lys2Ter", "a stop codon"),
            ("K2*", "a stop codon"),
            ("K2A:T3*", "a stop codon"),
            ("p.?", "an unknown change"),
            ("p.Met1?", "an unknown change"),
            ("p.0", "an unknown change"),
            ("c.76A>C", "a change of DNA or RNA"),
            ("p.[Lys2Ala];[Thr3Ser]", "a pair of alleles"),
            ("NP_000508.1:p.Lys2Ala", "names its protein"),
        ] {
            let error = error(other);
            assert!(error.contains(what), "{other}: {error}");
        }
        assert!(error("A2G:A2C").contains("position 2 twice"));
    }

    #[test]
    fn a_variant_is_checked_against_its_protein() {
        let variant: Variant = "M1K:Y4A".parse().unwrap();
        let mutant = variant.apply(b"MKAYV").unwrap();
        assert_eq!(mutant, b"KKAAV");
        assert_eq!(variant.revert(&mutant).unwrap(), b"MKAYV");
        let error = variant.apply(b"MKAKV").unwrap_err().to_string();
        assert!(
            error.starts_with("Y4A: the sequence has K at position 4, not Y"),
            "{error}"
        );
        let error = variant.apply(b"MKA").unwrap_err().to_string();
        assert!(
            error.contains("no position 4, the sequence has 3 residues"),
            "{error}"
        );
        let error = variant.revert(b"MKAYV").unwrap_err().to_string();
        assert!(error.contains("has M at position 1, not K"), "{error}");
    }
}
