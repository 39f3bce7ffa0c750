//! Scores in the library.

use std::cell::RefCell;
use std::collections::HashMap;

use ankh3::inference::masked::{MaskedError, Question};
use ankh3::inference::score::{
    AnswerKey, Answers, EffectMethod, Effects, Masking, ScoreQuery, Scorer, Variant, full_scan,
    log_likelihood, standard_positions,
};
use ankh3::tokenizer::TaskPrefix;

use super::tiny::{ankh3, network};
use super::{assert_close, goldens, model, positions, rows};

const FRACTION: Masking = Masking::Fraction {
    fraction: 0.2,
    seed: 3,
};

#[test]
fn rows_are_those_of_transformers() {
    for (network, prefix, expected) in goldens() {
        let scorer = Scorer::new(model(&network, prefix, 300));
        let residues = expected["sequence"].as_str().unwrap().as_bytes();
        let positions = positions(&expected["positions"]);
        assert_eq!(standard_positions(residues), positions);
        let job = ScoreQuery {
            id: "a",
            residues,
            positions: &positions,
        };
        let found = scorer.rows(&[job], Masking::Single).unwrap().remove(0);
        assert_close(&found.unwrap(), &rows(&expected["rows"]));

        let values = scorer.log_likelihoods(&[("a", residues)], Masking::Single);
        let values = values.unwrap().remove(0).unwrap();
        let (scored, sum) = log_likelihood(&values);
        assert_eq!((scored, values.len()), (positions.len(), residues.len()));
        let exact = expected["log_likelihood"].as_f64().unwrap();
        assert!(
            (sum - exact).abs() < 2e-5 * exact.abs(),
            "{sum} for {exact}"
        );
    }
}

#[test]
fn several_masks_are_fed_the_sequence_itself_as_in_transformers() {
    for (network, prefix, expected) in goldens() {
        let model = model(&network, prefix, 300);
        let residues = expected["sequence"].as_str().unwrap();
        let encoding = model.encode(residues.as_bytes()).unwrap();
        let masked = positions(&expected["forced"]["positions"]);
        let question = Question {
            encoding: &encoding,
            masked,
        };
        let answer = model.answer(&[question]).unwrap().remove(0).unwrap();
        assert_close(&answer, &rows(&expected["forced"]["rows"]));
    }
}

const PROTEINS: [(&str, &[u8]); 5] = [
    ("a", b"MKTAYIAKQRXISFVKSHFSRQ"),
    ("b", b"M"),
    ("c", b"XX"),
    ("d", b"GAVLIMCFYWHKRQNEDSTPGAVLIMCFYWHKRQNEDSTPGAVLIMCFYW"),
    ("e", b"MKUTA"),
];

#[test]
fn scores_do_not_depend_on_batches_or_neighbours() {
    let network = network(&ankh3());
    let score = |proteins: &[(&str, &[u8])], masking, budget| {
        let scorer = Scorer::new(model(&network, TaskPrefix::Nlu, budget));
        let values = scorer.log_likelihoods(proteins, masking).unwrap();
        let bits = |values: Option<Vec<f64>>| -> Vec<u64> {
            values.unwrap().into_iter().map(f64::to_bits).collect()
        };
        values.into_iter().map(bits).collect::<Vec<_>>()
    };
    for masking in [Masking::Single, FRACTION] {
        let together = score(&PROTEINS, masking, 100_000);
        assert_eq!(score(&PROTEINS, masking, 1), together);
        assert_eq!(score(&PROTEINS, masking, 97), together);
        for (protein, expected) in PROTEINS.iter().zip(&together) {
            assert_eq!(&score(&[*protein], masking, 500)[0], expected);
        }
    }
}

#[test]
fn residues_besides_the_twenty_are_context_only() {
    let network = network(&ankh3());
    let scorer = Scorer::new(model(&network, TaskPrefix::Nlu, 500));
    for masking in [Masking::Single, FRACTION] {
        let values = scorer.log_likelihoods(&PROTEINS, masking).unwrap();
        for ((_, residues), values) in PROTEINS.iter().zip(values) {
            let scored: Vec<bool> = values
                .unwrap()
                .iter()
                .map(|value| !value.is_nan())
                .collect();
            let standard: Vec<bool> = residues.iter().map(|r| !b"XU".contains(r)).collect();
            assert_eq!(scored, standard);
        }
    }
    // They count as context: another residue in their place changes the other scores.
    let pair: [(&str, &[u8]); 2] = [("a", b"MKXA"), ("b", b"MKUA")];
    let values = scorer.log_likelihoods(&pair, Masking::Single).unwrap();
    assert_ne!(
        values[0].as_ref().unwrap()[0],
        values[1].as_ref().unwrap()[0]
    );
}

#[test]
fn each_method_is_its_formula() {
    let network = network(&ankh3());
    let scorer = Scorer::new(model(&network, TaskPrefix::Nlu, 400));
    let residues = b"MKTAYIAKQRXISF";
    let variants: Vec<Variant> = ["M1A", "M1A:T3G", "K8K", "F14W"]
        .map(|v| v.parse().unwrap())
        .into();
    let score = |method, masking| {
        let effects = Effects::new(&scorer, method, masking);
        effects.score("a", residues, &variants).unwrap().unwrap()
    };
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
    for (method, masking) in [
        (EffectMethod::Masked, Masking::Single),
        (EffectMethod::WildType, FRACTION),
    ] {
        let found = score(method, masking);
        let all = standard_positions(residues);
        let job = ScoreQuery {
            id: "a",
            residues,
            positions: &all,
        };
        let rows = scorer.rows(&[job], masking).unwrap().remove(0).unwrap();
        // Columns A 0, F 4, G 5, M 10, T 16, W 18; positions 1, 3, 14 are rows 0, 2, 12.
        near(found[0], rows[0][0] - rows[0][10]);
        near(
            found[1],
            rows[0][0] - rows[0][10] + rows[2][5] - rows[2][16],
        );
        near(found[2], 0.0);
        near(found[3], rows[12][18] - rows[12][4]);
    }
    for masking in [Masking::Single, FRACTION] {
        let found = score(EffectMethod::PseudoLikelihood, masking);
        let sum = |residues: &[u8]| {
            let values = scorer.log_likelihoods(&[("a", residues)], masking).unwrap();
            log_likelihood(values[0].as_ref().unwrap()).1
        };
        near(found[1], sum(b"AKGAYIAKQRXISF") - sum(residues));
        near(found[2], 0.0);
    }
}

#[test]
fn a_scan_is_its_variants_one_by_one() {
    let network = network(&ankh3());
    let scorer = Scorer::new(model(&network, TaskPrefix::None, 400));
    let residues = b"MKXAY";
    let scan = full_scan(residues);
    for (method, masking) in [
        (EffectMethod::Masked, Masking::Single),
        (EffectMethod::WildType, FRACTION),
        (EffectMethod::PseudoLikelihood, Masking::Single),
    ] {
        let effects = Effects::new(&scorer, method, masking);
        let score = |variants: &[Variant]| effects.score("a", residues, variants).unwrap().unwrap();
        let all = score(&scan);
        assert_eq!(all.len(), 76);
        for at in [0, 30, 75] {
            assert_eq!(score(&scan[at..=at]), [all[at]], "{} {method:?}", scan[at]);
        }
    }
}

/// A run that is interrupted after any number of answers computes only the others when resumed,
/// with the same bits.
#[test]
fn answers_are_kept_and_not_asked_again() {
    let network = network(&ankh3());
    let residues = b"MKTAYIAKQRXISF";
    let variants: Vec<Variant> = ["M1A", "T3G", "K8K", "F14W", "Q9A:R10K"]
        .map(|v| v.parse().unwrap())
        .into();
    for (method, masking) in [
        (EffectMethod::Masked, Masking::Single),
        (EffectMethod::WildType, FRACTION),
        (EffectMethod::PseudoLikelihood, FRACTION),
    ] {
        let store = RefCell::new(HashMap::new());
        // Scores, with room for `room` answers more.
        let score = |room: usize| -> Result<Vec<u64>, MaskedError> {
            let full = store.borrow().len() + room;
            let keep = |key: &AnswerKey, values: &[f64]| {
                if store.borrow().len() == full {
                    return Err(std::io::Error::other("cut off"));
                }
                assert!(
                    store.borrow_mut().insert(*key, values.to_vec()).is_none(),
                    "asked again"
                );
                Ok(())
            };
            let known = store.borrow().clone();
            let scorer = Scorer::new(model(&network, TaskPrefix::Nlu, 40));
            let scorer = scorer.remembering(Answers::new(known, Box::new(keep)));
            let effects = Effects::new(&scorer, method, masking);
            let scores = effects.score("a", residues, &variants)?.unwrap();
            Ok(scores.into_iter().map(f64::to_bits).collect())
        };
        let plain = Scorer::new(model(&network, TaskPrefix::Nlu, 40));
        let plain = Effects::new(&plain, method, masking);
        let plain = plain.score("a", residues, &variants).unwrap().unwrap();
        let plain: Vec<u64> = plain.into_iter().map(f64::to_bits).collect();
        let mut cuts = 0;
        let scores: Vec<u64> = loop {
            match score(1) {
                Ok(scores) => break scores,
                Err(error) => assert!(error.to_string().contains("cut off"), "{error}"),
            }
            cuts += 1;
            assert_eq!(store.borrow().len(), cuts);
        };
        assert!(cuts > 3, "{method:?}: {cuts}");
        assert_eq!(scores, plain, "{method:?}");
    }
}
