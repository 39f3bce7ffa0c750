//! How good predictions are: pure functions, each taking how often a protein counts, so that intervals come from resampling proteins.

mod bootstrap;
pub mod classes;
pub mod contacts;
pub mod numbers;

pub use bootstrap::{Estimate, RESAMPLES, bootstrap, mean_of};
