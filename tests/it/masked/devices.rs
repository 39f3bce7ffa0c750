//! The same network on several devices, here one CPU under several names: results of one, in order;
//! and proteins pooled where their rows are.

use ankh3::inference::Replicas;
use ankh3::inference::embedder::{Embedder, Request};
use ankh3::inference::fill::{FillOrder, Filler};
use ankh3::inference::masked::MaskedModel;
use ankh3::inference::pooling::{EmbeddingColumns, Pooling};
use ankh3::inference::residues::Residues;
use ankh3::inference::score::{Masking, Scorer};
use ankh3::model::Encoder;
use ankh3::sequence::{Limit, Over};
use ankh3::tokenizer::TaskPrefix;

use super::tiny::{Network, ankh3, network};

const PROTEINS: [&[u8]; 5] = [
    b"MKTAYIAKQR",
    b"GSHMLEDPVDW",
    b"ACD",
    b"MKTAYIAKQRQISFVKSHFSRQ",
    b"W",
];

fn on(count: usize, network: &Network) -> MaskedModel<'_> {
    let residues = Residues::standard(&network.tokenizer).unwrap();
    let stacks = Replicas::new(network.stacks(), vec![network.stacks(); count - 1]);
    MaskedModel::new(stacks, &network.tokenizer, TaskPrefix::Nlu, residues, 40).unwrap()
}

#[test]
fn several_devices_score_and_fill_as_one_does() {
    let network = network(&ankh3());
    let proteins: Vec<(&str, &[u8])> = PROTEINS.iter().map(|residues| ("p", *residues)).collect();
    let score = |count| {
        let scorer = Scorer::new(on(count, &network));
        scorer.log_likelihoods(&proteins, Masking::Single).unwrap()
    };
    let bits = |scores: Vec<Option<Vec<f64>>>| -> Vec<Vec<u64>> {
        let scores = scores.into_iter().map(|values| values.unwrap());
        scores
            .map(|values| values.into_iter().map(f64::to_bits).collect())
            .collect()
    };
    assert_eq!(bits(score(3)), bits(score(1)));

    let masked: Vec<&[u8]> = vec![b"MK?AYI?K", b"?", b"GSH?LEDP?DW", b"ACD", b"??????"];
    let masked: Vec<Vec<u8>> = masked
        .iter()
        .map(|residues| {
            let mask = |residue: &u8| {
                if *residue == b'?' {
                    ankh3::sequence::MASK
                } else {
                    *residue
                }
            };
            residues.iter().map(mask).collect()
        })
        .collect();
    let masked: Vec<&[u8]> = masked.iter().map(Vec::as_slice).collect();
    let fill = |count| Filler::new(on(count, &network), FillOrder::Left).fill(&masked);
    assert_eq!(fill(3).unwrap(), fill(1).unwrap());
}

fn embed(
    encoders: Replicas<&Encoder>,
    network: &Network,
    limit: Limit,
    on_device: bool,
) -> Vec<EmbeddingColumns> {
    let request = Request {
        prefix: TaskPrefix::Nlu,
        layers: vec![1, 2],
        poolings: vec![Pooling::Mean, Pooling::Max, Pooling::Min, Pooling::Std],
        limit,
        max_batch_tokens: 25,
    };
    let embedder = Embedder::new(encoders, &network.tokenizer, request);
    let mut embedder = embedder.pooling_on_device(on_device);
    let columns = embedder.embed(&PROTEINS).unwrap();
    columns
        .into_iter()
        .map(|columns| columns.unwrap().as_ref().clone())
        .collect()
}

#[test]
fn proteins_pooled_on_the_device_are_those_pooled_here() {
    let network = network(&ankh3());
    let encoder = &network.encoder;
    let chunks = Limit::new(10, Over::Chunk { overlap: 2 }).unwrap();
    for limit in [Limit::NONE, chunks] {
        let here = embed(encoder.into(), &network, limit, false);
        let there = embed(Replicas::new(encoder, vec![encoder]), &network, limit, true);
        let shape = |columns: &Vec<EmbeddingColumns>| -> Vec<Vec<usize>> {
            let lengths = |columns: &EmbeddingColumns| columns.iter().map(Vec::len).collect();
            columns.iter().map(lengths).collect()
        };
        assert_eq!(shape(&here), shape(&there));
        let pairs = here.iter().flatten().flatten();
        for (here, there) in pairs.zip(there.iter().flatten().flatten()) {
            assert!(
                (here - there).abs() <= 1e-5 * (1.0 + here.abs()),
                "{here} {there}"
            );
        }
    }
}
