//! The part of `ankh3 doctor` that runs a model and compares it with published values.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::args::{COMPUTE_TYPES, number_type};
use crate::check::published::{Distance, KnownAnswer, KnownInput, SOURCE};
use crate::checkpoint::{Checkpoint, Hub, KNOWN_MODELS, ModelRef};
use crate::device::Compute;
use crate::kernels::plan::WeightForm;
use crate::model::Encoder;
use crate::number::NumberType;
use crate::tokenizer::{TaskPrefix, Tokenizer};

/// The model to compare with published values.
#[derive(Args, Clone, Debug)]
pub(super) struct PublishedArgs {
    /// Also run this model on the tokens of a published result, and compare: a model's name or a
    /// checkpoint directory. Results are known of ankh3-large, ankh3-xl, ankh-base, ankh-large and
    /// ankh2-ext2.
    #[arg(long, short, value_name = "DIR|NAME")]
    pub model: Option<String>,

    /// Number type of the model's matrix products [default: f32 on a CPU, bf16 on a GPU].
    #[arg(long, value_parser = number_type(&COMPUTE_TYPES), ignore_case = true, requires = "model")]
    pub dtype: Option<NumberType>,

    /// How the model's linear layers store their weights.
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "full",
        requires = "model"
    )]
    pub weights: WeightForm,

    /// A file of known results in the place of the published ones, for tests.
    #[arg(long, hide = true, value_name = "FILE", requires = "model")]
    pub known_answers: Option<PathBuf>,
}

/// What became of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerVerdict {
    /// Nothing to compare, or no limit for this number type.
    None,
    /// Within the limits.
    Near,
    /// Outside the limits.
    Far,
}

/// Runs the model of `args` on `compute` and writes how far its result is from the published one.
///
/// # Errors
/// A model that cannot be opened or run.
pub(super) fn compare(
    args: &PublishedArgs,
    compute: Compute,
    out: &mut dyn Write,
) -> Result<AnswerVerdict> {
    let Some(model) = &args.model else {
        return Ok(AnswerVerdict::None);
    };
    let checkpoint = Checkpoint::load_from(ModelRef::parse(model)?.resolve(&Hub::from_env())?)?;
    let repo = repository(&checkpoint.id());
    let Some(answer) = answer(args, &repo)? else {
        let known = KnownAnswer::repositories().join(", ");
        writeln!(
            out,
            "\nno published result of {repo} to compare with (known: {known})"
        )?;
        return Ok(AnswerVerdict::None);
    };
    let compute = match args.weights {
        WeightForm::Full => compute,
        WeightForm::Int8 => compute.quantized()?,
    };
    headline(&checkpoint, &repo, &answer.input, out)?;
    let tokens = reads_as_published(&checkpoint.tokenizer, &answer.input);
    let word = verdict(tokens);
    writeln!(out, "  {:<44} {word}", "token ids of its sequences")?;
    let loader = checkpoint.loader(&compute);
    let distance = Encoder::load(&loader, &checkpoint.config)
        .and_then(|encoder| answer.compare(&encoder))
        .with_context(|| format!("model {}", checkpoint.place))?;
    show(distance, args.weights, out)?;
    Ok(match args.weights {
        _ if !tokens => AnswerVerdict::Far,
        WeightForm::Int8 => AnswerVerdict::None,
        WeightForm::Full if distance.passed() => AnswerVerdict::Near,
        WeightForm::Full => AnswerVerdict::Far,
    })
}

fn headline(
    checkpoint: &Checkpoint,
    repo: &str,
    input: &KnownInput,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let published = &input.revision;
    writeln!(
        out,
        "\n{repo} against its published result ({SOURCE}, revision {published}):"
    )?;
    match checkpoint.revision().filter(|found| found != published) {
        Some(other) => writeln!(out, "  this model is of another revision: {other}"),
        None => Ok(()),
    }
}

/// `owner/repo` of a model's id: a directory with the name of an official model is taken for it.
fn repository(id: &str) -> String {
    let known = KNOWN_MODELS.iter().find(|model| model.name == id);
    known.map_or(id, |model| model.repo).to_owned()
}

fn answer(args: &PublishedArgs, repo: &str) -> Result<Option<KnownAnswer>> {
    let Some(file) = &args.known_answers else {
        return Ok(KnownAnswer::of(repo));
    };
    let named = || file.display().to_string();
    let bytes = std::fs::read(file).with_context(named)?;
    KnownAnswer::read(&bytes, repo)
        .map(Some)
        .with_context(named)
}

/// Whether the vocabulary gives the published token ids.
fn reads_as_published(tokenizer: &Tokenizer, input: &KnownInput) -> bool {
    let mut pairs = input.sequences.iter().zip(&input.token_ids);
    pairs.all(|(letters, expected)| {
        let found = tokenizer.encode(letters.as_bytes(), TaskPrefix::None);
        found.is_ok_and(|found| found.token_ids == *expected)
    })
}

fn show(distance: Distance, weights: WeightForm, out: &mut dyn Write) -> std::io::Result<()> {
    let limit = Distance::LIMIT;
    let lines = [
        (
            "cosine per residue, lowest",
            distance.lowest,
            limit.lowest,
            distance.lowest >= limit.lowest,
        ),
        (
            "cosine per residue, median",
            distance.median,
            limit.median,
            distance.median >= limit.median,
        ),
        (
            "relative difference",
            distance.relative,
            limit.relative,
            distance.relative <= limit.relative,
        ),
    ];
    for (name, value, limit, near) in lines {
        match weights {
            WeightForm::Full => {
                writeln!(
                    out,
                    "  {name:<30} {value:.5} (limit {limit}) {}",
                    verdict(near)
                )?;
            }
            WeightForm::Int8 => writeln!(out, "  {name:<30} {value:.5} (int8 has no limit)")?,
        }
    }
    Ok(())
}

/// The word at the end of a line.
fn verdict(right: bool) -> &'static str {
    if right { "ok" } else { "WRONG" }
}
