//! Scores and filled masks: against transformers (`tests/golden/make_scores.py`), and what must
//! hold whatever the model, in the library and on the command line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod devices;
mod fill;
mod fill_command;
mod score;
mod score_command;
pub mod tiny;

use ankh3::inference::masked::MaskedModel;
use ankh3::inference::residues::Residues;
use ankh3::tokenizer::{TaskPrefix, Tokenizer};
use serde_json::Value;

use self::tiny::{Network, checkpoint, golden, network};

/// Tolerance of float32, relative to the largest magnitude.
const TOLERANCE: f64 = 2e-5;

/// A network and the results of transformers for it.
fn goldens() -> Vec<(Network, TaskPrefix, Value)> {
    let kinds = [
        ("untied-gated-silu", Tokenizer::ankh3(), TaskPrefix::Nlu),
        ("tied-gated-gelu", Tokenizer::ankh_v1(), TaskPrefix::None),
    ];
    let read = |kind: &str| -> Value {
        let text = std::fs::read(golden(kind).join("scores.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    kinds
        .into_iter()
        .map(|(kind, tokenizer, prefix)| {
            (network(&checkpoint(kind, &tokenizer)), prefix, read(kind))
        })
        .collect()
}

fn model(network: &Network, prefix: TaskPrefix, max_batch_tokens: usize) -> MaskedModel<'_> {
    let stacks = network.stacks();
    let residues = Residues::standard(&network.tokenizer).unwrap();
    MaskedModel::new(
        stacks,
        &network.tokenizer,
        prefix,
        residues,
        max_batch_tokens,
    )
    .unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|number| number.as_f64().unwrap()).collect()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

fn positions(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|n| n as usize).collect()
}

#[track_caller]
fn assert_close(found: &[Vec<f64>], expected: &[Vec<f64>]) {
    let largest = expected
        .iter()
        .flatten()
        .fold(0.0, |a: f64, b| a.max(b.abs()));
    assert_eq!(found.len(), expected.len());
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "row {row}");
        for (found, expected) in found.iter().zip(expected) {
            let difference = (found - expected).abs();
            assert!(
                difference <= TOLERANCE * largest,
                "row {row}: {found} for {expected}"
            );
        }
    }
}
