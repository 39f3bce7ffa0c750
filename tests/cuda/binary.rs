//! A program built with the feature `cuda`: it starts where there is neither driver nor CUDA
//! library, and says what is missing.

use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_ankh3");

#[test]
fn it_needs_no_cuda_library_to_start() {
    let output = Command::new("ldd").arg(BINARY).output().unwrap();
    assert!(output.status.success());
    let needed = String::from_utf8(output.stdout).unwrap();
    assert!(needed.contains("libc.so"), "{needed}");
    for library in ["libcuda", "libcublas", "libcurand", "libnvrtc", "libnccl"] {
        assert!(!needed.contains(library), "{needed}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_missed_in_words() {
    if ankh3::device::has_driver() {
        crate::skip::skip(crate::skip::Lack::Machine, "a machine without a driver");
        return;
    }
    for device in ["cuda", "cuda:1"] {
        let output = Command::new(BINARY)
            .args(["doctor", "--device", device])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("no NVIDIA driver (libcuda.so.1)"), "{said}");
        assert!(said.contains("--device cpu"), "{said}");
    }
    let output = Command::new(BINARY).args(["doctor"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("features: cuda"), "{said}");
}
