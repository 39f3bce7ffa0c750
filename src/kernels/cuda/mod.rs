//! The CUDA forms of the kernels: `.cu` files, and beside each the launches that run it.
//!
//! A launch is plain data ([`launch::Launch`]): the kernel's name, grid, block, shared memory and arguments. Pure functions make it from shapes and addresses, so
//! the tests execute the very launches a GPU gets, on a CPU (`tests/cuda`). Only [`device`], compiled with the feature `cuda`, knows a driver.
//!
//! Kernels are written in the few words of `device.cuh` and compiled by `build.rs` for `sm_80`, `sm_89` and `sm_90`, with PTX for whatever comes later. They must be
//! deterministic and give a row the same bytes whatever else is in the batch: no atomics, sums of one fixed order.

pub mod attention;
pub mod elementwise;
pub mod launch;
pub mod norm;
pub mod rows;

#[cfg(feature = "cuda")]
pub mod attention_op;
#[cfg(feature = "cuda")]
pub mod device;
#[cfg(feature = "cuda")]
pub mod ops;
