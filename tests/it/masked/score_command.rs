//! `ankh3 score`.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use super::tiny::{ankh3, broken, golden, interleave, stderr, stdout};

const INPUT: &str =
    ">a first\nMKTAYIAKQRXISFVKSHFSRQ\n>b\nM\n>c\nXX\n>d\nGAVLIMCFYWHKRQNEDSTP\n>e\nmkuta*\n";
const VARIANTS: &str = "id\tvariants\na\tM1A\na\tM1A:T3G\nd\tG1A\nd\tP20W\n";

/// Scores with a tiny model; `more` beside model and threads.
fn score(more: &[&str], input: &str, code: i32) -> String {
    let model = ankh3();
    let model = model.path().to_str().unwrap();
    stdout(&[&["score", "-m", model][..], more].concat(), input, code)
}

fn complaint(more: &[&str], input: &str, code: i32) -> String {
    let model = ankh3();
    let model = model.path().to_str().unwrap();
    stderr(&[&["score", "-m", model][..], more].concat(), input, code)
}

fn lines(table: &str) -> Vec<String> {
    table.lines().skip(1).map(str::to_owned).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn a_protein_a_line_as_transformers_scores_it() {
    let expected = fs::read(golden("untied-gated-silu").join("scores.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let sequence = expected["sequence"].as_str().unwrap();
    let table = score(&[], &format!(">a\n{sequence}\n>b\nXX\n"), 0);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let header = [
        "id",
        "length",
        "scored",
        "log_likelihood",
        "pseudo_perplexity",
    ];
    assert_eq!(rows[0], header);
    assert_eq!(rows[1][..3], ["a", "33", "31"]);
    let (found, exact): (f64, f64) = (
        rows[1][3].parse().unwrap(),
        expected["log_likelihood"].as_f64().unwrap(),
    );
    assert!(
        (found - exact).abs() < 2e-5 * exact.abs(),
        "{found} for {exact}"
    );
    let perplexity: f64 = rows[1][4].parse().unwrap();
    assert!(
        (perplexity / (-exact / 31.0).exp() - 1.0).abs() < 1e-3,
        "{perplexity}"
    );
    assert_eq!(rows[2], ["b", "2", "0", "NaN", "NaN"]);
}

#[test]
fn batches_shards_and_threads_change_no_byte() {
    let table = file(VARIANTS);
    let table = table.path().to_str().unwrap();
    let modes: [&[&str]; 7] = [
        &[],
        &["--mask-fraction", "0.2", "--seed", "5"],
        &["--per-residue", "--format", "jsonl"],
        &["--scan"],
        &["--scan", "--method", "wild-type"],
        &["--variants", table, "--method", "pll"],
        &["--variants", table],
    ];
    for mode in modes {
        let run = |more: &[&str]| score(&[mode, more].concat(), INPUT, 0);
        let whole = run(&[]);
        assert_eq!(run(&["--max-batch-tokens", "1"]), whole, "{mode:?}");
        assert_eq!(
            run(&["--max-batch-tokens", "77", "--threads", "1"]),
            whole,
            "{mode:?}"
        );
    }
    let whole = score(&["--mask-fraction", "0.2"], INPUT, 0);
    let shards: Vec<_> = ["1/2", "2/2"]
        .map(|shard| {
            lines(&score(
                &["--mask-fraction", "0.2", "--shard", shard],
                INPUT,
                0,
            ))
        })
        .into();
    assert_eq!(interleave(&shards), lines(&whole));
    assert_ne!(
        score(&["--mask-fraction", "0.2", "--seed", "9"], INPUT, 0),
        whole
    );
}

#[test]
fn every_sequence_and_every_residue_has_its_row() {
    assert_eq!(lines(&score(&[], INPUT, 0)).len(), 5);
    assert_eq!(
        lines(&score(&["--per-residue"], INPUT, 0)).len(),
        22 + 1 + 2 + 20 + 5
    );
    // 19 substitutions of each of the standard residues.
    assert_eq!(
        lines(&score(&["--scan"], INPUT, 0)).len(),
        19 * (21 + 1 + 20 + 4)
    );
}

#[test]
fn tables_lists_and_scans_agree() {
    let table = file(VARIANTS);
    let found = score(&["--variants", table.path().to_str().unwrap()], INPUT, 0);
    let found = lines(&found);
    let names: Vec<&str> = found
        .iter()
        .map(|line| line.rsplit_once('\t').unwrap().0)
        .collect();
    assert_eq!(names, ["a\tM1A", "a\tM1A:T3G", "d\tG1A", "d\tP20W"]);
    let scan = score(&["--scan"], INPUT, 0);
    for line in [&found[0], &found[2], &found[3]] {
        let (name, number) = line.rsplit_once('\t').unwrap();
        let row = scan
            .lines()
            .find(|row| row.starts_with(&format!("{name}\t")))
            .unwrap();
        assert_eq!(row.rsplit_once('\t').unwrap().1, number);
    }
    let listed = score(
        &["--variant", "M1A", "--variant", "K2W"],
        ">a\nMKT\n>b\nMKA\n",
        0,
    );
    assert_eq!(lines(&listed).len(), 4);
}

#[test]
fn a_wrong_wild_type_is_named_with_record_and_position() {
    let message = complaint(&["--variant", "A2G"], ">a\nMKT\n", 1);
    assert!(
        message
            .contains("stdin: record 1 (a), line 1: A2G: the sequence has K at position 2, not A"),
        "{message}"
    );
    let message = complaint(&["--variant", "K9G"], ">a\nMKT\n", 1);
    assert!(
        message.contains("no position 9, the sequence has 3 residues"),
        "{message}"
    );
    let input = ">a\nMKT\n>b\nMAT\n";
    let rows = score(&["--variant", "A2G", "--on-bad", "skip"], input, 3);
    assert_eq!(lines(&rows).len(), 1);
    assert!(lines(&rows)[0].starts_with("b\tA2G\t"));
    let message = complaint(&["--variant", "A2G", "--variant", "whatever"], input, 1);
    assert!(
        message.contains("--variant: `whatever` is not a substitution"),
        "{message}"
    );
    let table = file("zz\tM1A\na\tM1A\n");
    let table = table.path().to_str().unwrap();
    let message = complaint(&["--variants", table], input, 1);
    assert!(message.contains("variants are listed for zz"), "{message}");
    assert_eq!(
        lines(&score(&["--variants", table, "--on-bad", "skip"], input, 3)).len(),
        1
    );
    // A shard also reads the ids of the other shards.
    let table = file("b\tM1A\na\tM1A\n");
    let arguments = [
        "--variants",
        table.path().to_str().unwrap(),
        "--shard",
        "1/2",
    ];
    assert_eq!(lines(&score(&arguments, input, 0)).len(), 1);
}

/// Twenty variants of one protein with made-up measurements.
fn dms() -> (tempfile::TempDir, String) {
    let residues = b"MKTAYIAKQR";
    let mut text = "mutant,mutated_sequence,DMS_score,DMS_score_bin\n".to_owned();
    for (number, mutant) in b"ACDEFGHILN".iter().enumerate() {
        let mut mutated = residues.to_vec();
        let wild_type = char::from(std::mem::replace(&mut mutated[number], *mutant));
        let mutated = String::from_utf8(mutated).unwrap();
        let (position, mutant) = (number + 1, char::from(*mutant));
        let measured = (number * 7 % 10) as f64 / 4.0;
        writeln!(text, "{wild_type}{position}{mutant},{mutated},{measured},0").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("TOY_2020.csv");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn a_deep_mutational_scan_is_scored_and_correlated() {
    let (folder, path) = dms();
    let output = folder.path().join("scores.tsv");
    let output = output.to_str().unwrap();
    let message = complaint(&["--dms", &path, "-o", output], "", 0);
    let rows = lines(&fs::read_to_string(output).unwrap());
    assert_eq!(rows.len(), 10);
    assert!(rows[0].starts_with("TOY_2020\tM1A\t"), "{}", rows[0]);
    let pairs: Vec<(f64, f64)> = rows
        .iter()
        .map(|row| row.split('\t').collect::<Vec<_>>())
        .map(|row| (row[2].parse().unwrap(), row[3].parse().unwrap()))
        .collect();
    let rho = ankh3::inference::score::spearman(&pairs).unwrap();
    assert!(
        message.contains(&format!("TOY_2020: Spearman {rho:.4} over 10 variants")),
        "{message}"
    );
    let manifest: Value =
        serde_json::from_slice(&fs::read(format!("{output}.json")).unwrap()).unwrap();
    assert!((manifest["spearman"]["TOY_2020"].as_f64().unwrap() - rho).abs() < 1e-9);
    // The same variants of the same protein, given as FASTA and a table.
    let variants: Vec<String> = rows
        .iter()
        .map(|row| row.split('\t').nth(1).unwrap().to_owned())
        .collect();
    let table = file(&variants.join("\n"));
    let listed = score(
        &["--variants", table.path().to_str().unwrap()],
        ">TOY_2020\nMKTAYIAKQR\n",
        0,
    );
    let without_measurement = |row: &String| row.rsplit_once('\t').unwrap().0.to_owned();
    assert_eq!(
        lines(&listed),
        rows.iter().map(without_measurement).collect::<Vec<_>>()
    );
}

#[test]
fn invalid_rows_of_tables_are_listed_and_left_out() {
    let (_folder, path) = dms();
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("Q9A,MKTAYIAKAR,,\nQ9C,MKTAYIAKCR,NaN,\n,MKTAYIAKCR,1,\nQ9D,MKTAYIAKDR,1\n");
    fs::write(&path, &text).unwrap();
    let message = complaint(&["--dms", &path], "", 1);
    assert!(
        message.contains("line 12, column DMS_score: empty; correct it, or leave it out"),
        "{message}"
    );
    let message = complaint(&["--dms", &path, "--on-bad", "skip"], "", 3);
    for part in [
        "line 12, column DMS_score: empty",
        "line 13, column DMS_score: `NaN` is not a number",
        "line 14, column mutant: empty",
        "line 15: 3 fields where the header has 4",
        "4 variants left out",
        "over 10 variants",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let table = file("variant;note\np.Met1Ala;x\np.Met1del;x\n;x\nM1=;x\nM1*;x\n");
    let arguments = [
        "--variants",
        table.path().to_str().unwrap(),
        "--on-bad",
        "skip",
    ];
    let message = complaint(&arguments, ">a\nMKT\n", 3);
    for part in [
        "no column of ids",
        "line 3: `Met1del` is a deletion",
        "line 4, column variant: empty",
        "line 5: `M1=` is no change",
        "line 6: `M1*` is a stop codon",
        "4 variants left out",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn every_notation_and_every_table_gives_the_same_scores() {
    let input = ">p\nMKTAYIAKQR\n";
    let plain = file("p\tK2A:T3S\n");
    let rows = |path: &str| lines(&score(&["--variants", path], input, 0));
    let expected = rows(plain.path().to_str().unwrap());
    assert!(expected[0].starts_with("p\tK2A:T3S\t"), "{expected:?}");
    for text in [
        "p\tK2A,T3S\n",
        "p;T3S/K2A\n",
        "p,\"K2A,T3S\"\n",
        "p\tp.[Lys2Ala;Thr3Ser]\n",
        "protein,mutant\r\np,p.(Lys2Ala):p.Thr3Ser\r\n",
        "sep=;\nscore;id;mutations\n0,5;p;K2A+T3S\n",
        ",mutant,score\n0,K2A:T3S,0.5\n",
    ] {
        let table = file(text);
        assert_eq!(rows(table.path().to_str().unwrap()), expected, "{text:?}");
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        fs::write(
            table.path(),
            units.flat_map(u16::to_be_bytes).collect::<Vec<u8>>(),
        )
        .unwrap();
        assert_eq!(rows(table.path().to_str().unwrap()), expected, "{text:?}");
    }
}

#[test]
fn a_deep_mutational_scan_must_fit_itself() {
    let header = "mutant,mutated_sequence,DMS_score\n";
    for (rows, what) in [
        (
            "M1A,MKT,1\n",
            "line 2: mutated_sequence and mutant contradict each other: ",
        ),
        (
            "M1A,AKT,1\nK2A,MAV,1\n",
            "line 3: K2A: its wild type differs",
        ),
        ("", "no variant in it"),
    ] {
        let table = file(&format!("{header}{rows}"));
        let message = complaint(&["--dms", table.path().to_str().unwrap()], "", 1);
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn a_scan_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    for (name, magic) in [("heat.png", &b"\x89PNG"[..]), ("heat.svg", b"<svg")] {
        let path = folder.path().join(name);
        let picture = path.to_str().unwrap();
        score(&["--scan", "--plot", picture], ">a\nMKTAYIAKQR\n", 0);
        assert!(fs::read(&path).unwrap().starts_with(magic), "{name}");
    }
    let two = ["--scan", "--plot", "heat.png"];
    assert!(complaint(&two, ">a\nMK\n>b\nMK\n", 2).contains("--plot draws one protein"));
    let other = ["--scan", "--plot", "heat.gif"];
    assert!(complaint(&other, ">a\nMK\n", 2).contains("a picture is .png or .svg"));
}

#[test]
fn a_run_is_resumed_where_it_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (whole, output) = (path("whole.tsv"), path("o.tsv"));
    let model = ankh3();
    let model = model.path().to_str().unwrap();
    let base = [
        "score",
        "-m",
        model,
        "--max-batch-tokens",
        "1",
        "--mask-fraction",
        "0.3",
    ];
    stdout(&[&base[..], &["-o", &whole]].concat(), INPUT, 0);
    let resume = [&base[..], &["-o", &output, "--resume"]].concat();
    let bad = INPUT.replace("mkuta", "m@uta");
    stderr(&resume, &bad, 1);
    let message = stderr(&resume, INPUT, 0);
    assert!(message.contains("resuming: "), "{message}");
    assert_eq!(fs::read(&output).unwrap(), fs::read(&whole).unwrap());
    // Another seed is another run.
    stderr(&resume, &bad, 1);
    let message = stderr(&[&resume[..], &["--seed", "1"]].concat(), INPUT, 1);
    assert!(message.contains("another run"), "{message}");
    let message = stderr(&[&base[..], &["--resume", "-o", "-"]].concat(), INPUT, 2);
    assert!(message.contains("--resume needs a file"), "{message}");
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let input = ">a\nMKT\n";
    let message = complaint(
        &["--scan", "--method", "masked", "--mask-fraction", "0.1"],
        input,
        2,
    );
    assert!(message.contains("masks one residue at a time"), "{message}");
    complaint(&["--method", "pll"], input, 2);
    complaint(&["--scan", "--variant", "M1A"], input, 2);
    complaint(&["--mask-fraction", "0"], input, 2);
    complaint(&["--mask-fraction", "1.5"], input, 2);
    complaint(&["--plot", "a.png"], input, 2);
    let chunks = ["--max-length", "9", "--over", "chunk"];
    assert!(complaint(&chunks, input, 2).contains("possible values: error, skip, truncate"));
}

#[test]
fn logits_that_are_not_finite_are_no_result() {
    let model = broken();
    let model = model.path().to_str().unwrap();
    let input = ">a\nXX\n>b\nMKV\n";
    let message = stderr(&["score", "-m", model], input, 1);
    assert!(
        message.contains("record 2 (b), line 3: the model's result holds NaN"),
        "{message}"
    );
    let rows = stdout(&["score", "-m", model, "--on-bad", "skip"], input, 3);
    assert_eq!(lines(&rows).len(), 1);
}
