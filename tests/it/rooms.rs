//! Enforces the map of the rooms: which room may import which, and which crate belongs to which
//! room.
//!
//! The test reads the sources as tokens (comments, strings and `#[cfg(test)]` items are ignored),
//! resolves `use` declarations, and fails with the file, the line and the room of every import that
//! the map does not allow. A new room starts with a line in [`map::ROOMS`].

mod map;
mod names;
mod paths;

use std::path::{Path, PathBuf};

use map::{EVERYWHERE, KEPT_IN, KEPT_OUT_OF, PRINT_MACROS, ROOMS};
use names::public_types;
use paths::{Found, find};

/// The violations in one file, one line each.
fn complaints(file: &str, source: &str) -> Vec<String> {
    let room = room_of(file);
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{file}: room `{room}` is not on the map; add it to ROOMS in tests/it/rooms/map.rs and to CONTRIBUTING.md"
        )];
    };
    find(&module_path(file), source)
        .unwrap_or_else(|error| panic!("{file}: {error}"))
        .into_iter()
        .filter_map(|found| {
            let wrong = match &found.path[..] {
                [name] if found.is_macro && PRINT_MACROS.contains(&name.as_str()) => {
                    Some(format!("`{name}!` writes past io and tracing"))
                }
                [root, used, ..] if root == "crate" => wrong_room(room, allowed, used),
                _ => wrong_crate(room, &found),
            };
            wrong.map(|what| format!("{file}:{}: {what}", found.line))
        })
        .collect()
}

fn wrong_room(room: &str, allowed: &[&str], used: &str) -> Option<String> {
    let is_room = ROOMS.iter().any(|(name, _)| *name == used);
    (is_room && used != room && !allowed.contains(&used))
        .then(|| format!("room `{room}` must not use room `{used}`"))
}

fn wrong_crate(room: &str, found: &Found) -> Option<String> {
    let path = found.path.join("::");
    if EVERYWHERE.contains(&path.as_str()) {
        return None;
    }
    let within = |name: &str| path == name || path.starts_with(&format!("{name}::"));
    let kept_in = KEPT_IN
        .iter()
        .find(|(name, rooms)| within(name) && !rooms.contains(&room));
    let kept_out = KEPT_OUT_OF
        .iter()
        .find(|(name, rooms)| within(name) && rooms.contains(&room));
    match (kept_in, kept_out) {
        (Some((name, rooms)), _) => Some(format!(
            "room `{room}` must not use `{name}`; it belongs to {}",
            rooms.join(", ")
        )),
        (None, Some((name, _))) => Some(format!("room `{room}` must not know `{name}`")),
        (None, None) => None,
    }
}

/// `input/fasta.rs` → `["input", "fasta"]`; `model/mod.rs` → `["model"]`; the two roots → `[]`.
fn module_path(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs").trim_end_matches("/mod");
    match stem {
        "main" | "lib" => Vec::new(),
        _ => stem.split('/').map(String::from).collect(),
    }
}

fn room_of(file: &str) -> &str {
    file.split('/')
        .next()
        .unwrap_or(file)
        .trim_end_matches(".rs")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn every_import_goes_the_right_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&src);
    assert!(files.len() > 10, "found only {} sources", files.len());
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|path| {
            let file = path.strip_prefix(&src).expect("found below src");
            let file = file.to_str().expect("file names are plain");
            complaints(file, &std::fs::read_to_string(path).expect("readable"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_map_has_no_circles() {
    // Repeatedly removes the rooms that import only from removed rooms; rooms on a circle can never
    // be removed.
    let mut left: Vec<_> = ROOMS.iter().collect();
    while !left.is_empty() {
        let names: Vec<_> = left.iter().map(|(name, _)| *name).collect();
        let before = left.len();
        left.retain(|(_, allowed)| allowed.iter().any(|used| names.contains(used)));
        assert!(left.len() < before, "rooms in a circle: {names:?}");
    }
}

#[test]
fn a_public_type_name_occurs_once() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut types: Vec<_> = sources(&src)
        .iter()
        .flat_map(|path| {
            let file = path.strip_prefix(&src).expect("found below src");
            let source = std::fs::read_to_string(path).expect("readable");
            public_types(file.to_str().expect("file names are plain"), &source)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect();
    types.sort();
    assert!(types.len() > 100, "found only {} types", types.len());
    let twice: Vec<String> = types
        .windows(2)
        .filter(|pair| pair[0].name == pair[1].name)
        .map(|pair| {
            let [one, other] = pair else {
                return String::new();
            };
            format!(
                "{}: {}:{} and {}:{}",
                one.name, one.file, one.line, other.file, other.line
            )
        })
        .collect();
    assert!(
        twice.is_empty(),
        "one meaning, one name:\n{}",
        twice.join("\n")
    );
}

/// `(file, source, part of the complaint; empty where there must be none)`.
const PLANTED: &[(&str, &str, &str)] = &[
    ("input/fasta.rs", "use crate::sequence::Sequence;", ""),
    (
        "input/fasta.rs",
        "use crate::model::Config;",
        "input/fasta.rs:1: room `input` must not use room `model`",
    ),
    (
        "input/fasta.rs",
        "use crate::{sequence::Record, packing::{Packed}};",
        "must not use room `packing`",
    ),
    (
        "input/fasta.rs",
        "fn f() {\n    let x = crate::model::Config::new();\n}",
        "input/fasta.rs:2:",
    ),
    (
        "input/fasta.rs",
        "fn f() { tracing::info!(\"{}\", crate::model::NAME); }",
        "room `model`",
    ),
    (
        "input/fasta.rs",
        "use super::super::packing::Packed;",
        "room `packing`",
    ),
    ("input/fasta.rs", "use super::packing::Packed;", ""),
    (
        "input/fasta.rs",
        "mod inner { use super::super::super::packing::Packed; }",
        "room `packing`",
    ),
    (
        "input/fasta.rs",
        "// use crate::model::Config;\nconst A: &str = \"crate::model\";",
        "",
    ),
    (
        "input/fasta.rs",
        "#[cfg(test)]\nmod tests { use crate::model::Config; }",
        "",
    ),
    (
        "input/fasta.rs",
        "#[cfg(test)]\nuse crate::model::Config;\nuse crate::packing::Packed;",
        "input/fasta.rs:3:",
    ),
    (
        "input/fasta.rs",
        "use candle_core::Tensor;",
        "room `input` must not know `candle_core`",
    ),
    (
        "packing.rs",
        "use crate as ankh;\nuse ankh::model::Config;",
        "room `model`",
    ),
    (
        "packing.rs",
        "use crate::tokenizer;\nfn f() { tokenizer::encode() }",
        "",
    ),
    (
        "model/attention.rs",
        "use crate::kernels::attend;\nuse crate::model::Config;",
        "",
    ),
    (
        "model/attention.rs",
        "use crate::inference::Pooling;",
        "room `inference`",
    ),
    (
        "main.rs",
        "use ankh3::checkpoint;",
        "room `main` must not use room `checkpoint`",
    ),
    ("main.rs", "use clap::Parser;\nuse ankh3::commands;", ""),
    (
        "inference/pooling.rs",
        "#[derive(Clone, clap::Args)]\nstruct A { b: u8 }",
        "must not use `clap`",
    ),
    (
        "inference/pooling.rs",
        "#[cfg_attr(feature = \"cli\", derive(clap::ValueEnum))]\nenum A { B }",
        "",
    ),
    (
        "commands/embed.rs",
        "use hf_hub::Cache;",
        "it belongs to checkpoint",
    ),
    (
        "commands/embed.rs",
        "use std::io;\nfn f() { io::stdin().lock(); }",
        "must not use `std::io::stdin`",
    ),
    (
        "commands/embed.rs",
        "use std::io::{self, Read as _, stdout};",
        "must not use `std::io::stdout`",
    ),
    (
        "commands/embed.rs",
        "use crate::io;\nfn f() { io::stdin(); child.stdout.take(); }",
        "",
    ),
    ("io/stdio.rs", "use std::io::{stdin, stdout};", ""),
    (
        "commands/embed.rs",
        "use candle_core as c;\nfn f() { c::pickle::read_all(); }",
        "must not use `candle_core::pickle`",
    ),
    (
        "commands/embed.rs",
        "fn f() { println!(\"{}\", 1); }",
        "`println!` writes past",
    ),
    ("cellar.rs", "", "room `cellar` is not on the map"),
];

#[test]
fn a_planted_import_is_caught() {
    for (file, source, expected) in PLANTED {
        let found = complaints(file, source).join("\n");
        let as_expected = match *expected {
            "" => found.is_empty(),
            part => found.contains(part),
        };
        assert!(
            as_expected,
            "{file}: {source}\nexpected: {expected}\nfound: {found}"
        );
    }
}

/// Imports every script of `bench/`; external packages may be missing, our own modules may not.
const IMPORT_ALL: &str = r#"
import importlib.util, pathlib, sys
bench = pathlib.Path(sys.argv[1])
ours = {path.stem for path in bench.glob("*/*.py")}
for path in sorted(bench.glob("*/*.py")):
    sys.path[:0] = [str(path.parent), str(bench / "common")]
    spec = importlib.util.spec_from_file_location("script", path)
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except ModuleNotFoundError as error:
        if error.name in ours:
            sys.exit(f"{path}: {error}")
    del sys.path[:2]
    for name in ours & set(sys.modules):
        del sys.modules[name]
    print(path.name)
"#;

#[test]
fn benchmarks_find_what_they_share() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("ANKH3_TEST_PYTHON").map_or(here.join(".venv/bin/python"), PathBuf::from);
    let output = std::process::Command::new(&python)
        .args(["-c", IMPORT_ALL])
        .arg(here.join("bench"))
        .env("ANKH3", "ankh3")
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; run tests/run, which makes it",
                python.display()
            )
        });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("measure.py"));
}
