use std::fmt::Write;
use std::fs;
use std::path::Path;

use ankh3::output::embeddings::EmbeddingReader;
use serde_json::Value;
use tempfile::TempDir;

use crate::skip::{Lack, skip};

use super::support::{fasta, project, proteins, run, tiny};

/// A folder with a table of 30 proteins, whose residues have classes that depend on the residue
/// alone, with a column for the split, and the proteins as FASTA.
fn labelled() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lengths: Vec<usize> = (0..30).map(|i| 12 + i % 7).collect();
    let mut table = "id,sequence,state,size,split\n".to_owned();
    let made = proteins(&lengths);
    for (number, protein) in made.iter().enumerate() {
        let state = |letter: char| if "ACDEFGH".contains(letter) { 'a' } else { 'b' };
        let states: String = protein.residues.chars().map(state).collect();
        let a = states.matches('a').count() as f64 / states.len() as f64;
        let split = ["train", "train", "train", "valid", "test"][number % 5];
        let residues = &protein.residues;
        writeln!(table, "p{number},{residues},{states},{a},{split}").unwrap();
    }
    fs::write(folder.path().join("t.csv"), table).unwrap();
    fs::write(folder.path().join("in.fasta"), fasta(&made[..3])).unwrap();
    folder
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn train(folder: &Path, more: &str) -> String {
    let arguments = format!(
        "probe train --train t.csv --split-column split --label-column state --task residues --epochs 8 --accumulation 2 -o head {more}"
    );
    run(folder, &arguments).with(0).text().to_owned()
}

#[test]
fn a_head_is_trained_judged_and_asked() {
    let folder = labelled();
    let folder = folder.path();
    let table = train(
        folder,
        &format!("--model {} --cache kept --plot c.svg", tiny()),
    );
    assert!(table.starts_with("set\tmeasure\tvalue\tlow\thigh\tproteins\tcounted\n"));
    let head = json(&folder.join("head/head.json"));
    assert_eq!(head["source"]["prefix"], "nlu");
    assert_eq!(head["task"]["classes"], serde_json::json!(["a", "b"]));
    assert_eq!(head["epochs"].as_array().unwrap().len(), 8);
    let plot = fs::read_to_string(folder.join("c.svg")).unwrap();
    assert!(plot.contains("predicted") && plot.contains("model "));

    // A second run gives the same bytes and embeds nothing again.
    let bytes = fs::read(folder.join("head/head.safetensors")).unwrap();
    let again = run(
        folder,
        &format!(
            "probe train --train t.csv --split-column split --label-column state --task residues --epochs 8 --accumulation 2 --threads 1 --model {} --cache kept -o again",
            tiny()
        ),
    );
    assert!(!again.with(0).stderr.contains("embedding"));
    assert_eq!(
        fs::read(folder.join("again/head.safetensors")).unwrap(),
        bytes
    );

    // `evaluate` gives the same result on the test rows as training.
    let judged = run(
        folder,
        &format!(
            "probe evaluate --model {} --head head --only split=test t.csv",
            tiny()
        ),
    );
    let line = |text: &str, set: &str| {
        let found = text
            .lines()
            .find(|line| line.starts_with(&format!("{set}\taccuracy\t")));
        found
            .unwrap()
            .split('\t')
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line(judged.with(0).text(), "t.csv"), line(&table, "test"));

    let told = run(
        folder,
        &format!("probe predict --model {} --head head in.fasta", tiny()),
    )
    .with(0);
    let rows: Vec<Vec<&str>> = told
        .text()
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(rows[0], ["id", "length", "classes"]);
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[1][1], rows[1][2].len().to_string());
    let each = run(
        folder,
        &format!(
            "probe predict --model {} --head head --per-residue in.fasta",
            tiny()
        ),
    )
    .with(0);
    assert!(
        each.text()
            .starts_with("id\tposition\tresidue\tclass\tp_a\tp_b\n")
    );
}

#[test]
fn one_hot_needs_no_model_and_learns_what_the_residue_tells() {
    let folder = labelled();
    let folder = folder.path();
    train(
        folder,
        "--features onehot --feature-width 20 --body linear --learning-rate 0.1",
    );
    let head = json(&folder.join("head/head.json"));
    let accuracy = head["metrics"]["test"]["accuracy"]["value"]
        .as_f64()
        .unwrap();
    assert!(accuracy > 0.95, "{accuracy}");
    assert_eq!(
        run(folder, "probe predict --head head in.fasta")
            .with(0)
            .text()
            .lines()
            .count(),
        4
    );
}

/// Training of a table with a column `split`; the log and the description of the head.
fn train_unnamed(folder: &Path, more: &str) -> (String, Value) {
    let arguments = format!(
        "probe train --train t.csv --label-column state --task residues --epochs 2 --features onehot --feature-width 20 --body linear -o head {more}"
    );
    let log = run(folder, &arguments).with(0).stderr.clone();
    (log, json(&folder.join("head/head.json")))
}

#[test]
fn a_column_split_is_used_without_being_named_and_can_be_ignored() {
    let folder = labelled();
    let folder = folder.path();
    let (log, head) = train_unnamed(folder, "");
    assert!(
        log.contains("column split splits the rows: 18 train, 6 valid, 6 test, 0 not used"),
        "{log}"
    );
    assert!(log.contains("--ignore-split-column"), "{log}");
    assert_eq!(head["data"]["train_proteins"], 18);
    assert_eq!(head["data"]["split_column"], "split");
    assert_eq!(head["metrics"]["test"]["proteins"], 6);
    let weights = fs::read(folder.join("head/head.safetensors")).unwrap();
    let (_, named) = train_unnamed(folder, "--split-column split");
    assert_eq!(named["metrics"], head["metrics"]);
    assert_eq!(
        fs::read(folder.join("head/head.safetensors")).unwrap(),
        weights
    );

    let (log, head) = train_unnamed(folder, "--ignore-split-column");
    assert!(log.contains("no validation set"), "{log}");
    assert_eq!(head["data"]["train_proteins"], 30);
    assert_eq!(head["data"]["split_column"], Value::Null);

    // Test rows are left out of training also where the test set is a file of its own.
    let (_, head) = train_unnamed(folder, "--test t.csv");
    assert_eq!(head["data"]["train_proteins"], 18);
    assert_eq!(head["metrics"]["t.csv"]["proteins"], 30);

    run(
        folder,
        "probe evaluate --head head --label-column state t.csv",
    )
    .with(0)
    .saying(&["all rows are evaluated", "--only split=test"]);
}

#[test]
fn a_column_split_without_training_rows_is_an_error_that_names_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(
        folder.join("t.csv"),
        "sequence,label,split\nMKV,1.5,0\nMKT,2.5,1\n",
    )
    .unwrap();
    let arguments = "probe train --features onehot --task number --train t.csv -o head";
    run(folder, arguments).with(1).saying(&[
        "t.csv: no row where split is train",
        "--split-column",
        "--ignore-split-column",
    ]);
}

#[test]
fn numbers_and_layers() {
    let folder = labelled();
    let folder = folder.path();
    let arguments = format!(
        "probe train --train t.csv --split-column split --label-column size --task number --body mlp --layers 1,-1 --pooling mean --model {} -o n --plot s.png",
        tiny()
    );
    run(folder, &arguments).with(0);
    let head = json(&folder.join("n/head.json"));
    assert_eq!(head["method"]["shape"]["width"], 64);
    assert!(
        head["metrics"]["test"]["mse"]["value"]
            .as_f64()
            .unwrap()
            .is_finite()
    );
    let told = run(
        folder,
        &format!("probe predict --model {} --head n in.fasta", tiny()),
    )
    .with(0);
    let value: f64 = told
        .text()
        .lines()
        .nth(1)
        .unwrap()
        .split('\t')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert!(value.is_finite());
}

#[test]
fn another_model_or_prefix_than_that_of_training_is_refused() {
    let folder = labelled();
    let folder = folder.path();
    train(folder, &format!("--model {}", tiny()));
    let nano = super::support::nano();
    let refused = run(
        folder,
        &format!("probe predict --model {nano} --head head in.fasta"),
    );
    refused
        .with(1)
        .saying(&["head was trained on tiny", "not on nano"]);
    let refused = run(
        folder,
        &format!(
            "probe predict --model {} --prefix s2s --head head in.fasta",
            tiny()
        ),
    );
    refused
        .with(1)
        .saying(&["trained with prefix nlu, not s2s"]);
    run(
        folder,
        &format!("predict-contacts --model {} --head head in.fasta", tiny()),
    )
    .with(1)
    .saying(&["predicts no contacts"]);
    run(folder, "probe predict --model x --head nowhere in.fasta")
        .with(1)
        .saying(&["nowhere/head.json: no head there", "ankh3 probe train"]);
}

#[test]
fn bad_labels_name_their_row() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let table = [
        (
            "sequence,label\nMKV,HE\n",
            "residues",
            "t.csv: record 1 (1), line 2: 3 residues, but 2 labels",
        ),
        (
            "sequence,label\nMKV,nan\n",
            "number",
            "t.csv: record 1 (1), line 2: the label is NaN",
        ),
        (
            "sequence,dssp3\nMKV,HEZ\n",
            "ssp3",
            "label of residue 3: unknown class \"Z\"",
        ),
    ];
    for (text, task, message) in table {
        fs::write(folder.join("t.csv"), text).unwrap();
        let arguments =
            format!("probe train --features onehot --task {task} --train t.csv -o head");
        run(folder, &arguments).with(1).saying(&[message]);
        assert!(!folder.join("head").exists());
    }
}

/// Chains on a helix, as a table of coordinates.
fn chains(folder: &Path, count: usize) {
    let made = proteins(&vec![40; count]);
    let mut text = String::new();
    for (number, protein) in made.iter().enumerate() {
        let place = |i: usize| {
            let angle = i as f64 * 0.35 + number as f64;
            [8.0 * angle.cos(), 8.0 * angle.sin(), i as f64 * 0.4]
        };
        let xyz: Vec<[f64; 3]> = (0..40).map(place).collect();
        let id = format!("c{number}");
        let line = serde_json::json!({"id": id, "seq": protein.residues, "xyz": xyz});
        writeln!(text, "{line}").unwrap();
    }
    fs::write(folder.join("c.jsonl"), text).unwrap();
    fs::write(folder.join("one.fasta"), fasta(&made[..1])).unwrap();
}

#[test]
fn contacts_are_fitted_judged_and_predicted_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    chains(folder, 5);
    let model = tiny();
    for method in ["attention", "head --epochs 2 --accumulation 2"] {
        let name = method.split(' ').next().unwrap();
        let fitted = run(
            folder,
            &format!(
                "contacts fit --method {method} --model {model} --structures c.jsonl --valid c.jsonl -o {name}"
            ),
        );
        assert!(
            fitted
                .with(0)
                .text()
                .contains("valid\tmean\t200\tlong\tP@L\t")
        );
        let judged = run(
            folder,
            &format!(
                "contacts evaluate --model {model} --head {name} --structures c.jsonl --plot p.svg"
            ),
        );
        assert_eq!(judged.with(0).text().lines().count(), 1 + 6 * 9);
        let plot = fs::read_to_string(folder.join("p.svg")).unwrap();
        assert!(plot.contains("P@L by separation alone") && plot.contains("P@L of the prediction"));
        assert!(plot.contains("model ") && plot.contains(&format!("method {name}")));
        assert!(!plot.contains("measured"));

        let rr = run(
            folder,
            &format!("predict-contacts --model {model} --head {name} --top L/5 one.fasta"),
        )
        .with(0);
        let lines: Vec<&str> = rr.text().lines().collect();
        assert_eq!((lines[0], *lines.last().unwrap()), ("PFRMAT RR", "END"));
        let pairs: Vec<Vec<f64>> = lines
            .iter()
            .filter_map(|line| {
                line.split(' ')
                    .map(|word| word.parse().ok())
                    .collect::<Option<Vec<f64>>>()
            })
            .collect();
        assert_eq!(pairs.len(), 8);
        assert!(
            pairs
                .iter()
                .all(|p| p[0] + 6.0 <= p[1] && p[3] == 8.0 && (0.0..=1.0).contains(&p[4]))
        );
        assert!(pairs.is_sorted_by(|a, b| a[4] >= b[4]));

        for format in ["npz", "h5"] {
            let file = format!("m.{format}");
            run(
                folder,
                &format!("predict-contacts --model {model} --head {name} -o {file} one.fasta"),
            )
            .with(0);
            let record = EmbeddingReader::open(&folder.join(&file))
                .unwrap()
                .next()
                .unwrap()
                .unwrap();
            let map = &record.values[0];
            assert_eq!(map.len(), 40 * 40);
            let (i, j) = (pairs[0][0] as usize - 1, pairs[0][1] as usize - 1);
            assert!((f64::from(map[i * 40 + j]) - pairs[0][4]).abs() < 1e-5);
            assert_eq!(map[i * 40 + j], map[j * 40 + i]);
        }
        run(
            folder,
            &format!(
                "predict-contacts --model {model} --head {name} --threshold 2 -o t.tsv one.fasta"
            ),
        )
        .with(0);
        assert_eq!(
            fs::read_to_string(folder.join("t.tsv")).unwrap(),
            "id\ti\tj\taa_i\taa_j\tseparation\tprobability\n"
        );
    }
}

#[test]
fn nothing_fitted_is_an_error_that_names_the_command_and_a_jacobian_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    chains(folder, 2);
    let model = tiny();
    run(
        folder,
        &format!("predict-contacts --model {model} one.fasta"),
    )
    .with(1)
    .saying(&[
        "nothing is fitted",
        "ankh3 contacts fit --method head --model",
        "--method jacobian",
    ]);
    let native = "--plot map.png --native c.jsonl --chain c0";
    for outputs in ["hidden", "residues --mask-fraction 0.5"] {
        let rr = run(
            folder,
            &format!(
                "predict-contacts --model {model} --method jacobian --jacobian-outputs {outputs} {native} one.fasta"
            ),
        );
        assert!(rr.with(0).text().contains("an order, not probabilities"));
    }
    assert!(
        fs::read(folder.join("map.png"))
            .unwrap()
            .starts_with(b"\x89PNG")
    );
    let arguments =
        format!("predict-contacts --model {model} --method jacobian --max-memory 0.0001 one.fasta");
    run(folder, &arguments).with(1).saying(&[
        "40 residues takes",
        "--max-memory",
        "--jacobian-outputs hidden",
    ]);
}

#[test]
fn a_structure_of_another_protein_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    chains(folder, 2);
    let arguments = format!(
        "predict-contacts --model {} --method jacobian --jacobian-outputs hidden --plot m.svg --native c.jsonl --chain c1 one.fasta",
        tiny()
    );
    run(folder, &arguments)
        .with(1)
        .saying(&["c.jsonl: its chain c1 has", "of its residues in common"]);
    fs::write(folder.join("e.pdb"), "END\n").unwrap();
    let arguments = format!("contacts fit --model {} --structures e.pdb -o head", tiny());
    run(folder, &arguments).with(1).saying(&["e.pdb:"]);
}

/// The script of the results page runs every job on a few proteins, and does nothing twice.
#[test]
fn the_results_page_is_made_and_resumed() {
    let data = project("../shared/data");
    if !data.join("ssp").is_dir() {
        skip(Lack::Machine, &format!("the data of {}", data.display()));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    let make = || {
        let mut script = std::process::Command::new("python3");
        script
            .arg(project("bench/downstream/page.py"))
            .args([
                "--quick",
                "--tasks",
                "ssp3",
                "contacts",
                "--prefixes",
                "nlu",
                "--model",
                &tiny(),
            ])
            .arg("--data")
            .arg(&data)
            .arg("--work")
            .arg(folder.path().join("work"))
            .arg("-o")
            .arg(&page)
            .env("ANKH3", env!("CARGO_BIN_EXE_ankh3"));
        let output = script.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    assert!(make().contains("ssp3, tiny nlu"));
    let text = fs::read_to_string(&page).unwrap();
    for part in [
        "| onehot |",
        "tiny nlu, attention",
        "separation alone",
        "Published, not rerun",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert_eq!(make(), "");
    assert_eq!(fs::read_to_string(&page).unwrap(), text);
}
