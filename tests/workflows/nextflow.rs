use std::fs;

use crate::support::{ankh3, ended, find, folder, has, model, nextflow, project, ran, same_bytes};

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
            "-q run {} --shards 3 --format {format}",
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
        assert_eq!(trace.matches("CACHED").count(), 6, "{trace}");
        assert!(!trace.contains("COMPLETED"), "{trace}");
    }
    let page = fs::read_to_string(folder.path().join("results/proteome.html")).unwrap();
    for part in ["15 proteins", "contact map of P86711", "</html>"] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn a_family_is_learnt_completed_scored_and_reported() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let parameters = format!(
        r#"{{"train_args": "--set steps=4", "model": "{}"}}"#,
        model()
    );
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
fn two_files_whose_results_would_have_one_name_are_refused() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    for name in ["yeast.v1.fasta", "yeast.v2.fasta", "yeast.v2.faa.gz"] {
        fs::write(folder.path().join(name), ">a\nMKV\n").unwrap();
    }
    let pipeline = project("workflows/proteome").display().to_string();
    let mut run = nextflow(folder.path(), &format!("-q run {pipeline} --input yeast.*"));
    let (code, said) = ended(&mut run);
    assert_ne!(code, Some(0), "{said}");
    assert!(
        said.contains("yeast.v2.faa.gz") && said.contains("would all be called yeast.v2"),
        "{said}"
    );
    assert!(!said.contains("yeast.v1.fasta"), "{said}");
}

#[test]
fn files_with_names_of_any_kind_are_computed_or_refused_and_never_run() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let pipeline = project("workflows/proteome").display().to_string();
    let run = |names: &[&str]| {
        let inputs = folder.path().join("in");
        let _ = fs::remove_dir_all(&inputs);
        fs::create_dir(&inputs).unwrap();
        for name in names {
            fs::write(inputs.join(name), ">a\nMKVA\n>b\nMKVL\n").unwrap();
        }
        let arguments =
            format!("-q run {pipeline} --input in/* --shards 2 --format tsv --contacts false");
        ended(&mut nextflow(folder.path(), &arguments))
    };
    let sound = [
        "it's 2 \"proteins\".fasta",
        "a & b | (c) <d>!.fasta",
        "comma, a=b%c@d+e.fa",
        "`touch x`.fasta",
    ];
    let (code, said) = run(&sound);
    assert_eq!(code, Some(0), "{said}");
    for name in sound {
        let name = name.rsplit_once('.').unwrap().0;
        for ending in ["tsv", "tsv.json", "html"] {
            assert_eq!(
                find(&folder.path().join("results"), &format!("{name}.{ending}")).len(),
                1,
                "{name}"
            );
        }
    }
    for name in [
        "a;touch x.fasta",
        "a$HOME.fasta",
        "-a.fasta",
        "a{b,c}.fasta",
        "a\\b.fasta",
        "a\nb.fasta",
    ] {
        let (code, said) = run(&[name]);
        assert_ne!(code, Some(0), "{name}: {said}");
        assert!(said.contains("rename"), "{name}: {said}");
    }
    for name in ["x", "x.fasta"] {
        assert_eq!(
            find(folder.path(), name).len(),
            0,
            "a name was run as a command"
        );
    }
}
