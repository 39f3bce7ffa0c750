use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ankh3::check::published::{KnownAnswer, KnownInput};
use ankh3::checkpoint::Checkpoint;
use ankh3::device::{Compute, DeviceSpec};
use ankh3::model::Encoder;
use ankh3::tokenizer::TaskPrefix;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

use super::support::{Ended, names, run};

/// The name of the made-up reference, and of the checkpoint's folder.
const NAME: &str = "model";

/// The trained model of this program as a checkpoint in a folder, and a made-up reference of its
/// results beside the checkpoint.
fn model_with_reference() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join(NAME);
    fs::create_dir(&model).unwrap();
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(nano.join(name), model.join(name)).unwrap();
    }
    let checkpoint = Checkpoint::load(&model).unwrap();
    let sequences = ["MPAGFRQVCKAFMAEPMFNTATQHEYHCCTPTRMYINTPV", "MCADPSKCIYMYV"];
    let encode = |letters: &str| {
        checkpoint
            .tokenizer
            .encode(letters.as_bytes(), TaskPrefix::None)
    };
    let input = KnownInput {
        revision: "0".repeat(40),
        width: 192,
        dimensions: (0..192).step_by(4).collect(),
        sequences: sequences.map(String::from).to_vec(),
        token_ids: sequences
            .map(|letters| encode(letters).unwrap().token_ids)
            .to_vec(),
    };
    let compute = Compute::open(DeviceSpec::Cpu, None).unwrap();
    let encoder = Encoder::load(&checkpoint.loader(&compute), &checkpoint.config).unwrap();
    let reference = KnownAnswer::write(&encoder, &input, NAME).unwrap();
    fs::write(folder.path().join("known.safetensors"), reference).unwrap();
    folder
}

fn doctor(folder: &TempDir, flags: &str) -> Ended {
    let command =
        format!("doctor --device cpu --model {NAME} --known-answers known.safetensors {flags}");
    run(folder.path(), &command)
}

/// The lines about the model, after its headline.
fn lines(ended: &Ended) -> Vec<String> {
    let text = ended.text();
    let lines = text
        .lines()
        .skip_while(|line| !line.contains("against its published result"));
    lines
        .skip(1)
        .filter(|line| line.starts_with("  "))
        .map(str::to_owned)
        .collect()
}

/// A change of the model in a folder.
type Change<'a> = dyn Fn(&TempDir) + 'a;

fn change_text(folder: &TempDir, name: &str, change: impl Fn(&str) -> String) {
    let path = folder.path().join(NAME).join(name);
    let before = fs::read_to_string(&path).unwrap();
    let after = change(&before);
    assert_ne!(before, after, "{name} is as before");
    fs::write(&path, after).unwrap();
}

/// Rewrites the weights: names and bytes of all tensors.
fn change_weights(folder: &TempDir, change: impl Fn(&mut BTreeMap<String, Vec<u8>>)) {
    let path = folder.path().join(NAME).join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors();
    let mut data: BTreeMap<String, Vec<u8>> = tensors
        .iter()
        .map(|(name, view)| (name.clone(), view.data().to_vec()))
        .collect();
    let before = data.clone();
    change(&mut data);
    assert_ne!(before, data);
    let views = tensors.iter().map(|(name, view)| {
        let view = TensorView::new(view.dtype(), view.shape().to_vec(), &data[name]);
        (name.clone(), view.unwrap())
    });
    let written = safetensors::serialize(views, None).unwrap();
    fs::write(&path, written).unwrap();
}

#[test]
fn a_model_that_computes_its_known_result_is_right() {
    let folder = model_with_reference();
    let before = names(folder.path());
    for flags in ["", "--dtype bf16", "--threads 1"] {
        let ended = doctor(&folder, flags).with(0);
        let lines = lines(&ended);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines.iter().all(|line| line.ends_with(" ok")), "{lines:?}");
        assert!(ended.text().ends_with("all right\n"));
    }
    let int8 = doctor(&folder, "--weights int8").with(0);
    assert!(
        int8.text().contains("(int8 has no limit)"),
        "{}",
        int8.text()
    );
    assert_eq!(names(folder.path()), before, "doctor writes no file");
}

#[test]
fn every_change_of_the_model_is_seen() {
    let exchanged = |data: &mut BTreeMap<String, Vec<u8>>| {
        let names: Vec<String> = data.keys().cloned().collect();
        for name in names
            .iter()
            .filter(|name| name.starts_with("encoder.block.1."))
        {
            let other = name.replacen(".1.", ".2.", 1);
            let (first, second) = (data[name].clone(), data[&other].clone());
            data.insert(name.clone(), second);
            data.insert(other, first);
        }
    };
    let one_number = |data: &mut BTreeMap<String, Vec<u8>>| {
        let row = 24 * 192 * 2;
        data.get_mut("shared.weight").unwrap()[row..row + 2].copy_from_slice(&[0x7a, 0x44]);
    };
    let negated = |data: &mut BTreeMap<String, Vec<u8>>| {
        let name = "encoder.block.2.layer.0.SelfAttention.o.weight";
        let tensor = data.get_mut(name).unwrap();
        tensor
            .chunks_exact_mut(2)
            .for_each(|value| value[1] ^= 0x80);
    };
    let no_norm = |data: &mut BTreeMap<String, Vec<u8>>| {
        let tensor = data.get_mut("encoder.final_layer_norm.weight").unwrap();
        tensor
            .chunks_exact_mut(2)
            .for_each(|value| value.copy_from_slice(&[0x80, 0x3f]));
    };
    let changes: [(&str, &Change<'_>); 5] = [
        ("layers 1 and 2 exchanged", &|folder| {
            change_weights(folder, exchanged);
        }),
        ("one number", &|folder| change_weights(folder, one_number)),
        ("one tensor negated", &|folder| {
            change_weights(folder, negated);
        }),
        ("the final norm without weights", &|folder| {
            change_weights(folder, no_norm);
        }),
        ("another activation", &|folder| {
            change_text(folder, "config.json", |text| {
                text.replace("gated-silu", "gated-gelu")
            });
        }),
    ];
    for (what, change) in changes {
        let folder = model_with_reference();
        change(&folder);
        let ended = doctor(&folder, "").with(1);
        let lines = lines(&ended);
        assert!(lines[0].ends_with(" ok"), "{what}: {lines:?}");
        assert!(
            lines[1..].iter().any(|line| line.ends_with(" WRONG")),
            "{what}: {lines:?}"
        );
        ended.saying(&["not the published one", "--device cpu"]);
    }
}

#[test]
fn another_vocabulary_is_seen_by_its_token_ids() {
    let folder = model_with_reference();
    change_text(&folder, "tokenizer.json", |text| {
        text.replace("\"I\"", "\"?\"")
            .replace("\"L\"", "\"I\"")
            .replace("\"?\"", "\"L\"")
    });
    let ended = doctor(&folder, "").with(1);
    let lines = lines(&ended);
    assert!(lines[0].ends_with(" WRONG"), "{lines:?}");
    assert!(
        lines[1..].iter().all(|line| line.ends_with(" ok")),
        "{lines:?}"
    );
}

#[test]
fn a_model_of_another_shape_or_without_reference_is_told() {
    let folder = model_with_reference();
    // A directory with the name of an official model is compared with its published result.
    fs::rename(folder.path().join(NAME), folder.path().join("ankh3-large")).unwrap();
    let other = run(folder.path(), "doctor --device cpu --model ./ankh3-large");
    other
        .with(1)
        .saying(&["192 values per residue", "published model has 1536"]);
    fs::rename(
        folder.path().join("ankh3-large"),
        folder.path().join("ankh2-large"),
    )
    .unwrap();
    let unknown = run(folder.path(), "doctor --device cpu --model ./ankh2-large").with(0);
    let told = "no published result of ElnaggarLab/ankh2-large";
    assert!(unknown.text().contains(told), "{}", unknown.text());
    run(folder.path(), "doctor --device cpu --dtype bf16")
        .with(2)
        .saying(&["--model"]);
}
