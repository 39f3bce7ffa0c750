//! `ankh3 mask-fill`.

use std::fs;

use serde_json::Value;

use super::tiny::{
    ankh3, ankh3_command, broken, checkpoint, few_sentinels, interleave, stderr, stdout,
};

const INPUT: &str =
    ">a first protein\nMKT?YIA<mask>QR\n>b\nMKV\n>c\n?_#[MASK]<extra_id_9>\n>d\nmk<MA\nSK>XJ-V*\n";

fn records(fasta: &str) -> Vec<String> {
    fasta.split('>').skip(1).map(str::to_owned).collect()
}

#[test]
fn a_random_model_of_init_fills_masks_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let nano = folder.path().join("nano");
    let nano = nano.to_str().unwrap();
    stdout(&["init", nano], "", 0);
    let fasta = stdout(&["mask-fill", "-m", nano], INPUT, 0);
    let filled = records(&fasta);
    assert_eq!(filled.len(), 4);
    let (header, sequence) = filled[0].split_once('\n').unwrap();
    assert_eq!(header, "a first protein");
    assert!(
        sequence.starts_with("MKT") && sequence[4..].starts_with("YIA"),
        "{sequence}"
    );
    assert_eq!(filled[1], "b\nMKV\n");
    assert_eq!(filled[2].len(), "c\nMKVAL\n".len());
    assert!(
        filled[3].starts_with("d\nMK") && filled[3].ends_with("XXV\n"),
        "{fasta}"
    );
    assert!(!fasta.contains(['?', '_', '<', '[']));
}

#[test]
fn every_spelling_of_a_mask_is_the_same_mask() {
    let model = ankh3();
    let model = model.path().to_str().unwrap();
    let fill = |mask: &str| {
        let input = format!(">a\nMK{mask}AY{mask}{mask}I\n");
        stdout(&["mask-fill", "-m", model], &input, 0)
    };
    let expected = fill("?");
    for mask in [
        "_",
        "#",
        "<mask>",
        "[MASK]",
        "<extra_id_0>",
        "<extra_id_77>",
        "[mask]",
    ] {
        assert_eq!(fill(mask), expected, "{mask}");
    }
    let x = ">a\nMKXAYxXI\n";
    assert_eq!(stdout(&["mask-fill", "-m", model], x, 0), ">a\nMKXAYXXI\n");
    assert_eq!(
        stdout(&["mask-fill", "-m", model, "--mask-x"], x, 0),
        expected
    );
}

#[test]
fn an_unknown_mask_word_is_named_with_its_record() {
    let model = ankh3();
    let model = model.path().to_str().unwrap();
    let input = ">a\nMK?\n>b\nMK<msk>V\n>c\n?V\n";
    let message = stderr(&["mask-fill", "-m", model], input, 1);
    assert!(
        message.contains("record 2 (b), line 3: `<msk>` at position 3 is not a mask"),
        "{message}"
    );
    let skipped = stdout(&["mask-fill", "-m", model, "--on-bad", "skip"], input, 3);
    assert_eq!(records(&skipped).len(), 2);
    let message = stderr(&["mask-fill", "-m", model], ">a\n-\n", 1);
    assert!(
        message.contains("record 1 (a), line 1: no residues"),
        "{message}"
    );
    let message = stderr(&["mask-fill", "-m", model, "--allow", "AJ"], input, 1);
    assert!(
        message.contains("--allow: `J` cannot be allowed"),
        "{message}"
    );
    let message = stderr(&["score", "-m", model], ">a\nMK?\n", 1);
    assert!(
        message.contains("'?' at position 3 is not a residue"),
        "{message}"
    );
}

#[test]
fn shards_and_batches_give_the_same_bytes() {
    let model = ankh3();
    let model = model.path().to_str().unwrap();
    for order in ["left", "certain"] {
        let run = |more: &[&str]| {
            let arguments = [&["mask-fill", "-m", model, "--order", order][..], more].concat();
            stdout(&arguments, INPUT, 0)
        };
        let whole = run(&[]);
        assert_eq!(run(&["--max-batch-tokens", "1"]), whole);
        assert_eq!(run(&["--threads", "1", "--max-batch-tokens", "33"]), whole);
        let shards: Vec<_> = ["1/3", "2/3", "3/3"]
            .map(|shard| records(&run(&["--shard", shard])))
            .into();
        assert_eq!(interleave(&shards), records(&whole));
    }
}

#[test]
fn sites_tell_the_most_probable_residues() {
    let model = ankh3();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (fasta, tsv, jsonl) = (path("f.fasta"), path("s.tsv"), path("s.jsonl"));
    let model = model.path().to_str().unwrap();
    let run = |sites: &str| {
        let arguments = [
            "mask-fill",
            "-m",
            model,
            "-o",
            &fasta,
            "--sites",
            sites,
            "--top-k",
            "4",
        ];
        assert_eq!(stdout(&arguments, INPUT, 0), "");
    };
    run(&tsv);
    run(&jsonl);
    let filled = records(&fs::read_to_string(&fasta).unwrap());
    let table = fs::read_to_string(&tsv).unwrap();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(
        lines[0],
        ["id", "position", "filled", "rank", "residue", "probability"]
    );
    assert_eq!(lines.len() - 1, 8 * 4);
    for site in lines[1..].chunks(4) {
        let record = filled
            .iter()
            .find(|record| record.starts_with(site[0][0]))
            .unwrap();
        let position: usize = site[0][1].parse().unwrap();
        let sequence = record.split_once('\n').unwrap().1;
        assert_eq!(&sequence[position - 1..position], site[0][4]);
        assert_eq!(site[0][2], site[0][4]);
        let probabilities: Vec<f64> = site.iter().map(|line| line[5].parse().unwrap()).collect();
        assert!(
            probabilities.is_sorted_by(|a, b| a >= b),
            "{probabilities:?}"
        );
        assert!(probabilities.iter().sum::<f64>() <= 1.0 + 1e-6);
    }
    let objects: Vec<Value> = fs::read_to_string(&jsonl)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (object, line) in objects.iter().zip(&lines[1..]) {
        assert_eq!(object["residue"], line[4]);
        assert_eq!(object["probability"].to_string(), line[5]);
    }
    for made in [&fasta, &tsv] {
        let manifest: Value =
            serde_json::from_slice(&fs::read(format!("{made}.json")).unwrap()).unwrap();
        assert_eq!(
            (&manifest["command"], &manifest["prefix"]),
            (&"mask-fill".into(), &"nlu".into())
        );
    }
    let same = ankh3_command(&["mask-fill", "-m", model, "--sites", "-"], INPUT);
    assert_eq!(same.status.code(), Some(2), "both to stdout");
}

#[test]
fn more_masks_than_sentinels_are_told_of() {
    let model = checkpoint("untied-gated-silu", &few_sentinels(2));
    let model = model.path().to_str().unwrap();
    let message = stderr(&["mask-fill", "-m", model], ">a\nM?K?V?A\n>b\nM?\n", 0);
    assert!(
        message.contains("record 1 (a), line 1: 3 masks, more than the 2 sentinels"),
        "{message}"
    );
    assert!(!message.contains("(b)"), "{message}");
}

#[test]
fn a_run_is_resumed_where_it_was_cut_off() {
    let model = ankh3();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (whole, fasta, sites) = (path("whole.fasta"), path("f.fasta"), path("s.tsv"));
    let model = model.path().to_str().unwrap();
    let base = ["mask-fill", "-m", model, "--max-batch-tokens", "1"];
    stdout(&[&base[..], &["-o", &whole]].concat(), INPUT, 0);
    // The third record is bad: the first two are done, and stay so.
    let resume = [&base[..], &["-o", &fasta, "--sites", &sites, "--resume"]].concat();
    let bad = INPUT.replace("?_#", "?_@");
    let message = stderr(&resume, &bad, 1);
    assert!(message.contains("'@'"), "{message}");
    assert!(!fs::exists(&fasta).unwrap() && fs::exists(format!("{fasta}.resume")).unwrap());
    let message = stderr(&resume, INPUT, 0);
    assert!(message.contains("resuming: "), "{message}");
    assert_eq!(fs::read(&fasta).unwrap(), fs::read(&whole).unwrap());
    assert!(!fs::exists(format!("{fasta}.resume")).unwrap());
    assert_eq!(
        fs::read_to_string(&sites).unwrap().lines().count(),
        1 + 8 * 3
    );
}

#[test]
fn logits_that_are_not_finite_are_no_result() {
    let model = broken();
    let model = model.path().to_str().unwrap();
    let input = ">a\nMKV\n>b\nM?V\n";
    let message = stderr(&["mask-fill", "-m", model], input, 1);
    assert!(
        message.contains("record 2 (b), line 3: the model's result holds NaN"),
        "{message}"
    );
    let skipped = stdout(&["mask-fill", "-m", model, "--on-bad", "skip"], input, 3);
    assert_eq!(skipped, ">a\nMKV\n");
}
