use std::collections::HashMap;
use std::fs;
use std::path::Path;

use ankh3::kernels::cpu::Isa;
use ankh3::output::embeddings::{EmbeddingReader, EmbeddingRecord};

use super::support::{
    Ended, Protein, ankh3, difference, fasta, folder_with, nano, proteins, records, run, tiny,
};
use crate::skip::{Lack, skip};

const LENGTHS: [usize; 14] = [1, 200, 3, 64, 65, 17, 90, 33, 2, 128, 5, 48, 300, 31];

fn by_id(path: &Path) -> HashMap<String, EmbeddingRecord> {
    let all = records(path).into_iter();
    all.map(|record| (record.id.clone(), record)).collect()
}

#[test]
fn batches_threads_order_and_company_change_no_bit() {
    let all = proteins(&LENGTHS);
    let folder = folder_with(&all);
    let path = folder.path();
    let embed = |rest: &str, input: &str| {
        let arguments = format!("embed --model {} {rest} -o out.npz {input}", nano());
        run(path, &arguments).with(0);
        fs::read(path.join("out.npz")).unwrap()
    };
    let reference = embed("", "in.fasta");
    let expected = by_id(&path.join("out.npz"));
    assert_eq!(expected.len(), all.len());
    for batch in ["1", "64", "4096"] {
        let found = embed(&format!("--max-batch-tokens {batch}"), "in.fasta");
        assert!(found == reference, "batches of {batch} tokens");
    }
    for threads in ["1", "2", "4"] {
        let found = embed(&format!("--threads {threads}"), "in.fasta");
        assert!(found == reference, "{threads} threads");
    }
    let mut shuffled = all.clone();
    shuffled.sort_by_key(|protein| protein.residues.clone());
    assert_ne!(shuffled, all);
    fs::write(path.join("shuffled.fasta"), fasta(&shuffled)).unwrap();
    embed("--max-batch-tokens 100", "shuffled.fasta");
    assert!(by_id(&path.join("out.npz")) == expected, "another order");
    for protein in &all[..5] {
        fs::write(path.join("one.fasta"), fasta(std::slice::from_ref(protein))).unwrap();
        embed("", "one.fasta");
        let alone = &records(&path.join("out.npz"))[0];
        assert!(*alone == expected[&protein.id], "{} alone", protein.id);
    }
}

#[test]
fn bf16_on_a_cpu_keeps_the_same_promise() {
    let folder = folder_with(&proteins(&LENGTHS[..8]));
    let embed = |rest: &str| {
        let arguments = format!("embed --model {} --dtype bf16 {rest} in.fasta", nano());
        run(folder.path(), &arguments).with(0).stdout
    };
    let reference = embed("--threads 2");
    assert!(embed("--threads 1 --max-batch-tokens 1") == reference);
    let exact = run(folder.path(), &format!("embed --model {} in.fasta", nano()));
    assert!(exact.with(0).stdout != reference, "it was f32 after all");
}

#[test]
fn int8_keeps_the_same_promise_and_says_what_it_is() {
    let folder = folder_with(&proteins(&LENGTHS[..8]));
    let path = folder.path();
    let embed = |rest: &str| {
        let arguments = format!(
            "embed --model {} --weights int8 {rest} -o out.npz in.fasta",
            nano()
        );
        run(path, &arguments).with(0);
        fs::read(path.join("out.npz")).unwrap()
    };
    let reference = embed("--threads 2");
    assert!(embed("--threads 1 --max-batch-tokens 1") == reference);
    let rounded = by_id(&path.join("out.npz"));
    let inspected = run(path, "inspect out.npz").with(0);
    let told = inspected
        .text()
        .lines()
        .find(|line| line.starts_with("weights"));
    assert!(told.is_some_and(|line| line.ends_with("int8")), "{told:?}");
    run(
        path,
        &format!("embed --model {} -o out.npz in.fasta", nano()),
    )
    .with(0);
    for (id, exact) in by_id(&path.join("out.npz")) {
        let gap = difference(&rounded[&id].values[0], &exact.values[0]);
        assert!(gap > 0.0 && gap < 0.1, "{id}: {gap}");
    }
}

/// The rows of `per_residue`, pooled in f64.
fn pooled(rows: &[f32], width: usize, pooling: &str) -> Vec<f32> {
    let column = |i: usize| rows.iter().skip(i).step_by(width).map(|v| f64::from(*v));
    let count = (rows.len() / width) as f64;
    let mean = |i: usize| column(i).sum::<f64>() / count;
    let value = |i: usize| match pooling {
        "mean" => mean(i),
        "max" => column(i).fold(f64::NEG_INFINITY, f64::max),
        "min" => column(i).fold(f64::INFINITY, f64::min),
        "std" => (column(i).map(|v| (v - mean(i)).powi(2)).sum::<f64>() / count).sqrt(),
        _ => unreachable!("{pooling}"),
    };
    (0..width).map(|i| value(i) as f32).collect()
}

#[test]
fn every_pooling_of_every_layer_is_that_of_exactly_l_rows() {
    let all = proteins(&LENGTHS);
    let folder = folder_with(&all);
    let path = folder.path();
    let poolings = ["mean", "max", "min", "std"];
    let arguments = format!(
        "embed --model {} --pooling per-residue,mean,max,min,std --layers 0,1,-2,-1 -o out.h5 in.fasta",
        tiny()
    );
    run(path, &arguments).with(0);
    let reader = EmbeddingReader::open(&path.join("out.h5")).unwrap();
    let names: Vec<String> = reader
        .schema()
        .columns
        .iter()
        .map(|c| c.name.clone())
        .collect();
    let width = reader.schema().columns[0].width;
    let found: Vec<EmbeddingRecord> = reader.map(Result::unwrap).collect();
    assert_eq!(found.len(), all.len());
    for (layer, number) in [0, 1, 2, 3].iter().enumerate() {
        assert_eq!(names[layer * 5], format!("layer_{number}/per_residue"));
        for (record, Protein { id, residues }) in found.iter().zip(&all) {
            assert_eq!((&record.id, record.length), (id, residues.len()));
            let rows = &record.values[layer * 5];
            assert_eq!(rows.len(), residues.len() * width, "{id}");
            for (i, pooling) in poolings.iter().enumerate() {
                assert_eq!(
                    names[layer * 5 + i + 1],
                    format!("layer_{number}/{pooling}")
                );
                let off = difference(
                    &record.values[layer * 5 + i + 1],
                    &pooled(rows, width, pooling),
                );
                assert!(off < 1e-6, "{id} layer {number} {pooling}: {off}");
            }
        }
    }
    // A layer alone is the same as among several, and -1 is the default.
    run(
        path,
        &format!("embed --model {} -o last.h5 in.fasta", tiny()),
    )
    .with(0);
    for (last, all) in records(&path.join("last.h5")).iter().zip(&found) {
        assert!(last.values[0] == all.values[15]);
    }
    // Layer 0 is the embedding table, so equal residues have equal rows.
    let long = &found[12];
    let letters = all[12].residues.as_bytes();
    let row = |i: usize| &long.values[0][i * width..][..width];
    assert!((0..300).all(|i| (row(i) == row(0)) == (letters[i] == letters[0])));
}

#[test]
fn prefixes_are_read_and_never_returned() {
    let folder = folder_with(&proteins(&LENGTHS[..4]));
    let embed = |prefix: &str| {
        let arguments = format!("embed --model {} {prefix} -o out.npz in.fasta", tiny());
        run(folder.path(), &arguments).with(0);
        records(&folder.path().join("out.npz"))
    };
    let runs = ["--prefix none", "--prefix nlu", "--prefix s2s"].map(embed);
    for (i, a) in runs.iter().enumerate() {
        assert!(
            a.iter()
                .zip(LENGTHS)
                .all(|(r, l)| r.values[0].len() == l * 32)
        );
        assert!(
            runs[..i].iter().all(|b| a != b),
            "the prefix makes no difference"
        );
    }
    assert!(embed("") == runs[1], "the default is nlu");
}

#[test]
fn instruction_sets_agree() {
    let folder = folder_with(&proteins(&[64, 200, 7]));
    let path = folder.path();
    let embed = |isa: &str| {
        let arguments = format!("embed --model {} -o {isa}.npz in.fasta", nano());
        let mut command = ankh3(path, &arguments);
        let output = command.env("ANKH3_CPU_ISA", isa).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.contains(isa), "{stderr}");
        records(&path.join(format!("{isa}.npz")))
    };
    let portable = embed("portable");
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for (a, b) in embed(isa.name()).iter().zip(&portable) {
            let off = difference(&a.values[0], &b.values[0]);
            assert!(off < 2e-5, "{isa:?}: {off}");
        }
    }
}

/// `ankh3 merge` relies on it (`output/merge/kernels.rs`).
#[test]
fn shards_merge_across_instruction_sets_whose_numbers_are_equal() {
    let folder = folder_with(&proteins(&LENGTHS));
    let path = folder.path();
    let embed = |isa: Isa, numbers: &str, rest: &str| {
        let arguments = format!("embed --model {} {numbers} {rest} in.fasta", nano());
        let mut command = ankh3(path, &arguments);
        let output = command.env("ANKH3_CPU_ISA", isa.name()).output().unwrap();
        Ended::from(output).with(0);
    };
    let fused = [Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];
    let widening = [Isa::Avx2, Isa::Avx512];
    for (numbers, alike) in [
        ("--dtype f32", &fused[..]),
        ("--weights int8", &fused),
        ("--dtype bf16", &widening),
    ] {
        let alike = alike.iter().filter(|isa| isa.is_available());
        let alike: Vec<Isa> = alike.copied().collect();
        let Some((first, others)) = alike.split_first() else {
            skip(Lack::Machine, "AVX2");
            return;
        };
        embed(*first, numbers, "-o one.npz");
        embed(*first, numbers, "--shard 1/2 -o part1.npz");
        for other in others {
            embed(*other, numbers, "--shard 2/2 -o part2.npz");
            run(path, "merge -o merged.npz part1.npz part2.npz").with(0);
            let (one, merged) = (path.join("one.npz"), path.join("merged.npz"));
            assert!(records(&merged) == records(&one), "{numbers}, {other:?}");
        }
        embed(Isa::Portable, numbers, "--shard 2/2 -o part2.npz");
        run(path, "merge -o merged.npz part1.npz part2.npz")
            .with(1)
            .saying(&["portable", "ANKH3_CPU_ISA"]);
    }
}
