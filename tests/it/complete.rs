//! `ankh3 complete` as a process, on a random nano model: the output, rejected flags, and the same
//! bytes whatever the shards, batches and interruptions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use ankh3::checkpoint::init::{ModelPreset, init};
use ankh3::number::NumberType;

const STANDARD: &str = "ACDEFGHIKLMNPQRSTVWY";

/// A random model, made once; its folder lives as long as the tests.
static MODEL: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("nano");
    init(&model, ModelPreset::Nano, 3, NumberType::F32).unwrap();
    (folder, model)
});

fn ankh3(model: &Path, flags: &str, input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ankh3"));
    command
        .env_remove("ANKH3_LOG")
        .args(["complete", "--device", "cpu", "--model"]);
    command.arg(model).args(flags.split_whitespace());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The run may end before it has read everything.
    let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn complete(flags: &str, input: &str) -> String {
    let output = ankh3(&MODEL.1, flags, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{flags}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and stderr of a run that fails.
fn failing(flags: &str, input: &str) -> (Option<i32>, String) {
    let output = ankh3(&MODEL.1, flags, input);
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Proteins of many lengths, the same ones every time.
fn proteins(count: usize) -> String {
    let letter = |k: usize| char::from(STANDARD.as_bytes()[(k * k + 7 * k / 3) % 20]);
    let protein = |i: usize| {
        let residues: String = (0..4 + (i * 11) % 50).map(|k| letter(31 * i + k)).collect();
        format!(">p{i} protein number {i}\n{residues}\n")
    };
    (0..count).map(protein).collect()
}

/// Headers and residues.
fn records(fasta: &str) -> Vec<(String, String)> {
    let record = |text: &str| {
        let (header, residues) = text.split_once('\n').unwrap();
        (header.to_owned(), residues.replace('\n', ""))
    };
    fasta.split('>').skip(1).map(record).collect()
}

/// The `name=value` words of a header.
fn fields(header: &str) -> BTreeMap<&str, &str> {
    header
        .split(' ')
        .filter_map(|word| word.split_once('='))
        .collect()
}

#[test]
fn by_default_the_second_half_is_written_anew_to_the_same_length() {
    let input = proteins(9);
    let written = complete("", &input);
    let (before, after) = (records(&input), records(&written));
    assert_eq!(before.len(), after.len());
    for ((name, old), (header, new)) in before.iter().zip(&after) {
        let (id, description) = name.split_once(' ').unwrap();
        assert!(header.starts_with(&format!("{id}/1 ")), "{header}");
        assert!(header.ends_with(description), "{header}");
        assert_eq!(old.len(), new.len());
        let half = old.len() / 2;
        assert_eq!(old[..half], new[..half]);
        assert!(new.chars().all(|residue| STANDARD.contains(residue)));
        let fields = fields(header);
        assert_eq!(fields["prompt"], half.to_string());
        assert_eq!(fields["new"], (old.len() - half).to_string());
        assert_eq!((fields["end"], fields["decoding"]), ("length", "greedy"));
        let number = |name: &str| fields[name].parse::<f64>().unwrap();
        let perplexity = (-number("log_likelihood") / number("new")).exp();
        assert!(
            (perplexity / number("perplexity") - 1.0).abs() < 1e-3,
            "{header}"
        );
    }
    assert_eq!(written, complete("--prefix s2s", &input));
    assert_ne!(written, complete("--prefix none", &input));
}

#[test]
fn batches_and_threads_and_shards_change_no_byte() {
    let input = proteins(24);
    let flags = "--temperature 30 --top-p 0.95 --num-samples 2 --seed 5";
    let whole = complete(flags, &input);
    assert_eq!(records(&whole).len(), 48);
    assert_eq!(
        whole,
        complete(&format!("{flags} --max-batch-tokens 1"), &input)
    );
    assert_eq!(whole, complete(&format!("{flags} --threads 1"), &input));
    assert_ne!(whole, complete(&flags.replace("seed 5", "seed 6"), &input));
    let shards: Vec<Vec<_>> = (1..=3)
        .map(|i| records(&complete(&format!("{flags} --shard {i}/3"), &input)))
        .collect();
    let joined: Vec<_> = (0..24)
        .flat_map(|i| shards[i % 3][i / 3 * 2..][..2].to_vec())
        .collect();
    assert_eq!(joined, records(&whole));
}

/// Where each entry of a journal ends: eight bytes of magic, then length, checksum and payload of
/// each.
fn entry_ends(journal: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut end = 8;
    while let Some(length) = journal.get(end..end + 8) {
        end += 12 + u64::from_le_bytes(length.try_into().unwrap()) as usize;
        ends.push(end);
    }
    ends
}

#[test]
fn a_run_cut_off_anywhere_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.fasta");
    let journal = folder.path().join("out.fasta.resume");
    let flags = format!(
        "--temperature 30 --num-samples 2 --max-batch-tokens 64 --resume -o {}",
        out.display()
    );
    let good = proteins(40);
    let whole = complete("--temperature 30 --num-samples 2", &good);
    // A record ends the run after others are done.
    let bad = format!("{good}>bad\nMK!V\n");
    let (code, error) = failing(&flags, &bad);
    assert_eq!(code, Some(1), "{error}");
    assert!(!out.exists());
    let entries = std::fs::read(&journal).unwrap();
    let ends = entry_ends(&entries);
    assert!(ends.len() > 10, "only {} entries", ends.len());
    let middle = ends[5] + 40;
    for length in [0, 10, ends[0], ends[1] - 1, middle, entries.len()] {
        std::fs::write(&journal, &entries[..length]).unwrap();
        let output = ankh3(&MODEL.1, &flags, &good);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{error}");
        // The first entry is the key.
        let done = ends
            .iter()
            .filter(|end| **end <= length)
            .count()
            .saturating_sub(1);
        let told = error.contains(&format!("resuming: {done} sequence"));
        assert_eq!(told, done > 0, "cut at {length}: {error}");
        assert_eq!(
            std::fs::read_to_string(&out).unwrap(),
            whole,
            "cut at {length}"
        );
        assert!(!journal.exists());
    }
    // Other settings are another run.
    std::fs::write(&journal, &entries).unwrap();
    let (code, error) = failing(&format!("{flags} --seed 1"), &good);
    assert_eq!(code, Some(1));
    assert!(error.contains("another run"), "{error}");
    // Other proteins are another run, too.
    let (code, error) = failing(&flags, &good.replace(">p0", ">q0"));
    assert_eq!(code, Some(1));
    assert!(error.contains("the input differs"), "{error}");
}

#[test]
fn a_file_has_its_manifest_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.fasta");
    let flags = format!(
        "--num-beams 3 --num-samples 2 --keep 3 --length max:12 --allow WAC -o {}",
        out.display()
    );
    complete(&flags, &proteins(2));
    let manifest = std::fs::read_to_string(folder.path().join("out.fasta.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["command"], "complete");
    assert_eq!(manifest["prefix"], "s2s");
    assert_eq!(manifest["keep"], "3");
    assert_eq!(manifest["length"], "max:12");
    assert_eq!(manifest["allow"], "ACW");
    assert_eq!(manifest["decoding"]["strategy"], "beam");
    assert_eq!(manifest["decoding"]["num_beams"], 3);
    assert!(manifest["model_hash"].is_string());
    let records = records(&std::fs::read_to_string(&out).unwrap());
    assert_eq!(records.len(), 4);
    for pair in records.chunks(2) {
        let score = |record: &(String, String)| fields(&record.0)["score"].parse::<f64>().unwrap();
        assert!(score(&pair[0]) >= score(&pair[1]));
        assert_ne!(pair[0].1, pair[1].1);
    }
    for (header, residues) in &records {
        assert!(
            residues[3..].chars().all(|residue| "ACW".contains(residue)),
            "{header}"
        );
        assert!((4..=12).contains(&residues.len()), "{header}");
    }
}

#[test]
fn lengths_are_as_asked_for() {
    let input = ">a\nMKTAYIAKQR\n>b\nMKT\n";
    let lengths = |flags: &str| -> Vec<usize> {
        let records = records(&complete(flags, input));
        records.iter().map(|(_, residues)| residues.len()).collect()
    };
    assert_eq!(lengths("--keep all --length 20"), [20, 20]);
    assert_eq!(
        lengths("--keep 2 --length 20 --output-part completion"),
        [18, 18]
    );
    let ended = lengths("--keep 2 --length max:90 --min-length 15 --temperature 3");
    assert!(
        ended.iter().all(|length| (15..=90).contains(length)),
        "{ended:?}"
    );
}

#[test]
fn what_cannot_be_done_is_an_error_that_tells_the_way_out() {
    let table = [
        (2, "--num-samples 3", "add --temperature 1"),
        (2, "--num-beams 2 --num-samples 3", "raise --num-beams"),
        (2, "--keep all", "say --length N"),
        (
            1,
            "--length 3",
            "record 1 (p0), line 1: the prompt has 5 residues",
        ),
        (1, "--keep 500", "--keep 500 of a record of 10"),
        (2, "--min-length 9", "--length max:N or eos"),
        (
            2,
            "--length max:9 --min-length 10",
            "more than --length max:9",
        ),
        (
            2,
            "--max-length 5 --over chunk",
            "possible values: error, skip, truncate",
        ),
        (2, "--max-length 5 --overlap 4", "--overlap is for"),
        (2, "--resume", "-o"),
        (2, "--resume -o -", "add -o FILE"),
        (1, "--allow ACJ", "no such residue"),
    ];
    for (expected_code, flags, expected) in table {
        let (code, error) = failing(flags, ">p0\nMKTAYIAKQR\n");
        assert_eq!(code, Some(expected_code), "{flags}: {error}");
        assert!(error.contains(expected), "{flags}: {error}");
    }
    let usage = [
        "--temperature 0",
        "--top-p 2",
        "--num-beams 2 --top-k 3",
        "--keep 1.5",
        "--length long",
    ];
    for flags in usage {
        assert_eq!(failing(flags, ">a\nMK\n").0, Some(2), "{flags}");
    }
}

#[test]
fn a_record_too_short_to_cut_is_named_or_left_out() {
    let input = ">one\nM\n>two\nMK\n";
    let (code, error) = failing("", input);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("record 1 (one), line 1: --keep leaves no residue of 1"),
        "{error}"
    );
    let output = ankh3(&MODEL.1, "--on-bad skip", input);
    assert_eq!(output.status.code(), Some(3));
    let written = String::from_utf8(output.stdout).unwrap();
    assert_eq!(records(&written).len(), 1);
    assert!(written.starts_with(">two/1 "));
}

#[test]
fn weights_that_are_no_numbers_are_an_error_and_never_a_sequence() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("broken");
    init(&model, ModelPreset::Nano, 3, NumberType::F32).unwrap();
    let file = model.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let first = &tensors["decoder.final_layer_norm.weight"]["data_offsets"][0];
    let place = 8 + header + first.as_u64().unwrap() as usize;
    bytes[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    let output = ankh3(&model, "", ">a\nMKTAYI\n");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("record 1 (a), line 1: the model's logits hold NaN"),
        "{error}"
    );
    let output = ankh3(&model, "--on-bad skip", ">a\nMKTAYI\n");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"");
}
