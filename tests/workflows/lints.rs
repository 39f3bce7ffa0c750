use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{command, ended, folder, has, nextflow, project, ran};

#[test]
fn nextflow_lint_finds_no_error() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let mut lint = nextflow(folder.path(), "lint");
    let said = ran(lint.args(["nextflow", "workflows", "tests/workflows"].map(project)));
    assert!(
        said.contains("had no errors") && !said.contains('❌'),
        "{said}"
    );
    fs::write(
        folder.path().join("bad.nf"),
        "workflow { no_such_thing() }\n",
    )
    .unwrap();
    let (code, said) = ended(&mut nextflow(folder.path(), "lint bad.nf"));
    assert_ne!(code, Some(0), "the linter let a wrong script pass: {said}");
}

/// nf-core's tools take two schemas from a git repository. Theirs cannot be reached without a
/// network, so the repository here holds ours.
fn schemas(folder: &Path) -> String {
    let here = folder.join("schemas");
    fs::create_dir_all(here.join("modules")).unwrap();
    for schema in ["meta-schema.json", "environment-schema.json"] {
        let from = project("tests/workflows/nf-core").join(schema);
        fs::copy(from, here.join("modules").join(schema)).unwrap();
    }
    let settings = "repository_type: modules\norg_path: nf-core\n";
    fs::write(here.join(".nf-core.yml"), settings).unwrap();
    let git = |arguments: &str| {
        let who = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
        let mut git: Command = command("git", &here);
        ran(git.args(who).args(arguments.split_whitespace()))
    };
    git("init -q -b master");
    git("add -A");
    git("commit -q -m schemas");
    // The tools want a clone of something.
    git("clone -q --bare . ../schemas.git");
    git("remote add origin ../schemas.git");
    git("fetch -q");
    git("branch -q -u origin/master");
    format!("file://{}", here.display())
}

/// Checks that cannot pass here: they ask for containers by `nextflow inspect` of a later Nextflow
/// than Maven has.
const OUT_OF_REACH: [&str; 2] = ["docker_tag", "singularity_tag"];

#[test]
fn nf_core_lints_every_module_offline() {
    if !has("snakemake") || !has("nextflow") {
        return;
    }
    let folder = folder();
    let remote = schemas(folder.path());
    let mut lint = command("nf-core", folder.path());
    lint.args([
        "modules",
        "-g",
        &remote,
        "-b",
        "master",
        "lint",
        "--all",
        "--plain-text",
        "--dir",
    ]);
    let (_, said) = ended(lint.arg(project("nextflow")));
    assert!(said.contains("LINT RESULTS SUMMARY"), "{said}");
    let failed = said.split("Tests Failed").nth(1).unwrap_or_default();
    let failed = failed.split("LINT RESULTS SUMMARY").next().unwrap();
    let wrong: Vec<&str> = failed
        .lines()
        .filter(|line| line.starts_with("ankh3/"))
        .filter(|line| !OUT_OF_REACH.iter().any(|check| line.ends_with(check)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{said}");
    let modules = fs::read_dir(project("nextflow/modules/nf-core/ankh3")).unwrap();
    assert_eq!(modules.count(), 10);
}

#[test]
fn a_module_says_which_container_it_wants() {
    if !has("nextflow") {
        return;
    }
    let folder = folder();
    let module = project("nextflow/modules/nf-core/ankh3/embed/main.nf");
    let inspect = |more: &[&str]| {
        let mut inspect = nextflow(folder.path(), "");
        let gpu = project("nextflow/conf/gpu.config");
        if !more.is_empty() {
            inspect.arg("-c").arg(gpu);
        }
        ran(inspect.args(["inspect", "-format", "json"]).arg(&module))
    };
    assert!(inspect(&[]).contains("\"ankh3:0.1.0\""));
    assert!(inspect(&["gpu"]).contains("\"ankh3:0.1.0-cuda\""));
}

#[test]
fn snakemakes_linters_are_content() {
    if !has("snakemake") {
        return;
    }
    let folder = folder();
    for snakefile in [
        "snakemake/workflow/Snakefile",
        "workflows/proteome/Snakefile",
        "workflows/family/Snakefile",
    ] {
        let mut lint = command("snakemake", folder.path());
        lint.args(["--lint", "--snakefile"]).arg(project(snakefile));
        if snakefile.starts_with("snakemake") {
            lint.arg("--configfile")
                .arg(project("snakemake/config/config.yaml"));
        }
        let said = ran(&mut lint);
        assert!(said.contains("good condition"), "{snakefile}: {said}");
    }
    let mut format = command("snakefmt", folder.path());
    ran(format
        .arg("--check")
        .args(["snakemake", "workflows"].map(project)));
}

#[test]
fn every_description_is_yaml() {
    if !has("snakemake") {
        return;
    }
    let check = "import sys, yaml, pathlib
for folder in sys.argv[1:]:
    files = [file for pattern in ('*.yml', '*.yaml') for file in pathlib.Path(folder).rglob(pattern)]
    assert files, folder
    for file in files:
        try:
            yaml.safe_load(file.read_text())
        except yaml.YAMLError as error:
            sys.exit(f'{file}: {error}')";
    let folder = folder();
    let python = project(".tools/python/bin/python");
    let mut run = command(python.to_str().unwrap(), folder.path());
    let folders = ["nextflow", "snakemake", "workflows"].map(project);
    ran(run.args(["-c", check]).args(folders));
}

/// Apptainer copies what its definition lists, and nothing else.
#[test]
fn the_apptainer_definition_copies_all_that_the_code_includes() {
    let definition = fs::read_to_string(project("containers/ankh3.def")).unwrap();
    let mut needed = vec!["Cargo.toml".to_owned(), "Cargo.lock".to_owned()];
    let mut folders = vec![project("src")];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let included = ["include_str!(\"", "include_bytes!(\""]
                .into_iter()
                .flat_map(|call| text.split(call).skip(1))
                .filter_map(|rest| rest.split('"').next());
            for file in included {
                let file = here.join(file).canonicalize().unwrap();
                let inside = file.strip_prefix(project("")).unwrap();
                let first = inside.components().next().unwrap().as_os_str();
                needed.push(first.to_string_lossy().into_owned());
            }
        }
    }
    if project("models").is_dir() {
        needed.push("models".to_owned());
    }
    assert!(needed.contains(&"recipes".to_owned()), "{needed:?}");
    for name in needed {
        let line = format!("    {name} /src/{name}\n");
        assert!(
            definition.contains(&line),
            "no {line:?} in containers/ankh3.def"
        );
    }
}

#[test]
fn containers_and_scripts_are_linted() {
    if !has("snakemake") || !has("shellcheck") {
        return;
    }
    let folder = folder();
    ran(command("hadolint", folder.path()).arg(project("Dockerfile")));
    let scripts = [
        ".ci/run",
        "tests/run",
        "tests/golden/regenerate",
        "tests/workflows/engines",
        "tests/workflows/slurm",
        "tests/workflows/nextflow/nextflow",
        "containers/conda/build.sh",
        "containers/cuda/build",
        "containers/cuda/rustc-dlopen",
        "containers/cuda/toolchain",
        "bench/gpu/run",
        ".ci/cuda",
        "fuzz/seed",
    ];
    ran(command("shellcheck", folder.path()).args(scripts.map(project)));
}
