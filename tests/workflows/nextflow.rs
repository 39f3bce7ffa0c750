use std::fs;

use crate::support::{ankh3, find, folder, has, model, nextflow, project, ran, same_bytes};

const MODULES: [&str; 10] = [
    "COMPLETE",
    "EMBED",
    "FETCH",
    "MASKFILL",
    "MERGE",
    "PREDICTCONTACTS",
    "PRETRAIN",
    "PROBE",
    "REPORT",
    "SCORE",
];

#[test]
fn every_module_has_a_stub_that_makes_all_its_outputs_and_tells_its_version() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let mut run = nextflow(folder.path(), "run -stub");
    let said = ran(run.arg(project("tests/workflows/stubs.nf")));
    for module in MODULES {
        let line = format!("MADE ANKH3_{module} {}", env!("CARGO_PKG_VERSION"));
        assert!(said.contains(&line), "{module}: {said}");
    }
}

#[test]
fn a_scattered_proteome_is_the_bytes_of_one_run_and_resumes_from_its_cache() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let proteome = project("examples/proteome.fasta");
    // h5 carries its provenance, tsv has it beside it: both ways of gathering.
    for format in ["h5", "tsv"] {
        let arguments = format!(
            "-q run {} --shards 3 --format {format} --contacts false",
            project("workflows/proteome").display()
        );
        let run = || {
            let mut run = nextflow(folder.path(), &arguments);
            run.arg("--model").arg(model());
            run
        };
        ran(&mut run());
        let one = format!("one.{format}");
        let mut embed = ankh3(folder.path());
        embed.args(["embed", "--pooling", "mean", "-o", &one, "--model"]);
        ran(embed.arg(model()).arg(&proteome));
        let whole = folder.path().join(format!("results/proteome.{format}"));
        same_bytes(&whole, &folder.path().join(&one));
        if format == "tsv" {
            same_bytes(
                &whole.with_extension("tsv.json"),
                &folder.path().join("one.tsv.json"),
            );
            continue;
        }
        let trace = folder.path().join("trace.txt");
        let mut again = run();
        ran(again.arg("-resume").arg("-with-trace").arg(&trace));
        let trace = fs::read_to_string(trace).unwrap();
        assert_eq!(trace.matches("CACHED").count(), 5, "{trace}");
        assert!(!trace.contains("COMPLETED"), "{trace}");
    }
    let page = fs::read_to_string(folder.path().join("results/proteome.html")).unwrap();
    assert!(page.contains("15 proteins") && page.contains("</html>"));
}

#[test]
fn a_family_is_learnt_completed_scored_and_reported() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let parameters = r#"{"train_args": "--set steps=4"}"#;
    fs::write(folder.path().join("few.json"), parameters).unwrap();
    let pipeline = project("workflows/family").display().to_string();
    ran(&mut nextflow(
        folder.path(),
        &format!("-q run {pipeline} -params-file few.json"),
    ));
    let results = folder.path().join("results");
    let page = fs::read_to_string(results.join("family.html")).unwrap();
    for part in ["Completions", "Scores", "Training", "Recipe", "steps = 4"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(results.join("family/model/model.safetensors").is_file());
    let completions = fs::read_to_string(results.join("family.completions.fasta")).unwrap();
    assert_eq!(completions.matches('>').count(), 6);
    assert_eq!(find(&results, "family.scores.tsv.json").len(), 1);
}

#[test]
fn contacts_of_a_proteome_are_on_its_page() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let help = ran(ankh3(folder.path()).arg("--help"));
    if !help.contains("predict-contacts") {
        println!("SKIPPED: this ankh3 has no predict-contacts");
        return;
    }
    fs::write(
        folder.path().join("small.fasta"),
        ">a\nGVVDILKGAAKDLAGHLASKVMNKI\n",
    )
    .unwrap();
    let parameters = r#"{"contacts_args": "--method jacobian --jacobian-outputs hidden"}"#;
    fs::write(folder.path().join("few.json"), parameters).unwrap();
    let pipeline = project("workflows/proteome").display().to_string();
    let arguments = format!("-q run {pipeline} -params-file few.json --input small.fasta --model");
    ran(nextflow(folder.path(), &arguments).arg(model()));
    let page = fs::read_to_string(folder.path().join("results/small.html")).unwrap();
    assert!(page.contains("contact map of a"), "no map");
}
