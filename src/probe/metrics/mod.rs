//! Measures of predictions, as pure functions of how often each protein counts, so that resampling
//! proteins gives intervals.

mod bootstrap;
pub mod classes;
pub mod contacts;
pub mod numbers;

pub use bootstrap::{Estimate, RESAMPLES, bootstrap, mean_of};
