//! Variants in the usual notation: `A24G`, or with several substitutions `A24G:H30L`. Positions
//! count from 1.

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
pub enum VariantError {
    /// The text does not have the form `A24G`.
    #[error(
        "`{0}` is not a substitution; write the residue, its position from 1 and the new residue, such as A24G, and several as A24G:H30L"
    )]
    Form(String),
    /// A letter that is not one of the 20.
    #[error("`{0}` names `{1}`, which is not one of the 20 standard residues")]
    NotStandard(String, char),
    /// Two substitutions of one position.
    #[error("`{0}` changes position {1} twice")]
    Twice(String, usize),
    /// Beyond the protein's end.
    #[error("{substitution}: there is no position {}, the sequence has {length} residues", .substitution.position)]
    Beyond {
        /// The substitution.
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
        /// The substitution.
        substitution: Substitution,
        /// The residue of the protein.
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

impl FromStr for Substitution {
    type Err = VariantError;

    fn from_str(text: &str) -> Result<Self, VariantError> {
        let form = || VariantError::Form(text.to_owned());
        let bytes = text.as_bytes();
        let [wild_type, digits @ .., mutant] = bytes else {
            return Err(form());
        };
        let position = std::str::from_utf8(digits).ok();
        let position = position
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|position| *position > 0)
            .ok_or_else(form)?;
        let residue = |byte: u8| {
            let letter = byte.to_ascii_uppercase();
            match letter {
                _ if STANDARD.contains(&letter) => Ok(letter),
                b'A'..=b'Z' => Err(VariantError::NotStandard(
                    text.to_owned(),
                    char::from(letter),
                )),
                _ => Err(form()),
            }
        };
        Ok(Self {
            wild_type: residue(*wild_type)?,
            position,
            mutant: residue(*mutant)?,
        })
    }
}

impl FromStr for Variant {
    type Err = VariantError;

    fn from_str(text: &str) -> Result<Self, VariantError> {
        let mut substitutions: Vec<Substitution> = text
            .trim()
            .split(':')
            .map(|part| part.trim().parse())
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
            "A24G,H30L",
            "é2A",
        ] {
            assert!(error(bad).contains("is not a substitution"), "{bad}");
        }
        assert!(error("A24X").contains("`X`"));
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
