use std::fs;

use tempfile::tempdir;

use super::support::{project, records, run};

#[test]
fn it_needs_no_file_and_is_the_default() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    // A folder called `nano` without a model is ignored.
    fs::create_dir(path.join("nano")).unwrap();
    fs::copy(project("examples/sample.fasta"), path.join("in.fasta")).unwrap();
    let command = "embed --pooling mean --max-length 300 --over truncate -o";
    run(path, &format!("{command} default.npz in.fasta"))
        .with(0)
        .saying(&["no --model: using nano", "ankh3 fetch ankh3-large"]);
    let named = run(path, &format!("{command} named.npz --model nano in.fasta")).with(0);
    assert!(!named.stderr.contains("no --model"), "{}", named.stderr);
    let bytes = |name: &str| fs::read(path.join(name)).unwrap();
    assert_eq!(bytes("default.npz"), bytes("named.npz"));
    let told = run(path, "inspect --json named.npz").with(0);
    assert!(told.text().contains("ankh3-nano"), "{}", told.text());
    let told = run(path, "inspect nano").with(0);
    assert!(told.text().contains("model.safetensors"), "{}", told.text());
    let listed = run(path, "models").with(0);
    assert!(listed.text().contains("\nnano\tankh3-nano\t"));
    run(path, "fetch nano")
        .with(1)
        .saying(&["part of this program"]);
}

#[test]
fn it_predicts_contacts_fills_masks_and_completes() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    fs::write(
        path.join("in.fasta"),
        ">p\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVK\n",
    )
    .unwrap();
    let contacts = run(path, "predict-contacts --top 5 in.fasta").with(0);
    assert!(
        contacts.text().starts_with("PFRMAT RR"),
        "{}",
        contacts.text()
    );
    let filled = run(path, "mask-fill --mask-x in.fasta").with(0);
    assert!(filled.text().contains("MKTAYIAK"), "{}", filled.text());
    let completed = run(path, "complete in.fasta").with(0);
    assert!(
        completed.text().contains("MKTAYIAK"),
        "{}",
        completed.text()
    );
}

/// The error of bf16 against f32 on a trained model, with the rounding of this CPU's instruction
/// set.
#[test]
fn bf16_embeddings_of_a_trained_model_point_where_f32_ones_do() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    fs::copy(project("examples/sample.fasta"), path.join("in.fasta")).unwrap();
    for dtype in ["f32", "bf16"] {
        let command = "embed --model nano --max-length 500 --over truncate";
        run(
            path,
            &format!("{command} --dtype {dtype} -o {dtype}.npz in.fasta"),
        )
        .with(0);
    }
    let [exact, rounded] = ["f32.npz", "bf16.npz"].map(|name| {
        let records = records(&path.join(name));
        let width = records[0].values[0].len() / records[0].length;
        let values = records.into_iter().flat_map(|record| record.values);
        let rows = values.flat_map(|values| {
            values
                .chunks(width)
                .map(<[f32]>::to_vec)
                .collect::<Vec<_>>()
        });
        rows.collect::<Vec<_>>()
    });
    assert_eq!(exact.len(), rounded.len());
    assert!(exact.len() > 5_000, "{}", exact.len());
    let dot =
        |x: &[f32], y: &[f32]| -> f64 { x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum() };
    for (a, b) in exact.iter().zip(&rounded) {
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert!(cosine >= 0.9999, "cosine {cosine:.6}");
    }
}
