//! The CUDA kernels without a GPU: their own `.cu` files, compiled by g++ with
//! `tests/cuda/emulate.h`, run by the very launches that a GPU would get, and compared with their
//! definitions in f64. Memory accesses, barriers and collective operations are checked as they
//! happen; `faults` shows that the checks see.
//!
//! Nothing here says that a kernel is fast, nor that a real GPU computes the same: `ankh3 doctor
//! --device cuda` does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cuda/attention.rs"]
mod attention;
#[cfg(feature = "cuda")]
#[path = "cuda/binary.rs"]
mod binary;
#[path = "cuda/emulator.rs"]
mod emulator;
#[path = "cuda/faults.rs"]
mod faults;
#[path = "cuda/kernels.rs"]
mod kernels;
#[path = "cuda/reference.rs"]
mod reference;
