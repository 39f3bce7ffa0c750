//! `ankh3 tokenize`: the token ids of a sequence.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use super::Outcome;
use super::opened::warn_of_unused_tokens;
use crate::args::{InputArgs, ModelArgs, hidden, whole_sequences};
use crate::input::sequences::Input;
use crate::io::stdio::{Content, Output};
use crate::sequence::{Rules, Sequence};
use crate::tokenizer::{TaskPrefix, Tokenizer};

/// Print the token ids of each sequence, as the model reads them
///
/// Output is tab-separated: id; number of tokens; number of residues that the vocabulary lacks
/// (these residues get the id of X); token ids, separated by spaces; the pieces of the vocabulary.
#[derive(Args, Clone, Debug)]
#[command(mut_arg("over", whole_sequences), mut_arg("overlap", hidden))]
pub struct TokenizeArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
}

/// Writes one line per sequence to stdout.
///
/// # Errors
/// A model or an input that cannot be read.
pub fn run(args: &TokenizeArgs) -> Result<Outcome> {
    let tokenizer = args.model.open()?.tokenizer;
    warn_of_unused_tokens(&tokenizer, args.model.prefix);
    let prefix = args
        .model
        .prefix
        .unwrap_or_else(|| tokenizer.default_prefix());
    let mut input = Input::open(&args.input.files, args.input.options(Rules::default())?)?;
    let mut out = Output::create(Path::new("-"), Content::Text)?;
    let sequences = input.by_ref().map(|item| Ok(item?.sequence));
    write(&tokenizer, prefix, sequences, &mut out)?;
    out.finish()?;
    input.counts().log();
    Ok(if input.counts().is_partial() {
        Outcome::SomeFailed
    } else {
        Outcome::Done
    })
}

fn write(
    tokenizer: &Tokenizer,
    prefix: TaskPrefix,
    sequences: impl Iterator<Item = Result<Sequence>>,
    out: &mut dyn Write,
) -> Result<()> {
    writeln!(out, "id\ttokens\treplaced\ttoken_ids\tpieces")?;
    for sequence in sequences {
        let sequence = sequence?;
        let line = line(tokenizer, &sequence, prefix)?;
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn line(tokenizer: &Tokenizer, sequence: &Sequence, prefix: TaskPrefix) -> Result<String> {
    let encoding = tokenizer
        .encode(&sequence.residues, prefix)
        .with_context(|| {
            let origin = &sequence.origin;
            format!(
                "{}: record {} ({}), line {}",
                origin.file, origin.record, sequence.id, origin.line
            )
        })?;
    let ids: Vec<String> = encoding.token_ids.iter().map(u32::to_string).collect();
    let pieces: Vec<&str> = encoding
        .token_ids
        .iter()
        .map(|id| tokenizer.piece(*id))
        .collect();
    let (tokens, replaced) = (encoding.token_ids.len(), encoding.replaced);
    let fields = [
        sequence.id.clone(),
        tokens.to_string(),
        replaced.to_string(),
        ids.join(" "),
        pieces.join(" "),
    ];
    Ok(fields.join("\t"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Origin;

    fn sequence(id: &str, residues: &str) -> Sequence {
        Sequence {
            id: id.to_string(),
            description: String::new(),
            residues: residues.as_bytes().to_vec(),
            origin: Origin {
                file: "x.fasta".into(),
                record: 2,
                line: 3,
            },
        }
    }

    fn table(prefix: TaskPrefix, residues: &str) -> Result<String> {
        let mut out = Vec::new();
        let sequences = [Ok(sequence("a", residues))].into_iter();
        write(&Tokenizer::ankh3(), prefix, sequences, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn prints_ids_and_pieces() {
        let header = "id\ttokens\treplaced\ttoken_ids\tpieces\n";
        let nlu = table(TaskPrefix::Nlu, "MKJ").unwrap();
        assert_eq!(
            nlu,
            format!("{header}a\t5\t1\t4 24 18 27 1\t[NLU] M K X </s>\n")
        );
        let none = table(TaskPrefix::None, "M").unwrap();
        assert_eq!(none, format!("{header}a\t2\t0\t24 1\tM </s>\n"));
    }

    #[test]
    fn an_error_names_the_record() {
        let error = format!("{:#}", table(TaskPrefix::Nlu, "M*").unwrap_err());
        assert!(
            error.starts_with("x.fasta: record 2 (a), line 3: `*` at position 2"),
            "{error}"
        );
    }
}
