//! Results to pages and pictures.
//!
//! - [`page`]: the results of a run as one HTML page
//! - [`charts`]: curves, histograms, scatter plots, confusion matrices, heat maps
//! - [`contact_map`]: contacts as CASP writes them, as a picture and as part of the page
//! - [`picture`]: a chart as a PNG or SVG file
//! - [`tensorboard`]: the curves of a training run for `TensorBoard`
//! - [`training_log`]: the log that curves are drawn from

pub mod charts;
pub mod contact_map;
pub mod error;
mod file;
mod numbers;
pub mod page;
pub mod picture;
pub mod tensorboard;
pub mod training_log;
