//! `ankh3 pretrain`: trains a model on sequences. Recipe → corpus → steps → checkpoints; [`run`] is
//! the loop.

mod begin;
mod examples;
mod journal;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::Outcome;
use crate::args::{COMPUTE_TYPES, at_least_one, number_type};
use crate::checkpoint::init::ModelPreset;
use crate::checkpoint::training as steps;
use crate::device::{Compute, DeviceSpec};
use crate::input::corpus::Corpus;
use crate::io::signals::StopSignals;
use crate::number::NumberType;
use crate::progress::Steps;
use crate::sequence::counted;
use crate::tokenizer::{TaskPrefix, Tokenizer};
use crate::training::batch::{Batch, ExampleMaker};
use crate::training::evaluation::{self, Figures, evaluate};
use crate::training::order::{Position, SequenceOrder};
use crate::training::recipe::Recipe;
use crate::training::trainer::{Pretrainer, StepReport};
use crate::training::variables::Variables;

use begin::{PretrainPlan, PretrainRun};
use journal::TrainingJournal;

/// Train a model from scratch or continue to train one, on masked language modelling and sequence
/// completion
///
/// The recipe (TOML) has every setting that influences the result. The directory RUN gets
/// recipe.toml (the recipe with all defaults), log.jsonl, checkpoints/step-N (each a model that
/// every command and Hugging Face transformers load) and, at the end, model/. On a CPU the same
/// recipe gives the same bytes, whatever the number of threads and however often the run was
/// interrupted. SIGUSR1 saves a checkpoint; SIGTERM and Ctrl-C save a checkpoint and end the run; a
/// second Ctrl-C ends it at once.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct PretrainArgs {
    /// The recipe [default with --resume: the recipe of RUN].
    #[arg(value_name = "RECIPE.toml")]
    recipe: Option<PathBuf>,

    /// A recipe that is part of the program, instead of a file; `--set data.train=…` names the
    /// data.
    #[arg(long, value_enum, value_name = "SHAPE", conflicts_with = "recipe")]
    preset: Option<ModelPreset>,

    /// The directory of the run.
    #[arg(
        long,
        short,
        value_name = "RUN",
        required_unless_present_any = ["show_examples", "export_examples"]
    )]
    output: Option<PathBuf>,

    /// Continue from the last checkpoint in RUN, or begin if there is none.
    #[arg(long)]
    resume: bool,

    /// Override a value of the recipe, as in `--set optimizer.learning_rate=0.005`; may be
    /// repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Begin with the weights of this model instead of random ones (a directory or a fetched
    /// model's name).
    #[arg(long, value_name = "DIR|NAME")]
    init: Option<String>,

    /// Print the training examples of the first N sequences, without training.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    show_examples: Option<usize>,

    /// Write the token ids of every training example, step by step, and of every held-out example
    /// as JSON Lines (`-` for stdout), without training.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["show_examples", "resume"])]
    export_examples: Option<PathBuf>,

    /// The device: cpu, cuda, cuda:N, or auto (a GPU if this build and this machine have one).
    #[arg(
        long,
        default_value = "auto",
        overrides_with = "device",
        help_heading = "Running"
    )]
    device: DeviceSpec,

    /// Number type of the matrix products [default: f32 on a CPU, bf16 on a GPU]; master weights
    /// are always f32.
    #[arg(long, value_parser = number_type(&COMPUTE_TYPES), ignore_case = true, help_heading = "Running")]
    dtype: Option<NumberType>,
}

const EXAMPLES: &str = "\
Examples:
  ankh3 pretrain recipe.toml --show-examples 5
  ankh3 pretrain recipe.toml --export-examples - --set steps=20 | head -1
  ankh3 pretrain recipe.toml -o runs/nano --resume
  ankh3 pretrain recipe.toml -o runs/try --set steps=200 --set optimizer.learning_rate=0.005
  ankh3 pretrain --preset small -o runs/small --set 'data.train=[\"corpus.fasta.zst\"]'
  ankh3 pretrain family.toml -o runs/family --init ankh3-large";

/// Trains until the last step of the recipe, or until a signal ends the run.
///
/// # Errors
/// A recipe, a corpus or a checkpoint that cannot be used; a full disk; too many steps in a row
/// that are not finite.
pub fn run(args: &PretrainArgs) -> Result<Outcome> {
    let plan = PretrainPlan::new(args)?;
    if let Some(count) = args.show_examples {
        return examples::show(&plan, count);
    }
    if let Some(file) = &args.export_examples {
        return examples::export(&plan, file);
    }
    let compute = Compute::open(args.device, args.dtype)?;
    let signals = StopSignals::register()?;
    let run = plan.open_run(args)?;
    let mut corpus = open_corpus(&run.dir, &run.train, &run.recipe)?;
    let held_out = held_out(&run.valid, &run.recipe, &run.tokenizer)?;
    let mut trainer = run.trainer(&compute)?;
    let mut order = SequenceOrder::new(corpus.len(), run.recipe.seed, trainer.state.position);
    let mut journal = TrainingJournal::open(&run.dir, trainer.state.step)?;
    describe(&run, &corpus, &trainer, &compute);
    check_masking(&run, &corpus)?;
    if trainer.state.step == 0 {
        check_gradients(&run, &mut trainer, &mut corpus)?;
    }
    let line = Steps::new(trainer.state.step, run.recipe.steps);
    let begun = (Instant::now(), trainer.state.tokens);
    while trainer.state.step < run.recipe.steps {
        let batches = next_batches(&run, &mut order, &mut corpus)?;
        let report = trainer.step(&batches)?;
        trainer.state.position = order.position();
        check_finite(&report, &trainer)?;
        let rate = (trainer.state.tokens - begun.1) as f64 / begun.0.elapsed().as_secs_f64();
        log_step(&run, &report, rate, &line, &mut journal)?;
        let step = report.step;
        let last = step == run.recipe.steps;
        if !held_out.is_empty() && (last || step.is_multiple_of(run.recipe.evaluation.every)) {
            let figures = measure(&run, &trainer, &held_out)?;
            line.suspend(|| journal.evaluation(step, &figures))?;
        }
        let ends = signals.ends();
        if last || ends || signals.saves() || step.is_multiple_of(run.recipe.checkpoints.every) {
            journal.flush()?;
            let place = run.save(&trainer)?;
            line.suspend(|| tracing::debug!("saved {}", place.display()));
        }
        if ends && !last {
            line.finish();
            bail!(
                "ended by a signal after step {step}, which is saved; --resume continues the run"
            );
        }
    }
    line.finish();
    journal.finish()?;
    let place = run.export(&trainer)?;
    tracing::info!(
        "{}, {}, {} skipped; the model is {}",
        counted(trainer.state.step, "step"),
        counted(trainer.state.tokens, "token"),
        counted(trainer.state.skipped, "step"),
        place.display()
    );
    Ok(Outcome::Done)
}

/// Warns where the vocabulary has too few sentinels for the masking of long sequences, with the share
/// of residues that are masked instead.
///
/// # Errors
/// A masking probability that no sequence of the corpus can have.
fn check_masking(run: &PretrainRun, corpus: &Corpus) -> Result<()> {
    let Recipe {
        data, objectives, ..
    } = &run.recipe;
    let sentinels = run.tokenizer.num_sentinels();
    if objectives.masking == 0.0 {
        return Ok(());
    }
    for probability in objectives.probabilities.iter().copied() {
        let lengths = corpus.lengths().map(|length| length.min(data.max_residues));
        let Some(shortfall) = objectives.shortfall(probability, sentinels, lengths) else {
            continue;
        };
        let longest = shortfall.longest;
        ensure!(
            shortfall.fitting > 0,
            "masking probability {probability} cannot be reached: all sequences are longer than {longest} residues, for which the {sentinels} sentinels of the vocabulary suffice; set data.max_residues={longest}, a lower objectives.probabilities, or objectives.span=3"
        );
        tracing::warn!(
            "masking probability {probability} is {:.3} on this corpus: of sequences longer than {longest} residues only {sentinels} residues are masked, as many as the vocabulary has sentinels; data.max_residues={longest} or a longer objectives.span avoids this",
            shortfall.share
        );
    }
    Ok(())
}

/// Residues as the objectives take them: one token per residue.
fn tokens(tokenizer: &Tokenizer, residues: &[u8]) -> Result<Vec<u32>> {
    let mut tokens = tokenizer.encode(residues, TaskPrefix::None)?.token_ids;
    tokens.pop();
    Ok(tokens)
}

fn maker<'a>(recipe: &'a Recipe, tokenizer: &'a Tokenizer) -> ExampleMaker<'a> {
    ExampleMaker {
        mixture: &recipe.objectives,
        tokenizer,
        max_residues: recipe.data.max_residues,
    }
}

fn open_corpus(dir: &Path, train: &[PathBuf], recipe: &Recipe) -> Result<Corpus> {
    let corpus = Corpus::open(dir, train).context("the training data")?;
    let least = (recipe.batch.tokens * recipe.batch.accumulation / 2) as u64;
    ensure!(
        corpus.residues() >= least,
        "the training data has {} residues, fewer than one step takes (about {least}); lower batch.tokens or add data",
        corpus.residues()
    );
    if corpus.left_out > 0 {
        tracing::warn!(
            "{} of the training data left out",
            counted(corpus.left_out, "invalid record")
        );
    }
    Ok(corpus)
}

/// The held-out sequences as tokens; of long sequences only the beginning.
fn held_out(valid: &[PathBuf], recipe: &Recipe, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>> {
    if valid.is_empty() {
        return Ok(Vec::new());
    }
    let options = crate::input::corpus::options();
    let input =
        crate::input::sequences::Input::open(valid, options).context("the held-out data")?;
    let kept = input.take(recipe.evaluation.sequences).map(|item| {
        let mut tokens = tokens(tokenizer, &item?.sequence.residues)?;
        tokens.truncate(recipe.data.max_residues);
        Ok(tokens)
    });
    kept.collect()
}

fn next_batches(
    run: &PretrainRun,
    order: &mut SequenceOrder,
    corpus: &mut Corpus,
) -> Result<Vec<Batch>> {
    let maker = maker(&run.recipe, &run.tokenizer);
    let batch = |_| {
        let examples = maker.next(order, run.recipe.batch.tokens, |number| {
            tokens(&run.tokenizer, &corpus.read(number)?)
        })?;
        Ok(Batch::new(&examples, &run.config))
    };
    (0..run.recipe.batch.accumulation).map(batch).collect()
}

/// Checks before the first step that every weight gets a gradient; a weight without a gradient
/// would never learn.
fn check_gradients(
    run: &PretrainRun,
    trainer: &mut Pretrainer<'_>,
    corpus: &mut Corpus,
) -> Result<()> {
    let mut order = SequenceOrder::new(corpus.len(), run.recipe.seed, Position::default());
    let batches = next_batches(run, &mut order, corpus)?;
    let dead = trainer.dead_weights(&batches)?;
    ensure!(
        dead.is_empty(),
        "these weights get no gradient, or none that is finite: {}",
        dead.join(", ")
    );
    Ok(())
}

/// Logs a step with a loss or gradient that is not finite, and ends the run after too many such
/// steps in a row.
fn check_finite(report: &StepReport, trainer: &Pretrainer<'_>) -> Result<()> {
    if report.not_finite.is_empty() {
        return Ok(());
    }
    let names = report.not_finite.join(", ");
    tracing::warn!("step {} skipped: not finite: {names}", report.step);
    let in_a_row = trainer.state.skipped_in_a_row;
    ensure!(
        in_a_row < trainer.recipe.max_skipped,
        "{in_a_row} steps in a row are not finite, the last in {names}; lower optimizer.learning_rate and continue from an earlier checkpoint"
    );
    Ok(())
}

/// Shows a step on the live line, and logs the steps that the recipe wants logged.
fn log_step(
    run: &PretrainRun,
    report: &StepReport,
    rate: f64,
    line: &Steps,
    journal: &mut TrainingJournal,
) -> Result<()> {
    let message = format!("loss {:.4}, {rate:.0} tokens/s", report.loss);
    line.show(report.step, message);
    let evaluation = &run.recipe.evaluation;
    let due = report.step == 1 || report.step.is_multiple_of(evaluation.log_every);
    if !due && report.not_finite.is_empty() {
        return Ok(());
    }
    journal.step(report, rate)?;
    if line.is_hidden() {
        let StepReport {
            step,
            loss,
            gradient_norm,
            rate: learning_rate,
            ..
        } = report;
        tracing::info!(
            "step {step}/{}: loss {loss:.4}, gradient {gradient_norm:.3}, rate {learning_rate:.2e}, {rate:.0} tokens/s",
            run.recipe.steps
        );
    }
    Ok(())
}

fn measure(
    run: &PretrainRun,
    trainer: &Pretrainer<'_>,
    held_out: &[Vec<u32>],
) -> Result<Vec<Figures>> {
    let variables = Variables::plain(&trainer.parameters, trainer.network.device)?;
    let mixture = &run.recipe.objectives;
    let figures = run.recipe.evaluated().into_iter().map(|task| {
        let examples = evaluation::examples(held_out, task, mixture, &run.tokenizer);
        let tokens = run.recipe.batch.tokens;
        evaluate(
            &trainer.network,
            &variables,
            &examples,
            &run.tokenizer,
            tokens,
        )
    });
    Ok(figures.collect::<candle_core::Result<_>>()?)
}

fn describe(run: &PretrainRun, corpus: &Corpus, trainer: &Pretrainer<'_>, compute: &Compute) {
    let weights: usize = trainer.parameters.values().map(|p| p.values.len()).sum();
    tracing::info!(
        "{weights} parameters on {} ({}, {} threads), {}",
        compute.name,
        compute.kernels(),
        rayon::current_num_threads(),
        compute.dtype.name()
    );
    tracing::info!(
        "{}, {}; step {} of {}",
        counted(corpus.len(), "sequence"),
        counted(corpus.residues(), "residue"),
        trainer.state.step,
        run.recipe.steps
    );
}
