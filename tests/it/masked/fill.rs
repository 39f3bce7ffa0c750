//! Filling in the library.

use ankh3::inference::fill::{FillOrder, Filled, Filler};
use ankh3::inference::masked::MaskedModel;
use ankh3::inference::residues::Residues;
use ankh3::tokenizer::TaskPrefix;
use serde_json::Value;

use super::tiny::{ankh3, checkpoint, few_sentinels, network};
use super::{assert_close, goldens, model, numbers, positions, rows};

fn fill(model: MaskedModel<'_>, order: FillOrder, proteins: &[&[u8]]) -> Vec<Filled> {
    let filled = Filler::new(model, order).fill(proteins).unwrap();
    filled.into_iter().map(Option::unwrap).collect()
}

#[test]
fn masks_are_filled_as_transformers_fills_them() {
    for (network, prefix, expected) in goldens() {
        for (order, name) in [(FillOrder::Left, "left"), (FillOrder::Certain, "certain")] {
            let expected = &expected[name];
            let masked = expected["masked"].as_str().unwrap();
            let filled = fill(model(&network, prefix, 300), order, &[masked.as_bytes()]).remove(0);
            assert_is(&filled, expected);
            let found: Vec<Vec<f64>> = filled
                .sites
                .into_iter()
                .map(|site| site.log_probs)
                .collect();
            assert_close(&found, &rows(&expected["rows"]));
        }
    }
}

#[test]
fn more_masks_than_sentinels_are_filled_in_rounds_as_in_the_reference() {
    for (network, prefix, expected) in goldens() {
        let expected = &expected["rounds"];
        let masked = expected["masked"].as_str().unwrap().as_bytes();
        let filler = Filler::new(model(&network, prefix, 300), FillOrder::Left);
        assert_eq!(filler.rounds(masked.len() - 4), 2);
        let filled = filler.fill(&[masked]).unwrap().remove(0).unwrap();
        assert_is(&filled, expected);
        let best = |log_probs: &Vec<f64>| log_probs.iter().copied().fold(f64::MIN, f64::max);
        let found = filled
            .sites
            .iter()
            .map(|site| best(&site.log_probs))
            .collect();
        assert_close(&[found], &[numbers(&expected["best"])]);
    }
}

fn assert_is(filled: &Filled, expected: &Value) {
    let text = std::str::from_utf8(&filled.residues).unwrap();
    assert_eq!(text, expected["filled"].as_str().unwrap());
    let order: Vec<usize> = filled.sites.iter().map(|site| site.position).collect();
    assert_eq!(order, positions(&expected["positions"]));
}

const PROTEINS: [&[u8]; 6] = [
    b"MK?AYI??QRXIS?VKSHF?",
    b"MKT",
    b"?",
    b"???????????????",
    b"X?U",
    b"GAVLIMCFYWHKRQNEDSTPGAVLIMC?FYWHKRQNEDSTPGAVLIMCFYW",
];

#[test]
fn filling_does_not_depend_on_batches_or_neighbours() {
    for tokenizer in [few_sentinels(225), few_sentinels(4)] {
        let network = network(&checkpoint("untied-gated-silu", &tokenizer));
        for order in [FillOrder::Left, FillOrder::Certain] {
            let with = |budget| model(&network, TaskPrefix::Nlu, budget);
            let together = fill(with(100_000), order, &PROTEINS);
            assert_eq!(fill(with(1), order, &PROTEINS), together);
            assert_eq!(fill(with(60), order, &PROTEINS), together);
            for (protein, expected) in PROTEINS.iter().zip(&together) {
                assert_eq!(&fill(with(100), order, &[protein])[0], expected);
            }
        }
    }
}

#[test]
fn everything_but_the_masks_stays() {
    for count in [1, 3, 225] {
        let network = network(&checkpoint("untied-gated-silu", &few_sentinels(count)));
        for order in [FillOrder::Left, FillOrder::Certain] {
            for (masked, filled) in PROTEINS.iter().zip(fill(
                model(&network, TaskPrefix::Nlu, 200),
                order,
                &PROTEINS,
            )) {
                assert_eq!(masked.len(), filled.residues.len());
                for (before, after) in masked.iter().zip(&filled.residues) {
                    assert!(before == after || *before == b'?', "{masked:?}");
                    assert_ne!(*after, b'?');
                }
                let masks = masked.split(|residue| *residue == b'?').count() - 1;
                assert_eq!(filled.sites.len(), masks);
                for site in filled.sites {
                    let sum: f64 = site.log_probs.iter().map(|log_prob| log_prob.exp()).sum();
                    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
                    assert_eq!(filled.residues[site.position], site.residue);
                }
            }
        }
    }
}

#[test]
fn only_allowed_residues_are_filled_in() {
    let network = network(&ankh3());
    let stacks = network.stacks();
    let residues = Residues::new(b"XW", &network.tokenizer).unwrap();
    let model =
        MaskedModel::new(stacks, &network.tokenizer, TaskPrefix::Nlu, residues, 99).unwrap();
    let filled = fill(model, FillOrder::Left, &[b"MK??????A"]).remove(0);
    assert!(
        filled.residues[2..8]
            .iter()
            .all(|residue| b"XW".contains(residue))
    );
    assert!(filled.sites.iter().all(|site| site.log_probs.len() == 2));
}

#[test]
fn a_vocabulary_without_sentinels_cannot_be_asked() {
    let network = network(&checkpoint("untied-gated-silu", &few_sentinels(0)));
    let stacks = network.stacks();
    let residues = Residues::standard(&network.tokenizer).unwrap();
    let model = MaskedModel::new(stacks, &network.tokenizer, TaskPrefix::Nlu, residues, 99);
    let error = model.err().unwrap().to_string();
    assert!(error.contains("<extra_id_0>"), "{error}");
}
