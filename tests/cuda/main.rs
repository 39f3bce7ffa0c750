//! The CUDA kernels without a GPU: their own `.cu` files, compiled by g++ with
//! `tests/cuda/emulate.h`, run by the very launches that a GPU would get, and compared with their
//! definitions in f64. Memory accesses, barriers and collective operations are checked as they
//! happen; `faults` shows that the checks see.
//!
//! Nothing here says that a kernel is fast, nor that a real GPU computes the same: `ankh3 doctor
//! --device cuda` does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attention;
#[cfg(feature = "cuda")]
mod binary;
mod emulator;
mod faults;
mod kernels;
mod reference;
#[path = "../skip/mod.rs"]
mod skip;
