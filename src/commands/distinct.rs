//! No output replaces an input: checked for every command, before it runs, from its command line.
//!
//! Every path on the command line is an input unless its flag is in `OUTPUTS`, so a new flag for
//! an input needs no line here. Two paths are the same file if device and inode are equal, through
//! links of either kind. The files that lie beside inputs and outputs count, too.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ArgMatches;

use crate::args::usage;
use crate::io::stdio::is_dash;
use crate::output::manifest::with_suffix;

/// Flags of files that are written.
const OUTPUTS: [&str; 4] = ["output", "sites", "plot", "export_examples"];
/// Flags of directories whose files are read.
const MODELS: [&str; 3] = ["model", "head", "cache"];
/// Beginnings of the names of a model's files. Other files in its directory, such as results of an
/// earlier run there, may be replaced.
const MODEL_FILES: [&str; 6] = [
    "config.json",
    "added_tokens.json",
    "spiece.model",
    "model",
    "pytorch_model",
    "tokenizer",
];
/// Ends of the names of files that are read beside an input.
const BESIDE_INPUT: [&str; 3] = ["", ".json", ".index.tsv"];
/// Ends of the names of files that are written beside an output.
const BESIDE_OUTPUT: [&str; 5] = ["", ".json", ".index.tsv", ".resume", ".part.resume"];

/// Rejects a command line on which an output is an input.
///
/// # Errors
/// The name of the output.
pub fn check(line: &ArgMatches) -> Result<()> {
    if let Some((_, line)) = line.subcommand() {
        return check(line);
    }
    // Standard input is often read without being named.
    let (mut inputs, mut outputs) = (vec![PathBuf::from("-")], Vec::new());
    for id in line.ids().map(clap::Id::as_str) {
        let paths = paths_of(line, id);
        if OUTPUTS.contains(&id) {
            outputs.extend(paths);
        } else if MODELS.contains(&id) {
            let files = paths.iter().flat_map(|dir| files_in(dir, id == "model"));
            inputs.extend(files);
        } else {
            inputs.extend(paths);
        }
    }
    check_paths(&inputs, outputs.iter().map(PathBuf::as_path))
}

/// Rejects outputs that are the same file as an input.
///
/// # Errors
/// The name of the output.
pub(super) fn check_paths<'a>(
    inputs: &[PathBuf],
    outputs: impl Iterator<Item = &'a Path>,
) -> Result<()> {
    let of_inputs = |path: &PathBuf| identities(path, &BESIDE_INPUT, "/dev/stdin");
    let inputs: Vec<_> = inputs.iter().flat_map(of_inputs).collect();
    for output in outputs {
        for (path, identity) in identities(output, &BESIDE_OUTPUT, "/dev/stdout") {
            if let Some((input, _)) = inputs.iter().find(|(_, input)| *input == identity) {
                let is_same = input == &path;
                let also = if is_same {
                    String::new()
                } else {
                    format!(
                        " ({} and {} are the same file)",
                        path.display(),
                        input.display()
                    )
                };
                return Err(usage(format_args!(
                    "{} is an input and an output{also}; give the output another name",
                    output.display()
                ))
                .into());
            }
        }
    }
    Ok(())
}

/// The values of a flag that are paths; --model and --head may also be names.
fn paths_of(line: &ArgMatches, id: &str) -> Vec<PathBuf> {
    let paths = line.try_get_many::<PathBuf>(id).ok().flatten();
    let mut paths: Vec<PathBuf> = paths.into_iter().flatten().cloned().collect();
    if MODELS.contains(&id) {
        let names = line.try_get_many::<String>(id).ok().flatten();
        paths.extend(names.into_iter().flatten().map(PathBuf::from));
    }
    paths
}

/// The files in a directory and in its folders; of a model's directory, those of the model.
fn files_in(dir: &Path, is_model: bool) -> Vec<PathBuf> {
    let list = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let entries = list(dir);
    let in_folders: Vec<_> = entries.iter().flat_map(|folder| list(folder)).collect();
    let is_read = |path: &PathBuf| !is_model || is_of_model(path);
    entries
        .into_iter()
        .filter(is_read)
        .chain(in_folders)
        .collect()
}

fn is_of_model(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    MODEL_FILES.iter().any(|begin| name.starts_with(begin))
}

/// Device and inode of `path` and of the files beside it, where they are regular files; those of
/// `stream` for `-`.
fn identities(path: &Path, beside: &[&str], stream: &str) -> Vec<(PathBuf, (u64, u64))> {
    let paths = if is_dash(path) {
        vec![PathBuf::from(stream)]
    } else {
        beside
            .iter()
            .map(|suffix| with_suffix(path, suffix))
            .collect()
    };
    let identity = |path: PathBuf| {
        let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        Some((path, (meta.dev(), meta.ino())))
    };
    paths.into_iter().filter_map(identity).collect()
}
