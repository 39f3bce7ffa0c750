//! Names the commit of a release build for `ankh3 --version`, and compiles the CUDA kernels into one fat binary, which the program embeds; only with the feature
//! `cuda`.
//!
//! The binary has native code for `sm_80` (A100), `sm_89` (L4, L40, RTX 4090) and `sm_90` (H100,
//! H200), and PTX of `sm_80`, which the driver compiles for later GPUs. The compiler is `$NVCC`,
//! else `$CUDA_HOME/bin/nvcc`, else `nvcc`; `containers/cuda/toolchain` downloads a compiler for
//! machines without one.

use std::path::{Path, PathBuf};
use std::process::Command;

const FILES: [&str; 6] = [
    "norm.cu",
    "elementwise.cu",
    "rows.cu",
    "sums.cu",
    "attention.cu",
    "attention_mma.cu",
];

const HEADERS: [&str; 3] = ["common.cuh", "device.cuh", "attention.cuh"];

const TARGETS: [&str; 4] = [
    "arch=compute_80,code=sm_80",
    "arch=compute_89,code=sm_89",
    "arch=compute_90,code=sm_90",
    "arch=compute_80,code=compute_80",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    name_commit();
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for file in FILES.iter().chain(&HEADERS) {
        println!("cargo:rerun-if-changed=src/kernels/cuda/{file}");
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let folder = std::env::var_os("OUT_DIR").expect("cargo sets it");
    let folder = Path::new(&folder);
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let kernels = Path::new(&root).join("src/kernels/cuda");
    let all: Vec<String> = FILES
        .iter()
        .map(|file| format!("#include \"{file}\"\n"))
        .collect();
    let all = all.concat();
    let source = folder.join("kernels.cu");
    std::fs::write(&source, all).expect("OUT_DIR can be written");
    let nvcc = compiler();
    let status = Command::new(&nvcc)
        .args(["-std=c++17", "-O3", "-fatbin", "-t", "0"])
        .args(["-Werror", "all-warnings", "-compress-mode=size"])
        .args(TARGETS.iter().flat_map(|target| ["-gencode", target]))
        .arg("-I")
        .arg(kernels)
        .arg("-o")
        .args([folder.join("kernels.fatbin"), source])
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(_) => panic!("{} could not compile the kernels", nvcc.display()),
        Err(error) => panic!(
            "{} does not run ({error}): the feature `cuda` needs a CUDA compiler; containers/cuda/build provides one",
            nvcc.display()
        ),
    }
}

/// Sets `ANKH3_COMMIT` for the compiler, unless the environment sets it: the commit of the published
/// crate, or of the git checkout. Only for release builds, so that other builds need not be repeated
/// after each commit.
fn name_commit() {
    println!("cargo:rerun-if-env-changed=ANKH3_COMMIT");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if std::env::var_os("ANKH3_COMMIT").is_some() || !is_release {
        return;
    }
    if let Some(commit) = commit_of_crate().or_else(commit_of_checkout) {
        println!("cargo:rustc-env=ANKH3_COMMIT={commit}");
    }
}

/// The commit that `cargo publish` writes into the crate.
fn commit_of_crate() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\": \"")?;
    rest.get(..12).map(str::to_owned)
}

fn commit_of_checkout() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    // A source without git in the checkout of something else has no commit of its own.
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn compiler() -> PathBuf {
    if let Some(nvcc) = std::env::var_os("NVCC") {
        return nvcc.into();
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].map(std::env::var_os);
    let found = homes
        .into_iter()
        .flatten()
        .map(|home| Path::new(&home).join("bin/nvcc"))
        .find(|nvcc| nvcc.exists());
    found.unwrap_or_else(|| "nvcc".into())
}
