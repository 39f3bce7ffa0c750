//! FASTA of a run: proteins, or completions with the numbers that `ankh3 complete` writes into
//! headers.

use std::path::Path;

use crate::input::fasta;
use crate::report::error::ReportError;

/// One record of a FASTA file.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultSequence {
    /// First word of the header.
    pub id: String,
    /// The sequence, with one ASCII character per byte of the file.
    pub residues: String,
    /// The numbers in the header of a completion.
    pub completion: Option<CompletionHeader>,
}

/// The numbers in the header of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionHeader {
    /// Σ ln p over the new residues.
    pub log_likelihood: f64,
    /// exp(-`log_likelihood` / new residues).
    pub perplexity: f64,
    /// Residues of the prompt.
    pub prompt: usize,
    /// Residues that the model added.
    pub new: usize,
    /// Why the completion ended: `eos` or `length`.
    pub end: String,
    /// How residues were chosen: `greedy`, `sample` or `beam`.
    pub decoding: String,
}

impl CompletionHeader {
    /// Reads the words of a header; `None` where a number is missing.
    fn parse(description: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut words = description.split_ascii_whitespace();
            words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        Some(Self {
            log_likelihood: value("log_likelihood")?.parse().ok()?,
            perplexity: value("perplexity")?.parse().ok()?,
            prompt: value("prompt")?.parse().ok()?,
            new: value("new")?.parse().ok()?,
            end: value("end")?.to_owned(),
            decoding: value("decoding")?.to_owned(),
        })
    }
}

impl ResultSequence {
    /// The prompt and the new residues; the prompt is empty where the file leaves it out.
    pub fn parts(&self) -> (&str, &str) {
        let prompt = match &self.completion {
            Some(CompletionHeader { prompt, new, .. }) if prompt + new == self.residues.len() => {
                *prompt
            }
            Some(_) => 0,
            None => self.residues.len(),
        };
        self.residues.split_at(prompt)
    }

    /// The share of the most common residue among the new ones: near 1, the model only repeats
    /// itself.
    pub fn most_common_share(&self) -> f64 {
        let (_, new) = self.parts();
        let mut counts = [0_usize; 256];
        new.bytes()
            .for_each(|residue| counts[usize::from(residue)] += 1);
        counts.into_iter().max().unwrap_or(0) as f64 / new.len().max(1) as f64
    }
}

/// Reads all records.
pub(super) fn read(path: &Path) -> Result<Vec<ResultSequence>, ReportError> {
    fasta::FastaReader::open(path)?
        .map(|record| {
            let record = record?;
            Ok(ResultSequence {
                completion: CompletionHeader::parse(&record.description),
                id: record.id,
                residues: record.text.iter().map(|byte| letter(*byte)).collect(),
            })
        })
        .collect()
}

/// One byte per character, so that the length of a prompt is a place in the text.
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

    fn written(description: &str, residues: &str) -> ResultSequence {
        ResultSequence {
            id: "a".to_owned(),
            residues: residues.to_owned(),
            completion: CompletionHeader::parse(description),
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
