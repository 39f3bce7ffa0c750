//! FASTA of a run: proteins, or completions with the numbers that `ankh3 complete` writes into its headers.

use std::path::Path;

use super::ReportError;
use crate::input::fasta;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// First word of the header.
    pub id: String,
    /// Its letters.
    pub residues: String,
    /// What the header of a completion says.
    pub completion: Option<Completion>,
}

/// The numbers in the header of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Σ ln p over the residues written.
    pub log_likelihood: f64,
    /// exp(-`log_likelihood` / residues written).
    pub perplexity: f64,
    /// Residues of the prompt.
    pub prompt: usize,
    /// Residues written.
    pub new: usize,
    /// `eos` or `length`.
    pub end: String,
    /// `greedy`, `sample`, `beam`.
    pub decoding: String,
}

impl Completion {
    /// Of a header's words; `None` where it is no completion's.
    fn of(description: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut words = description.split_ascii_whitespace();
            words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        Some(Completion {
            log_likelihood: value("log_likelihood")?.parse().ok()?,
            perplexity: value("perplexity")?.parse().ok()?,
            prompt: value("prompt")?.parse().ok()?,
            new: value("new")?.parse().ok()?,
            end: value("end")?.to_owned(),
            decoding: value("decoding")?.to_owned(),
        })
    }
}

impl Written {
    /// The prompt and what was written behind it, where both stand in the file.
    pub fn parts(&self) -> (&str, &str) {
        let prompt = match &self.completion {
            Some(Completion { prompt, new, .. }) if prompt + new == self.residues.len() => *prompt,
            Some(_) => 0,
            None => self.residues.len(),
        };
        self.residues.split_at(prompt)
    }

    /// The largest share that one residue has of what was written: near 1, the model only repeats itself.
    pub fn most_common_share(&self) -> f64 {
        let (_, new) = self.parts();
        let mut counts = [0_usize; 256];
        new.bytes()
            .for_each(|residue| counts[usize::from(residue)] += 1);
        counts.into_iter().max().unwrap_or(0) as f64 / new.len().max(1) as f64
    }
}

/// Reads all records.
pub(super) fn read(path: &Path) -> Result<Vec<Written>, ReportError> {
    fasta::FastaReader::open(path)?
        .map(|record| {
            let record = record?;
            Ok(Written {
                completion: Completion::of(&record.description),
                id: record.id,
                residues: record.text.iter().map(|byte| letter(*byte)).collect(),
            })
        })
        .collect()
}

/// One byte a letter, whatever stands there: a prompt's length then is a place in the text.
fn letter(byte: u8) -> char {
    if byte.is_ascii() {
        char::from(byte)
    } else {
        '?'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(description: &str, residues: &str) -> Written {
        Written {
            id: "a".to_owned(),
            residues: residues.to_owned(),
            completion: Completion::of(description),
        }
    }

    #[test]
    fn a_completions_header_is_read() {
        let header = "log_likelihood=-3.5 perplexity=2.1 prompt=3 new=2 end=eos decoding=sample seed=1 human";
        let record = written(header, "MKVAA");
        assert_eq!(record.parts(), ("MKV", "AA"));
        assert_eq!(record.most_common_share(), 1.0);
        let completion = record.completion.unwrap();
        assert_eq!((completion.perplexity, completion.new), (2.1, 2));
        assert_eq!(completion.end, "eos");
    }

    #[test]
    fn other_headers_are_no_completions() {
        let record = written("Hemoglobin perplexity=low", "MKV");
        assert_eq!(record.completion, None);
        assert_eq!(record.parts(), ("MKV", ""));
    }
}
