//! The CUDA forms of the kernels: `.cu` files and, beside each, the launches that run it.
//!
//! A launch is plain data ([`launch::Launch`]): the kernel's name, grid, block, shared memory and
//! arguments. Pure functions make launches from shapes and addresses, so that the tests run on a
//! CPU the same launches that a GPU runs (`tests/cuda`). Only `device`, compiled with the feature
//! `cuda`, calls a driver.
//!
//! Kernels use the primitives of `device.cuh` and are compiled by `build.rs` for `sm_80`, `sm_89`
//! and `sm_90`, with PTX for later architectures. They are deterministic, and the bytes of a row do
//! not depend on the rest of the batch: no atomics, and sums in one fixed order.

pub mod attention;
pub mod elementwise;
pub mod launch;
pub mod norm;
pub mod rows;

#[cfg(feature = "cuda")]
pub(crate) mod attention_op;
#[cfg(feature = "cuda")]
pub(crate) mod device;
#[cfg(feature = "cuda")]
pub(crate) mod ops;
