//! Training examples without training: of the first sequences as readable pieces, or of the whole
//! run as token ids for other programs.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use super::begin::PretrainPlan;
use super::{held_out, maker, open_corpus, tokens};
use crate::commands::Outcome;
use crate::io::atomic_folder::AtomicFolder;
use crate::io::stdio::{Content, Output};
use crate::training::evaluation;
use crate::training::objective::TrainingExample;
use crate::training::order::{Position, Purpose, SequenceOrder, stream};

/// Prints examples of the first `count` sequences as pieces.
pub(super) fn show(plan: &PretrainPlan, count: usize) -> Result<Outcome> {
    let mut out = Output::create(&PathBuf::from("-"), Content::Text)?;
    let input = crate::input::sequences::Input::open(&plan.train, crate::input::corpus::options())?;
    let maker = maker(&plan.recipe, &plan.tokenizer);
    let text = |ids: &[u32]| {
        let pieces: Vec<&str> = ids.iter().map(|id| plan.tokenizer.piece(*id)).collect();
        pieces.join(" ")
    };
    for item in input.take(count) {
        let item = item?;
        let residues = tokens(&plan.tokenizer, &item.sequence.residues)?;
        let mut rng = stream(plan.recipe.seed, 0, Purpose::Sequence(item.index as u32));
        let example = maker.example(&residues, &mut rng);
        writeln!(out, "{}: {}", item.sequence.id, example.task)?;
        writeln!(out, "  encoder: {}", text(&example.source))?;
        writeln!(out, "  target:  {}", text(&example.labels))?;
    }
    out.finish()?;
    Ok(Outcome::Done)
}

/// Writes the vocabulary (one piece per id), the examples of all evaluations, then the examples of
/// every step in their order. Another program can repeat the run from this file, because the run
/// computes on exactly these examples.
pub(super) fn export(plan: &PretrainPlan, file: &Path) -> Result<Outcome> {
    let PretrainPlan {
        recipe, tokenizer, ..
    } = plan;
    let mut out = Output::create(file, Content::Text)?;
    writeln!(out, "{}", json!({ "vocabulary": tokenizer.pieces() }))?;
    let sequences = held_out(&plan.valid, recipe, tokenizer)?;
    for task in recipe.evaluated() {
        for example in evaluation::examples(&sequences, task, &recipe.objectives, tokenizer) {
            line(&mut out, json!({ "split": "held-out" }), &example)?;
        }
    }
    let folder = AtomicFolder::create(&std::env::temp_dir().join("ankh3-corpus"))?;
    let mut corpus = open_corpus(folder.path(), &plan.train, recipe)?;
    let maker = maker(recipe, tokenizer);
    let mut order = SequenceOrder::new(corpus.len(), recipe.seed, Position::default());
    for step in 1..=recipe.steps {
        for micro_batch in 0..recipe.batch.accumulation {
            let examples = maker.next(&mut order, recipe.batch.tokens, |number| {
                tokens(tokenizer, &corpus.read(number)?)
            })?;
            let place = json!({ "split": "train", "step": step, "micro_batch": micro_batch });
            for example in examples {
                line(&mut out, place.clone(), &example)?;
            }
        }
    }
    out.finish()?;
    Ok(Outcome::Done)
}

fn line(out: &mut Output, mut place: serde_json::Value, example: &TrainingExample) -> Result<()> {
    place["task"] = json!(example.task.to_string());
    place["source"] = json!(example.source);
    place["labels"] = json!(example.labels);
    Ok(writeln!(out, "{place}")?)
}
