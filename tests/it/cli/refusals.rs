use std::fs;
use std::path::Path;

use ankh3::tokenizer::{TaskPrefix, Tokenizer};
use safetensors::SafeTensors;

use super::support::{ankh3, folder_with, names, proteins, records, run, tiny, tiny_dir};

/// A copy of the tiny model whose embedding of one residue is NaN.
pub fn model_that_cannot_bear(folder: &Path, residue: u8) -> String {
    let dir = folder.join("nan");
    fs::create_dir(&dir).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(tiny_dir().join(name), dir.join(name)).unwrap();
    }
    let encoding = Tokenizer::ankh3()
        .encode(&[residue], TaskPrefix::Nlu)
        .unwrap();
    let id = encoding.token_ids[encoding.first_residue] as usize;
    let mut bytes = fs::read(tiny_dir().join("model.safetensors")).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let table = metadata.info("shared.weight").unwrap();
    let row = 8 + header + table.data_offsets.0 + id * table.shape[1] * 4;
    bytes[row..row + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(dir.join("model.safetensors"), bytes).unwrap();
    dir.display().to_string()
}

#[test]
fn results_that_are_no_numbers_are_not_written() {
    let mut all = proteins(&[3, 3, 3]);
    for (protein, residues) in all.iter_mut().zip(["ACD", "AWD", "DCA"]) {
        protein.residues = residues.to_owned();
    }
    let folder = folder_with(&all);
    let path = folder.path();
    let model = model_that_cannot_bear(path, b'W');
    let embed = |rest: &str| {
        let arguments = format!("embed --model {model} -o out.npz {rest} in.fasta");
        run(path, &arguments)
    };
    let says = ["in.fasta: record 2 (sp|P00001|RANDOM/1-3), line 3", "NaN"];
    embed("").with(1).saying(&says);
    assert_eq!(names(path), ["in.fasta", "nan"]);
    embed("--on-bad skip").with(3).saying(&says);
    let written = records(&path.join("out.npz"));
    let ids: Vec<&str> = written.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, [&all[0].id, &all[2].id]);
    // With --shard, a missing sequence is an error, because the shards could not be merged in
    // order.
    embed("--on-bad skip --shard 2/2").with(1).saying(&says);
    embed("--on-bad skip --shard 1/2").with(0);
}

#[test]
fn devices_and_instruction_sets_that_are_not_there() {
    let folder = folder_with(&proteins(&[5]));
    let path = folder.path();
    let arguments = format!("embed --model {} -o out.npz in.fasta", tiny());
    if cfg!(not(feature = "cuda")) {
        run(path, &format!("{arguments} --device cuda"))
            .with(1)
            .saying(&["cuda:0 was requested", "--features cuda", "--device cpu"]);
    }
    run(path, &format!("{arguments} --device tpu"))
        .with(2)
        .saying(&["auto, cpu, cuda, cuda:N or cuda:all"]);
    let mut nonsense = ankh3(path, &arguments);
    let ended = nonsense.env("ANKH3_CPU_ISA", "nonsense").output().unwrap();
    super::support::Ended::from(ended)
        .with(1)
        .saying(&["ANKH3_CPU_ISA=nonsense", "portable, avx2, avx512"]);
    assert_eq!(names(path), ["in.fasta"]);
}

#[test]
fn usage_is_exit_code_2_and_failure_1() {
    let folder = folder_with(&proteins(&[5]));
    let path = folder.path();
    let model = tiny();
    let usage = [
        String::new(),
        "embde".to_owned(),
        format!("embed --model {model} --poling mean in.fasta"),
        format!("embed --model {model} --pooling median in.fasta"),
        format!("embed --model {model} --shard 3/2 in.fasta"),
        format!("embed --model {model} --max-batch-tokens 0 in.fasta"),
        format!("embed --model {model} --over chunk in.fasta"),
        format!("embed --model {model} --quiet --verbose in.fasta"),
        format!("embed --model {model} -o x.csv in.fasta"),
        format!("embed --model {model} --resume -o - in.fasta"),
        format!("predict-contacts --model {model} --resume in.fasta"),
        "probe predict --head no-head --shard 0/2 in.fasta".to_owned(),
        format!("complete --model {model} -o in.fasta in.fasta"),
        format!("mask-fill --model {model} -o out.fasta --sites ./in.fasta in.fasta"),
        // Errors that need no model are found before a model is opened.
        "score --model nowhere --max-length 5 --over chunk in.fasta".to_owned(),
        "predict-contacts --model nowhere -o x.csv in.fasta".to_owned(),
        format!("embed --model {model} --max-length 8 --over chunk --overlap 7 in.fasta"),
        "pretrain".to_owned(),
    ];
    for arguments in usage {
        run(path, &arguments).with(2);
    }
    let failures = [
        (
            "embed --model nowhere -o x.npz in.fasta".to_owned(),
            "nowhere",
        ),
        (
            "embed --model ankh3-large -o x.npz in.fasta".to_owned(),
            "ankh3 fetch ankh3-large",
        ),
        (
            format!("embed --model {model} -o x.npz --layers 4 in.fasta"),
            "layers 0 to 3",
        ),
        (
            format!("embed --model {model} -o x.npz --layers 3,-1 in.fasta"),
            "requested twice",
        ),
        (
            format!("embed --model {model} -o x.npz --out-dtype bf16 in.fasta"),
            "safetensors",
        ),
        (
            "embed --model nowhere -o no/such/x.npz in.fasta".to_owned(),
            "no/such",
        ),
        (
            "complete --model nowhere -o no/such/x.fasta in.fasta".to_owned(),
            "no/such",
        ),
        (
            "probe train --task number --model nowhere --train in.fasta --plot no/such/x.png -o head".to_owned(),
            "no/such",
        ),
        (
            "probe train --task number --model nowhere --train in.fasta -o in.fasta/head".to_owned(),
            "in.fasta is not a directory",
        ),
        (
            "contacts evaluate --model nowhere --structures in.fasta -o no/such/x.tsv".to_owned(),
            "no/such",
        ),
        (
            "predict-contacts --model nowhere --plot x.png --native missing.cif in.fasta".to_owned(),
            "missing.cif",
        ),
        (
            "predict-contacts --model nowhere missing.fasta".to_owned(),
            "missing.fasta",
        ),
        (
            format!("embed --model {model} -o . --format npz in.fasta"),
            "directory",
        ),
    ];
    for (arguments, says) in failures {
        run(path, &arguments).with(1).saying(&[says]);
    }
    assert_eq!(names(path), ["in.fasta"]);
}

/// A failed first try with --resume must not stand in the way of the second.
#[test]
fn a_mistake_under_resume_is_forgiven() {
    let folder = folder_with(&proteins(&[5]));
    let path = folder.path();
    let embed = |rest: &str| {
        let arguments = format!(
            "embed --model {} --resume -o out.npz {rest} in.fasta",
            tiny()
        );
        run(path, &arguments)
    };
    embed("--out-dtype bf16").with(1);
    embed("").with(0);
    assert_eq!(names(path), ["in.fasta", "out.npz"]);
}

/// A workflow module names a device and threads before the options of its user.
#[test]
fn a_later_device_and_later_threads_win() {
    let folder = folder_with(&proteins(&[9]));
    let flags = "--device cuda:all --threads 2 --device cpu --threads 1";
    let tiny = tiny();
    for command in [
        format!("embed --model {tiny} {flags} -o out.tsv in.fasta"),
        format!("score --model {tiny} {flags} -o scores.tsv in.fasta"),
        format!("doctor {flags}"),
    ] {
        run(folder.path(), &command).with(0);
    }
    // Other options are still given once.
    run(
        folder.path(),
        &format!("embed --model {tiny} -o a.tsv -o b.tsv in.fasta"),
    )
    .with(2)
    .saying(&["--output"]);
}
