//! The part of a record that is the prompt, and the number of residues to write.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Residues that `--length eos` writes at most: a model need never write `</s>`.
pub const MAX_NEW: usize = 1024;

/// The part of a record that is the prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PromptPart {
    /// A share of the residues between 0 and 1, rounded down.
    Share(f64),
    /// The first residues, by their number.
    First(usize),
    /// The whole record.
    All,
}

/// The length of prompt and completion together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetLength {
    /// As long as the record.
    Same,
    /// This number of residues.
    Exactly(usize),
    /// Until `</s>`, at most this number of residues.
    AtMost(usize),
    /// Until `</s>`, at most [`MAX_NEW`] new residues.
    Eos,
}

/// The rule by which every record is completed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromptRule {
    /// The part that is the prompt.
    pub keep: PromptPart,
    /// The length of prompt and completion.
    pub length: TargetLength,
    /// Residues of the whole before `</s>` may be written.
    pub min_length: usize,
}

/// The prompt and the lengths of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptPlan {
    /// Residues of the prompt.
    pub prompt: usize,
    /// Residues to write before `</s>` may be.
    pub min_new: usize,
    /// Residues to write at most.
    pub max_new: usize,
}

/// Why a record cannot be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PromptError {
    /// The prompt would be empty.
    #[error("--keep leaves no residue of {length} as the prompt; keep more")]
    EmptyPrompt {
        /// Residues of the record.
        length: usize,
    },
    /// The prompt would be longer than the record.
    #[error("--keep {keep} of a record of {length} residues; keep less, or all")]
    KeepsMore {
        /// Residues to keep.
        keep: usize,
        /// Residues of the record.
        length: usize,
    },
    /// The whole would not be longer than the prompt.
    #[error(
        "the prompt has {prompt} residues and the result must have {length}, so nothing is left to write; give a larger --length or a smaller --keep"
    )]
    NothingToWrite {
        /// Residues of the prompt.
        prompt: usize,
        /// Residues of the whole.
        length: usize,
    },
}

impl PromptRule {
    /// True where the number of residues is given and `</s>` not needed.
    pub fn is_exact(&self) -> bool {
        matches!(self.length, TargetLength::Same | TargetLength::Exactly(_))
    }

    /// The plan for a record of `length` residues.
    ///
    /// # Errors
    /// No prompt, or nothing to write.
    pub fn plan(&self, length: usize) -> Result<PromptPlan, PromptError> {
        let prompt = self.prompt(length)?;
        let longest = match self.length {
            TargetLength::Same => length,
            TargetLength::Exactly(length) | TargetLength::AtMost(length) => length,
            TargetLength::Eos => (prompt + MAX_NEW).max(self.min_length),
        };
        if longest <= prompt {
            return Err(PromptError::NothingToWrite {
                prompt,
                length: longest,
            });
        }
        let max_new = longest - prompt;
        let min_new = if self.is_exact() {
            max_new
        } else {
            self.min_length.saturating_sub(prompt).clamp(1, max_new)
        };
        Ok(PromptPlan {
            prompt,
            min_new,
            max_new,
        })
    }

    fn prompt(&self, length: usize) -> Result<usize, PromptError> {
        let prompt = match self.keep {
            PromptPart::Share(share) => (share * length as f64) as usize,
            PromptPart::First(keep) if keep > length => {
                return Err(PromptError::KeepsMore { keep, length });
            }
            PromptPart::First(keep) => keep,
            PromptPart::All => length,
        };
        if prompt == 0 {
            return Err(PromptError::EmptyPrompt { length });
        }
        Ok(prompt)
    }
}

impl FromStr for PromptPart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<usize>(), text.parse::<f64>()) {
            ("all", _, _) => Ok(PromptPart::All),
            (_, Ok(first), _) if first > 0 => Ok(PromptPart::First(first)),
            (_, Err(_), Ok(share)) if 0.0 < share && share < 1.0 => Ok(PromptPart::Share(share)),
            _ => {
                Err("a share between 0 and 1 (0.5), a number of residues (100), or all".to_owned())
            }
        }
    }
}

impl fmt::Display for PromptPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PromptPart::Share(share) => write!(f, "{share}"),
            PromptPart::First(first) => write!(f, "{first}"),
            PromptPart::All => f.write_str("all"),
        }
    }
}

impl FromStr for TargetLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        let length = match (text, text.split_once(':')) {
            ("same", _) => Some(TargetLength::Same),
            ("eos", _) => Some(TargetLength::Eos),
            (_, Some(("max", most))) => number(most).map(TargetLength::AtMost),
            _ => number(text).map(TargetLength::Exactly),
        };
        length.ok_or_else(|| "same, a number of residues (300), max:N, or eos".to_owned())
    }
}

impl fmt::Display for TargetLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetLength::Same => f.write_str("same"),
            TargetLength::Exactly(length) => write!(f, "{length}"),
            TargetLength::AtMost(length) => write!(f, "max:{length}"),
            TargetLength::Eos => f.write_str("eos"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(
        keep: &str,
        length: &str,
        min_length: usize,
        record: usize,
    ) -> Result<PromptPlan, PromptError> {
        let rule = PromptRule {
            keep: keep.parse().unwrap(),
            length: length.parse().unwrap(),
            min_length,
        };
        rule.plan(record)
    }

    #[test]
    fn prompt_and_new_residues_of_a_record() {
        let table = [
            (("0.5", "same", 0, 10), (5, 5, 5)),
            (("0.5", "same", 0, 11), (5, 6, 6)),
            (("0.5", "same", 0, 2), (1, 1, 1)),
            (("3", "same", 0, 11), (3, 8, 8)),
            (("all", "30", 0, 11), (11, 19, 19)),
            (("0.5", "max:30", 0, 10), (5, 1, 25)),
            (("0.5", "max:30", 20, 10), (5, 15, 25)),
            (("0.5", "max:30", 3, 10), (5, 1, 25)),
            (("all", "eos", 0, 10), (10, 1, MAX_NEW)),
            (("all", "eos", 5000, 10), (10, 4990, 4990)),
        ];
        for ((keep, length, min, record), (prompt, min_new, max_new)) in table {
            let expected = PromptPlan {
                prompt,
                min_new,
                max_new,
            };
            let what = format!("{keep} {length} {min} {record}");
            assert_eq!(plan(keep, length, min, record), Ok(expected), "{what}");
        }
    }

    #[test]
    fn what_cannot_be_done_says_why() {
        let table = [
            (("0.5", "same", 1), "no residue of 1 as the prompt"),
            (("0.1", "same", 9), "no residue of 9"),
            (("50", "same", 30), "--keep 50 of a record of 30"),
            (("30", "same", 30), "nothing is left to write"),
            (("all", "same", 30), "nothing is left to write"),
            (
                ("0.5", "20", 100),
                "50 residues and the result must have 20",
            ),
            (("0.5", "max:50", 100), "give a larger --length"),
        ];
        for ((keep, length, record), expected) in table {
            let error = plan(keep, length, 0, record).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn words_of_the_command_line() {
        for text in ["0.5", "0.25", "3", "all"] {
            assert_eq!(text.parse::<PromptPart>().unwrap().to_string(), text);
        }
        for text in ["same", "12", "max:12", "eos"] {
            assert_eq!(text.parse::<TargetLength>().unwrap().to_string(), text);
        }
        for bad in ["0", "1.0", "1.5", "-1", "half", "", "NaN"] {
            assert!(bad.parse::<PromptPart>().is_err(), "{bad}");
        }
        for bad in ["0", "max:", "max:0", "max", "-3", "1.5", "half", ""] {
            assert!(bad.parse::<TargetLength>().is_err(), "{bad}");
        }
    }
}
