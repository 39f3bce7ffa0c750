//! Every input of `fuzz/corpus` through its reader, so that what fuzzing found once stays sound.
//! CONTRIBUTING.md says how to add inputs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// The functions that the fuzz targets run.
#[path = "../../fuzz/src/readers.rs"]
mod readers;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The largest committed corpus, in bytes.
const LARGEST: u64 = 2 << 20;

fn fuzz(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(folder)
}

/// The names in a folder, without `ending`.
fn names(folder: &str, ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz(folder)).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let names = entries.map(|entry| name(entry.unwrap()));
    names
        .map(|name| name.trim_end_matches(ending).to_owned())
        .collect()
}

#[test]
fn every_reader_has_a_target_and_a_corpus() {
    let readers: BTreeSet<String> = readers::READERS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(readers.len(), readers::READERS.len());
    assert_eq!(names("fuzz_targets", ".rs"), readers);
    assert_eq!(names("corpus", ""), readers);
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).unwrap();
    for name in &readers {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        let target = fs::read_to_string(fuzz("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(target.contains(&format!("readers::{name}(data)")), "{name}");
    }
}

#[test]
fn no_input_of_the_corpus_breaks_its_reader() {
    let mut bytes = 0;
    for (name, read) in readers::READERS {
        let mut inputs: Vec<PathBuf> = fs::read_dir(fuzz("corpus").join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name}");
        for input in inputs {
            let data = fs::read(&input).unwrap();
            bytes += data.len() as u64;
            let ended = std::panic::catch_unwind(|| read(&data));
            assert!(ended.is_ok(), "{} breaks its reader", input.display());
        }
    }
    assert!(bytes < LARGEST, "{bytes} bytes: minimise the corpus");
}
