//! `ankh3 merge`: joins the files of several runs into one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::Outcome;
use super::embedding_flags::{OUT_TYPES, format_of};
use super::score::SPEARMAN;
use crate::args::{number_type, usage};
use crate::number::NumberType;
use crate::output::embeddings::{EmbeddingFormat, EmbeddingReader};
use crate::output::merge::{TextFile, merge_embeddings, merge_text};
use crate::sequence::counted;

/// Join the results of several runs into one file
///
/// Joins embeddings, matrices, FASTA files, tables or contact lists. Shards written with
/// `--shard I/N` are interleaved: the result is the file that one run without shards would have
/// written, byte for byte. Files without a shard are concatenated in the order given. All files
/// must have been made in the same way: same model, prefix, layers, pooling, number type and every
/// other setting that influences values; shards also from the same input. FASTA files, tables and
/// contact lists need the FILE.json that `-o FILE` wrote beside them.
#[derive(Args, Clone, Debug)]
pub struct MergeArgs {
    /// Files to join: embeddings or matrices in any of the formats, or FASTA files, or tables, or
    /// contact lists.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The file to write, `-` for stdout.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The format of embeddings [default: by the file's extension; npz on stdout]. Text files keep
    /// their format.
    #[arg(long, value_enum)]
    format: Option<EmbeddingFormat>,

    /// Number type of the embeddings written [default: the type of the files].
    #[arg(long, value_parser = number_type(&OUT_TYPES))]
    out_dtype: Option<NumberType>,
}

/// Joins the files given.
///
/// # Errors
/// Files that do not belong together, or cannot be read or written.
pub fn run(args: &MergeArgs) -> Result<Outcome> {
    let mut texts = Vec::new();
    let mut embeddings = Vec::new();
    for file in &args.files {
        match TextFile::open(file)? {
            Some(text) => texts.push(text),
            None => embeddings.push(file.as_path()),
        }
    }
    let into = || format!("merging into {}", args.output.display());
    match (texts.first(), embeddings.first()) {
        (None, _) => embedding_files(args).with_context(into)?,
        (Some(_), None) => text_files(args, texts).with_context(into)?,
        (Some(text), Some(other)) => bail!(
            "{} is a {}, and {} is not (or has no {}.json beside it, which `-o FILE` writes): merge files of one kind",
            text.path().display(),
            text.kind(),
            other.display(),
            other.display()
        ),
    }
    Ok(Outcome::Done)
}

fn embedding_files(args: &MergeArgs) -> Result<()> {
    let format = format_of(args.format, &args.output)?;
    let readers = args.files.iter().map(|file| open(file));
    let readers = readers.collect::<Result<Vec<_>, _>>()?;
    let dtype = args.out_dtype;
    let records = merge_embeddings(readers, format, dtype, &args.output)?;
    tracing::info!(
        "{} of {}",
        counted(records, "protein"),
        counted(args.files.len(), "file")
    );
    Ok(())
}

fn open(file: &Path) -> Result<EmbeddingReader> {
    EmbeddingReader::open(file).with_context(|| {
        format!(
            "{name} is not an embedding file, and no {name}.json beside it says that it is a FASTA file, table or contact list of this program (`-o FILE` writes one)",
            name = file.display()
        )
    })
}

fn text_files(args: &MergeArgs, texts: Vec<TextFile>) -> Result<()> {
    ensure!(
        args.format.is_none() && args.out_dtype.is_none(),
        usage(
            "--format and --out-dtype are for embeddings; FASTA files, tables and contact lists keep the format they have"
        )
    );
    let files = texts.len();
    let rows = merge_text(texts, &args.output, &[SPEARMAN])?;
    tracing::info!("{} of {}", counted(rows, "record"), counted(files, "file"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::kernels::cpu::Isa;
    use crate::output::merge::give_same_bytes;

    /// Stands here because the room `output` knows instruction sets by name only.
    #[test]
    fn every_instruction_set_that_fuses_gives_the_same_bytes_in_f32() {
        for first in Isa::ALL {
            for second in Isa::ALL {
                let same = first == second || ![first, second].contains(&Isa::Portable);
                assert_eq!(
                    give_same_bytes(Some("f32"), None, first.name(), second.name()),
                    same,
                    "{first:?} {second:?}"
                );
            }
        }
    }
}
