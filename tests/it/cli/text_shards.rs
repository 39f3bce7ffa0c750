use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::refusals::model_that_cannot_bear;
use super::support::{Ended, bytes, folder_with, names, proteins, residue_classes, run, tiny};

const LENGTHS: [usize; 11] = [12, 3, 30, 7, 21, 2, 9, 16, 5, 40, 8];

/// Checks that `count` merged shards have the bytes of one run with `flags`, manifests included.
/// `output` is the name of the file, `also` that of another output.
#[track_caller]
fn merged_is_whole(folder: &Path, flags: &str, output: &str, also: Option<&str>, code: i32) {
    let file = |prefix: &str, name: &str| format!("{prefix}-{name}");
    let flags_for = |prefix: &str| {
        let sites = also.map(|name| format!("--sites {}", file(prefix, name)));
        let output = file(prefix, output);
        format!("{flags} -o {output} {}", sites.unwrap_or_default())
    };
    run(folder, &flags_for("whole")).with(code);
    for count in [1, 3, 13] {
        for i in 1..=count {
            let shard = format!(
                "{} --shard {i}/{count}",
                flags_for(&format!("{i}of{count}"))
            );
            let ended = run(folder, &shard);
            assert!(
                ended.code == Some(0) || ended.code == Some(code),
                "{}",
                ended.stderr
            );
        }
        for name in [Some(output), also].into_iter().flatten() {
            // Shards may be given in any order.
            let shards: Vec<String> = (1..=count)
                .rev()
                .map(|i| file(&format!("{i}of{count}"), name))
                .collect();
            let merged = file("merged", name);
            run(folder, &format!("merge -o {merged} {}", shards.join(" "))).with(0);
            let [whole, merged] =
                [file("whole", name), merged].map(|name| bytes(&folder.join(name)));
            assert!(whole == merged, "{flags} {name} of {count}");
            // The manifest of matrices is in the file.
            assert_eq!(whole[1].is_some(), !name.ends_with("npz"), "a manifest");
        }
    }
}

#[test]
fn shards_of_completions_become_the_file_of_one_run() {
    let folder = folder_with(&proteins(&LENGTHS));
    let complete = format!("complete --model {} in.fasta", tiny());
    for flags in [
        "",
        "--temperature 2 --num-samples 3 --seed 4",
        "--keep 2 --num-beams 3 --num-samples 2 --output-part completion",
    ] {
        merged_is_whole(
            folder.path(),
            &format!("{complete} --on-bad skip {flags}"),
            "out.fasta",
            None,
            // With --keep 2 the protein of two residues leaves nothing to write.
            if flags.contains("--keep 2") { 3 } else { 0 },
        );
    }
}

#[test]
fn shards_of_filled_masks_become_the_files_of_one_run() {
    let mut all = proteins(&LENGTHS);
    for (number, protein) in all.iter_mut().enumerate() {
        // Every third protein has no mask, hence no site.
        let masks = number % 3;
        protein
            .residues
            .replace_range(..masks.min(2), &"?_"[..masks.min(2)]);
    }
    let folder = folder_with(&all);
    let flags = format!("mask-fill --model {} --top-k 2 in.fasta", tiny());
    for sites in ["sites.tsv", "sites.jsonl"] {
        merged_is_whole(folder.path(), &flags, "out.fasta", Some(sites), 0);
    }
}

#[test]
fn shards_of_scores_become_the_table_of_one_run() {
    let all = proteins(&LENGTHS);
    let folder = folder_with(&all);
    let path = folder.path();
    let first = |number: usize, mutant: &str| {
        let residue = &all[number].residues[..1];
        format!("{}\t{residue}1{mutant}\n", all[number].id)
    };
    // Most proteins have no variant, some several.
    let variants = [first(2, "A"), first(2, "C"), first(7, "W"), first(9, "D")];
    fs::write(path.join("variants.tsv"), variants.concat()).unwrap();
    let score = format!("score --model {} in.fasta --mask-fraction 0.3", tiny());
    for (flags, output) in [
        ("", "out.tsv"),
        ("", "out.jsonl"),
        ("--per-residue", "out.csv"),
        ("--variants variants.tsv --method pll", "out.tsv"),
        ("--scan --method wild-type", "out.jsonl"),
    ] {
        merged_is_whole(path, &format!("{score} {flags}"), output, None, 0);
    }
}

#[test]
fn shards_of_deep_mutational_scans_keep_every_correlation() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = format!("score --model {}", tiny());
    for name in ["C_2020", "A_2021", "B_2022", "D_2023"] {
        let rows = "M1A,AKTAY,1.5\nK2C,MCTAY,0.5\nT3G,MKGAY,2.5\n";
        let csv = folder.path().join(format!("{name}.csv"));
        fs::write(csv, format!("mutant,mutated_sequence,DMS_score\n{rows}")).unwrap();
        write!(flags, " --dms {name}.csv").unwrap();
    }
    merged_is_whole(folder.path(), &flags, "out.tsv", None, 0);
    let manifest = fs::read(folder.path().join("merged-out.tsv.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["spearman"].as_object().unwrap().len(), 4);
}

#[test]
fn shards_of_contacts_become_the_file_of_one_run() {
    let folder = folder_with(&proteins(&LENGTHS));
    let contacts = format!(
        "predict-contacts --model {} --method jacobian --jacobian-outputs hidden in.fasta",
        tiny()
    );
    for (flags, output) in [
        ("", "out.rr"),
        // Proteins shorter than this have no pair, hence no row.
        ("--min-separation 9", "out.tsv"),
        ("", "out.npz"),
    ] {
        merged_is_whole(
            folder.path(),
            &format!("{contacts} {flags}"),
            output,
            None,
            0,
        );
    }
}

#[test]
fn shards_of_predictions_become_the_table_of_one_run() {
    let folder = folder_with(&proteins(&LENGTHS));
    let path = folder.path();
    fs::write(path.join("t.csv"), residue_classes()).unwrap();
    let train = "probe train --train t.csv --split-column split --label-column state --task residues --epochs 1 --features onehot --feature-width 20 --body linear -o head";
    run(path, train).with(0);
    for (flags, output) in [("", "out.tsv"), ("--per-residue", "out.jsonl")] {
        let predict = format!("probe predict --head head in.fasta {flags}");
        merged_is_whole(path, &predict, output, None, 0);
    }
}

/// A sequence that a shard left out has no rows, and the others stay in order.
#[test]
fn what_a_shard_left_out_moves_nothing() {
    let mut all = proteins(&LENGTHS);
    for (number, protein) in all.iter_mut().enumerate() {
        let odd = if number == 4 || number == 5 { "W" } else { "A" };
        protein.residues = protein.residues.replace('W', "A").replace('X', "C") + odd;
    }
    let folder = folder_with(&all);
    let model = model_that_cannot_bear(folder.path(), b'W');
    let on_bad = format!("--model {model} --on-bad skip in.fasta");
    for (command, output) in [
        (format!("score {on_bad} --mask-fraction 0.5"), "out.tsv"),
        (
            format!("complete {on_bad} --keep all --length 50 --allow ACDEFGHIKLMNPQRSTVY"),
            "out.fasta",
        ),
    ] {
        merged_is_whole(folder.path(), &command, output, None, 3);
    }
}

#[test]
fn files_without_shards_are_laid_end_to_end() {
    let folder = folder_with(&proteins(&[5, 6]));
    let path = folder.path();
    fs::write(path.join("more.fasta"), ">x\nMKTAY\n>y\nGAVLI\n").unwrap();
    let score = |input: &str, output: &str| {
        run(
            path,
            &format!("score --model {} -o {output} {input}", tiny()),
        )
        .with(0);
    };
    score("in.fasta", "a.tsv");
    score("more.fasta", "b.tsv");
    score("in.fasta more.fasta", "whole.tsv");
    run(path, "merge -o merged.tsv a.tsv b.tsv").with(0);
    assert!(bytes(&path.join("merged.tsv"))[0] == bytes(&path.join("whole.tsv"))[0]);
    let manifest = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(path.join(name)).unwrap()).unwrap()
    };
    // The two inputs together have no digest.
    let mut whole = manifest("whole.tsv.json");
    assert_eq!(whole["input"]["records"], 4);
    whole.as_object_mut().unwrap().shift_remove("input");
    assert_eq!(manifest("merged.tsv.json"), whole);
    let quiet = run(path, "merge a.tsv b.tsv").with(0);
    assert!(!quiet.stderr.contains("manifest:"), "{}", quiet.stderr);
    let piped = run(path, "merge -v a.tsv b.tsv")
        .with(0)
        .saying(&["manifest: {"]);
    assert_eq!(piped.stdout, fs::read(path.join("whole.tsv")).unwrap());
    run(path, "merge -o twice.tsv a.tsv a.tsv")
        .with(1)
        .saying(&["a.tsv: the id `sp|P00000|RANDOM/1-5` is already in"]);
    assert!(!names(path).contains(&"twice.tsv".to_owned()));
}

/// Files of earlier versions have no digest of their input: the merge gives one warning and
/// continues.
#[test]
fn shards_of_the_former_version_are_merged_with_one_warning() {
    let folder = folder_with(&proteins(&[12, 9, 15]));
    let path = folder.path();
    let mut manifests = Vec::new();
    for i in 1..=2 {
        let score = format!("score --model {} -o {i}.tsv --shard {i}/2 in.fasta", tiny());
        run(path, &score).with(0);
        let name = path.join(format!("{i}.tsv.json"));
        let mut manifest: Value = serde_json::from_slice(&fs::read(&name).unwrap()).unwrap();
        let keys = manifest.as_object_mut().unwrap();
        for key in ["written", "settings_sha256"] {
            assert!(keys.shift_remove(key).is_some(), "no {key}");
        }
        manifests.push(keys.shift_remove("input").unwrap());
        fs::write(name, manifest.to_string()).unwrap();
    }
    assert_eq!(manifests[0], manifests[1], "every shard reads all records");
    assert_eq!(
        (&manifests[0]["records"], &manifests[0]["residues"]),
        (&3.into(), &36.into())
    );
    let merged = run(path, "merge -o merged.tsv 1.tsv 2.tsv").with(0);
    assert_eq!(
        merged
            .stderr
            .matches("have no digest of their input")
            .count(),
        1
    );
    let manifest: Value =
        serde_json::from_slice(&fs::read(path.join("merged.tsv.json")).unwrap()).unwrap();
    assert!(manifest["input"].is_null() && manifest["written"] == 3);
}

#[test]
fn what_does_not_belong_together_says_why_and_leaves_nothing() {
    let folder = folder_with(&proteins(&[12, 9, 15, 7]));
    let path = folder.path();
    let model = tiny();
    let make = |command: &str, output: &str, flags: &str| -> Ended {
        let arguments = format!("{command} --model {model} -o {output} {flags} in.fasta");
        run(path, &arguments).with(0)
    };
    make("score", "s1.tsv", "--shard 1/2");
    make("score", "s2.tsv", "--shard 2/2");
    make("score", "s3.tsv", "--shard 1/3");
    make("score", "seed.tsv", "--shard 2/2 --mask-fraction 0.5");
    make("score", "lines.jsonl", "--shard 2/2");
    make("complete", "c1.fasta", "--shard 1/2");
    make("embed", "e.npz", "--pooling mean");
    fs::write(path.join("bare.fasta"), ">a/1\nMKT\n").unwrap();
    let short = fs::read_to_string(path.join("s2.tsv")).unwrap();
    let short: Vec<&str> = short.lines().take(2).collect();
    fs::write(path.join("short.tsv"), short.join("\n") + "\n").unwrap();
    fs::copy(path.join("s2.tsv.json"), path.join("short.tsv.json")).unwrap();
    let whole = fs::read(path.join("s2.tsv")).unwrap();
    fs::write(path.join("cut.tsv"), &whole[..whole.len() - 1]).unwrap();
    fs::copy(path.join("s2.tsv.json"), path.join("cut.tsv.json")).unwrap();
    fs::write(path.join("other.fasta"), ">a\nMKTAY\n>b\nGAVLI\n").unwrap();
    let other = format!("score --model {model} -o other.tsv --shard 2/2 other.fasta");
    run(path, &other).with(0);
    let before = names(path);
    let cases = [
        (1, "s1.tsv", "shard 2/2 is missing"),
        (1, "s1.tsv s1.tsv", "are both shard 1/2"),
        (
            1,
            "s1.tsv s3.tsv",
            "shard is 1/2 in the first, 1/3 in the second",
        ),
        (
            1,
            "s1.tsv seed.tsv",
            "mask_fraction is absent in the first, 0.5 in the second",
        ),
        (1, "s1.tsv lines.jsonl", "format is \"tsv\" in the first"),
        (1, "s1.tsv c1.fasta", "command is \"score\" in the first"),
        (
            1,
            "s1.tsv e.npz",
            "s1.tsv is a tab-separated table, and e.npz is not",
        ),
        (1, "e.npz s1.tsv", "merge files of one kind"),
        (1, "c1.fasta bare.fasta", "no bare.fasta.json beside it"),
        (1, "bare.fasta", "no bare.fasta.json beside it"),
        (1, "s1.tsv nowhere.tsv", "nowhere.tsv"),
        (
            1,
            "s1.tsv short.tsv",
            "short.tsv: the file has 1 rows, but 2 according to short.tsv.json",
        ),
        (
            1,
            "s1.tsv cut.tsv",
            "cut.tsv: the last line has no line break, so the file is truncated",
        ),
        (
            1,
            "s1.tsv other.tsv",
            "s1.tsv and other.tsv cannot be merged: they were made from different inputs",
        ),
        (
            2,
            "--format npz s1.tsv s2.tsv",
            "--format and --out-dtype are for embeddings",
        ),
    ];
    for (code, arguments, says) in cases {
        let output = if arguments.contains("e.npz") || arguments == "bare.fasta" {
            "out.npz"
        } else {
            "out.tsv"
        };
        run(path, &format!("merge -o {output} {arguments}"))
            .with(code)
            .saying(&[says]);
        assert_eq!(names(path), before, "{arguments}");
    }
}
