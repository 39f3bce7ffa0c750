//! Checkpoints as people have them, against transformers: activations that config.json chooses,
//! embedding tables under each of their names (`tests/golden/make_variants.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ankh3::checkpoint::Checkpoint;
use ankh3::device::{Compute, DeviceSpec};
use ankh3::model::{Decoder, Encoder, Packed};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Goldens {
    encoder_ids: Vec<u32>,
    decoder_ids: Vec<u32>,
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    name: String,
    config: Value,
    /// Tables of the goldens by their names in the file.
    tables: BTreeMap<String, String>,
    feed_forward: Vec<String>,
    hidden: Vec<f32>,
    logits: Vec<f32>,
}

fn goldens() -> (Goldens, BTreeMap<String, Tensor>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/variants");
    let expected = fs::read(dir.join("expected.json")).unwrap();
    let tensors = candle_core::safetensors::load(dir.join("tensors.safetensors"), &Device::Cpu);
    (
        serde_json::from_slice(&expected).unwrap(),
        tensors.unwrap().into_iter().collect(),
    )
}

impl Variant {
    /// The checkpoint of this variant, with `changes` of its config and `more` tables.
    fn checkpoint(
        &self,
        weights: &BTreeMap<String, Tensor>,
        changes: &[(&str, Value)],
        more: &[(&str, Tensor)],
    ) -> TempDir {
        let mut config = self.config.clone();
        for (name, value) in changes {
            config[*name] = value.clone();
        }
        let buckets = config["relative_attention_num_buckets"].as_u64().unwrap() as usize;
        let mut file = std::collections::HashMap::new();
        for (name, tensor) in weights.iter().filter(|(name, _)| name.contains('.')) {
            let part = name.rsplit('.').nth(1).unwrap();
            if part.starts_with("wi") && !self.feed_forward.iter().any(|wi| wi == part) {
                continue;
            }
            let tensor = match part {
                "relative_attention_bias" => tensor.narrow(0, 0, buckets).unwrap(),
                _ => tensor.clone(),
            };
            file.insert(name.clone(), tensor);
        }
        let tables = self.tables.iter();
        file.extend(tables.map(|(name, table)| (name.clone(), weights[table].clone())));
        file.extend(
            more.iter()
                .map(|(name, table)| ((*name).to_owned(), table.clone())),
        );
        let dir = super::checkpoint_of(&[]);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let path = dir.path().join("model.safetensors");
        candle_core::safetensors::save(&file, path).unwrap();
        dir
    }
}

/// The encoder's output and the decoder's logits.
fn run(dir: &Path, goldens: &Goldens) -> Result<(Vec<f32>, Vec<f32>), String> {
    let checkpoint = Checkpoint::load(dir).map_err(|error| error.to_string())?;
    let compute = Compute::open(DeviceSpec::Cpu, None).unwrap();
    let loader = checkpoint.loader(&compute);
    let source = Packed::from_segments([goldens.encoder_ids.as_slice()]);
    let target = Packed::from_segments([goldens.decoder_ids.as_slice()]);
    let results = || {
        let encoder = Encoder::load(&loader, &checkpoint.config)?;
        let hidden = encoder.forward(&source)?;
        let decoder = Decoder::load(&loader, &checkpoint.config)?;
        let logits = decoder.forward(&target, &[0], &decoder.source(&hidden, &source)?)?;
        let first = logits.narrow(1, 0, 6)?;
        Ok((
            hidden.flatten_all()?.to_vec1()?,
            first.flatten_all()?.to_vec1()?,
        ))
    };
    results().map_err(|error: candle_core::Error| error.to_string())
}

fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected
        .iter()
        .fold(0_f32, |most, value| most.max(value.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!(
            (got - expected).abs() <= 2e-5 * largest,
            "{what}: {got} {expected}"
        );
    }
}

#[test]
fn every_variant_equals_transformers() {
    let (goldens, weights) = goldens();
    assert_eq!(goldens.variants.len(), 15);
    for variant in &goldens.variants {
        let dir = variant.checkpoint(&weights, &[], &[]);
        let (hidden, logits) = run(dir.path(), &goldens).unwrap();
        assert_close(&hidden, &variant.hidden, &variant.name);
        assert_close(&logits, &variant.logits, &variant.name);
    }
}

#[test]
fn a_model_without_its_head_embeds_but_names_no_tokens() {
    let (goldens, weights) = goldens();
    // Tied and without a head in the file; here the config says that it is not tied.
    let tied = &goldens.variants[8];
    let dir = tied.checkpoint(&weights, &[("tie_word_embeddings", json!(false))], &[]);
    let error = run(dir.path(), &goldens).unwrap_err();
    assert!(error.contains("lm_head.weight"), "{error}");
    let checkpoint = Checkpoint::load(dir.path()).unwrap();
    let compute = Compute::open(DeviceSpec::Cpu, None).unwrap();
    let loader = checkpoint.loader(&compute);
    Encoder::load(&loader, &checkpoint.config).unwrap();
}

#[test]
fn contradictory_tables_and_heads_are_refused() {
    let (goldens, weights) = goldens();
    let plain = &goldens.variants[0];
    let other = &weights["head"];
    for table in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] {
        let dir = plain.checkpoint(&weights, &[], &[(table, other.clone())]);
        let error = run(dir.path(), &goldens).unwrap_err();
        assert!(
            error.contains("shared.weight") && error.contains(table),
            "{error}"
        );
        let same = plain.checkpoint(&weights, &[], &[(table, weights["table"].clone())]);
        let (_, logits) = run(same.path(), &goldens).unwrap();
        assert_close(&logits, &plain.logits, table);
    }
    // A head of its own, and a config that says or implies that there is none.
    for tied in [json!(true), Value::Null] {
        let dir = plain.checkpoint(&weights, &[("tie_word_embeddings", tied.clone())], &[]);
        let error = run(dir.path(), &goldens).unwrap_err();
        assert!(error.contains("tie_word_embeddings"), "{error}");
        // As transformers 5 writes untied models.
        let changes = [
            ("tie_word_embeddings", tied),
            ("scale_decoder_outputs", json!(false)),
        ];
        let dir = plain.checkpoint(&weights, &changes, &[]);
        let (_, logits) = run(dir.path(), &goldens).unwrap();
        assert_close(&logits, &plain.logits, "as transformers 5 writes it");
    }
}
